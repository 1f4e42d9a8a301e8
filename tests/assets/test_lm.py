from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from conceptcaps.assets.build_lm import Trainer, build_model, drill, train
from conceptcaps.assets.lm_quality import coverage, generate, said, tag_sets
from conceptcaps.captions.vllm import EMBEDDED, load_tokenizer
from conceptcaps.seeding import generator


def test_the_checkpoint_is_small_half_precision_and_complete():
    from pathlib import Path

    folder = Path(EMBEDDED)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 7_000_000
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert {str(file.get_tensor(name).dtype) for name in file.keys()} == {"torch.float16"}  # noqa: SIM118
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert model.config.architectures == ["LlamaForCausalLM"]
    assert model.config.vocab_size == len(load_tokenizer(EMBEDDED))


def test_text_survives_the_tokenizer():
    tokenizer = load_tokenizer(EMBEDDED)
    text = "A lo-fi R&B song at 90 bpm, naïve and 'weird' 音."
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


@pytest.mark.parametrize(("kind", "least"), [("taxonomy", 0.9), ("composed", 0.7), ("invented", 0.7)])
def test_it_says_the_tags_it_is_asked_for(kind, least):
    sets = tag_sets(kind, 25, seed=99)
    measured = coverage(sets, generate(EMBEDDED, sets))
    assert measured["tags_said"] >= least, measured


def test_the_recorded_quality_is_that_of_this_kind_of_model():
    from pathlib import Path

    recorded = json.loads((Path(EMBEDDED) / "quality.json").read_text())
    assert recorded["taxonomy"]["tags_said"] >= 0.9
    assert recorded["composed"]["tags_said"] >= 0.7
    assert recorded["invented"]["tags_said"] >= 0.7


def test_coverage_is_read_at_word_borders():
    assert said("pop", "A pop song")
    assert not said("pop", "A popular song")
    assert coverage([{"genre": ["pop", "rock"]}], ["A pop song"]) == {
        "tags_said": 0.5,
        "captions_complete": 0.0,
        "mean_words": 3.0,
    }


def test_a_drill_says_its_tokens_twice():
    ids, mask = drill(generator(0, "x"), 3, 5, 50)
    half = ids.shape[1] // 2
    assert torch.equal(ids[:, :half], ids[:, half:])
    assert mask[:, : half + 1].sum() == 0
    assert mask[:, half + 1 :].all()


def test_training_that_stops_goes_on_where_it_was(tmp_path):
    tokenizer = load_tokenizer(EMBEDDED)

    def trainer():
        made = Trainer(build_model(tokenizer), tokenizer)
        made.examples.pool = 2
        return made

    whole, first, second = trainer(), trainer(), trainer()
    train(whole, 4)
    for _ in range(2):
        first.step(4)
    first.save(tmp_path / "state.pt")
    train(second, 4, tmp_path / "state.pt")
    assert second.losses == whole.losses
