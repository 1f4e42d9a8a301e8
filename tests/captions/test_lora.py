from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from conceptcaps.captions import lora
from conceptcaps.captions.checks import is_said
from conceptcaps.captions.prompts import PromptTemplate, prompt_ids
from conceptcaps.captions.train import fit, learning_rate, mean_loss, start, train_on_ray
from conceptcaps.captions.vllm import EMBEDDED, adapter_rank, load_tokenizer
from conceptcaps.config.captions import CaptionsConfig
from conceptcaps.config.lora import LoraConfig
from conceptcaps.errors import InputError
from conceptcaps.rundir import RunDir

ROWS = [
    {"genre_aspects": [genre], "mood_aspects": [mood], "caption": f"It is {mood} {genre}{' and more' * (i % 5)}."}
    for i, (genre, mood) in enumerate((g, m) for g in ("rock", "pop", "jazz", "folk") for m in ("sad", "calm", "warm"))
]
CONFIG = LoraConfig(
    r=4, alpha=8, dropout=0.0, epochs=3, batch_size=4, micro_batch_size=2, learning_rate=1e-2, patience=3
)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(EMBEDDED)


@pytest.fixture(scope="module")
def examples(tokenizer):
    return lora.encode_pairs(tokenizer, PromptTemplate.load(None), ROWS, 128)[0]


@pytest.fixture
def base(tokenizer):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, **sizes))


def losses(state) -> list[float]:
    return [step["loss"] for step in state.steps]


def test_the_loss_is_on_the_answer_only(tokenizer, examples, base):
    template = PromptTemplate.load(None)
    asked = prompt_ids(tokenizer, template.messages(ROWS[0]))
    assert examples[0].ids[: examples[0].num_prompt] == asked
    assert tokenizer.decode(examples[0].ids[examples[0].num_prompt :]) == f"{ROWS[0]['caption']}</s>"
    batch = lora.collate(examples[:3], tokenizer.pad_token_id)
    assert int(batch["answer"].sum()) == sum(e.num_answer for e in examples[:3])
    logits = base(input_ids=torch.tensor([examples[0].ids])).logits[0].log_softmax(-1)
    by_hand = -sum(logits[i - 1, examples[0].ids[i]] for i in range(len(asked), len(examples[0].ids)))
    one = lora.collate(examples[:1], tokenizer.pad_token_id)
    torch.testing.assert_close(lora.answer_loss(base, one), by_hand)


def test_padding_does_not_change_a_loss(tokenizer, examples, base):
    together = lora.answer_loss(base, lora.collate(examples[:5], tokenizer.pad_token_id))
    apart = sum(lora.answer_loss(base, lora.collate([e], tokenizer.pad_token_id)) for e in examples[:5])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)


def test_pairs_can_ask_for_what_their_captions_say():
    rows = [
        {"genre_aspects": ["rock"], "mood_aspects": ["sad", "calm"], "caption": "A calm rock song."},
        {"genre_aspects": ["pop"], "tempo_aspects": None, "caption": "Nothing of that."},
    ]
    (kept,) = lora.without_unsaid_tags(rows)
    assert (kept["genre_aspects"], kept["mood_aspects"], kept["tempo_aspects"]) == (["rock"], ["calm"], [])
    assert kept["aspect_list"] == lora.row_tags(kept) == ["rock", "calm"]


def test_pairs_can_say_what_their_captions_leave_out():
    rows = [
        {
            "genre_aspects": ["rock"],
            "mood_aspects": ["sad", "calm"],
            "tempo_aspects": ["slow tempo"],
            "caption": "Calm rock",
        },
        {"genre_aspects": ["pop"], "tempo_aspects": None, "caption": "A pop song."},
    ]
    first, second = lora.with_unsaid_tags_said(rows, 0)
    assert first["caption"].startswith("Calm rock. ")
    assert "sad" in first["caption"]
    assert first["caption"].count("rock") == 1
    assert is_said(first["caption"], "slow tempo")
    assert second == rows[1]
    assert lora.with_unsaid_tags_said(rows, 0) == [first, second]
    assert rows[0]["caption"] == "Calm rock"


def test_answers_cut_and_lost_are_counted(tokenizer):
    template = PromptTemplate.load(None)
    size = len(prompt_ids(tokenizer, template.messages(ROWS[0])))
    long = {**ROWS[0], "genre_aspects": ["rock " * 50]}
    found, counts = lora.encode_pairs(tokenizer, template, [ROWS[0], long], size + 3)
    assert counts == {"pairs": 2, "answers_cut": 1, "answers_lost": 1}
    assert [len(e.ids) for e in found] == [size + 3]
    with pytest.raises(InputError, match="max_length"):
        lora.encode_pairs(tokenizer, template, ROWS, 3)


@pytest.mark.parametrize("grouped", [True, False])
def test_an_epoch_holds_every_row_once(grouped):
    lengths = np.random.default_rng(0).integers(5, 200, 137)
    steps = lora.order_steps(lengths, 8, np.random.default_rng(1), grouped)
    assert sorted(np.concatenate(steps).tolist()) == list(range(137))


def test_grouping_saves_padding():
    lengths = np.random.default_rng(0).integers(5, 200, 1000)
    shares = [
        lora.padding_share(lengths, lora.order_steps(lengths, 16, np.random.default_rng(1), grouped), 16)
        for grouped in (True, False)
    ]
    assert shares[0] < 0.3 * shares[1]


def test_pairs_are_read_from_text_between_commas(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text(
        "caption,tempo_tags,genre_tags,mood_tags,instrument_tags\n"
        'One  song.,slow tempo,,"sad, calm, sad",piano\nNo tags.,,,,\n,fast,rock,,\n'
    )
    assert lora.read_pairs(str(path)) == [
        {
            "caption": "One song.",
            "genre_aspects": [],
            "mood_aspects": ["sad", "calm"],
            "instrument_aspects": ["piano"],
            "tempo_aspects": ["slow tempo"],
        }
    ]
    path.write_text("caption,tags\na,b\n")
    with pytest.raises(InputError, match="lacks columns"):
        lora.read_pairs(str(path))
    with pytest.raises(InputError, match="no file"):
        lora.read_pairs(str(tmp_path / "none.csv"))


def test_rows_of_one_caption_stay_on_one_side():
    rows = [{"caption": str(i // 3)} for i in range(60)]
    train, held = lora.split_pairs(rows, 0.2, 0)
    assert len(train) + len(held) == 60
    assert not {r["caption"] for r in train} & {r["caption"] for r in held}
    assert len(held) == 12


def test_the_rate_warms_up_and_falls_to_zero():
    config = LoraConfig(learning_rate=1.0, warmup_fraction=0.1)
    rates = [learning_rate(step, 100, config) for step in range(100)]
    assert rates[0] < rates[5] < rates[10] == pytest.approx(1.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.01


def test_fitting_lowers_the_loss_and_leaves_the_base_alone(tokenizer, examples):
    base = lora.load_base(EMBEDDED, CONFIG, torch.device("cpu"))
    before = {name: value.clone() for name, value in base.state_dict().items()}
    state = start(base, CONFIG, 0)
    first = mean_loss(state.model, examples, 4, tokenizer.pad_token_id)
    fit(state, examples, examples, CONFIG, 0, tokenizer.pad_token_id)
    assert state.best_loss < 0.7 * first
    after = state.model.unload().state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_micro_batches_do_not_change_the_curve(tokenizer, examples, base):
    import copy

    curves = []
    for size in (1, 4):
        config = CONFIG.model_copy(update={"micro_batch_size": size, "epochs": 1})
        state = start(copy.deepcopy(base), config, 0)
        curves.append(losses(fit(state, examples, examples, config, 0, tokenizer.pad_token_id)))
    np.testing.assert_allclose(*curves, rtol=1e-3)


def test_a_resumed_fit_has_the_same_curve(tokenizer, examples, base):
    import copy

    config = CONFIG.model_copy(update={"dropout": 0.1})
    kept: dict = {}

    def keep(state):
        if len(state.history) == 1:
            kept.update(copy.deepcopy(state.state()))

    whole = fit(start(copy.deepcopy(base), config, 0), examples, examples, config, 0, tokenizer.pad_token_id, keep)
    resumed = start(copy.deepcopy(base), config, 0)
    resumed.restore(kept)
    fit(resumed, examples, examples, config, 0, tokenizer.pad_token_id)
    assert losses(resumed) == losses(whole)


def test_a_target_that_the_model_has_not_is_refused(base):
    with pytest.raises(InputError, match="target_modules"):
        lora.add_adapter(base, CONFIG.model_copy(update={"target_modules": ("nothing",)}), 0)


def test_the_stage_loop_writes_an_adapter_that_peft_reads(tmp_path):
    import peft
    from transformers import AutoModelForCausalLM

    run = RunDir(tmp_path)
    config = CONFIG.model_copy(update={"epochs": 1, "patience": 1, "save_merged": True})
    made = train_on_ray(ROWS[:8], ROWS[8:], config, CaptionsConfig(engine="vllm"), run, 0, {"why": "test"})
    assert made["best_loss"] < made["base_loss"]
    assert made["counts"]["train"] == {"pairs": 8, "answers_cut": 0, "answers_lost": 0}
    folder = tmp_path / "lora" / "adapter"
    assert json.loads((folder / lora.PROVENANCE).read_text()) == {"why": "test"}
    assert adapter_rank(str(folder)) == 8
    served = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32), folder)
    tokenizer = load_tokenizer(EMBEDDED)
    held, _ = lora.encode_pairs(tokenizer, PromptTemplate.load(None), ROWS[8:], config.max_length)
    assert mean_loss(served, held, 4, tokenizer.pad_token_id) == pytest.approx(made["best_loss"], rel=1e-4)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "lora" / "merged", dtype=torch.float32)
    assert mean_loss(merged, held, 4, tokenizer.pad_token_id) == pytest.approx(made["best_loss"], rel=1e-3)
    assert load_tokenizer(str(tmp_path / "lora" / "merged")).chat_template
    again = train_on_ray(ROWS[:8], ROWS[8:], config, CaptionsConfig(engine="vllm"), run, 0, {"why": "test"})
    assert again["steps"] == made["steps"]
