from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from conceptcaps.captions import vllm
from conceptcaps.config.captions import CaptionsConfig, ChecksConfig, VllmConfig
from conceptcaps.errors import InputError

CONFIG = CaptionsConfig(engine="vllm", checks=ChecksConfig(min_words=5))
ROW = {
    "id": "a",
    "seed": 2**62 + 1,
    "attempt": 0,
    "status": None,
    "genre_aspects": np.array(["rock"], dtype=object),
    "mood_aspects": np.array([], dtype=object),
    "instrument_aspects": None,
    "tempo_aspects": ["slow tempo"],
    "aspect_list": ["rock", "slow tempo"],
}


def seed_of(sampling_params: dict) -> int:
    return sampling_params["extra_args"][vllm.DRAW]["seed"]


@pytest.fixture
def preprocess(monkeypatch):
    monkeypatch.setattr(vllm, "load_tokenizer", lambda *_: None)
    monkeypatch.setattr(vllm, "model_source", lambda _: "org/name")
    monkeypatch.setattr(vllm, "prompt_ids", lambda _, messages: [len(m["content"]) for m in messages])
    return vllm.Preprocess(CONFIG)


def test_the_sampling_seed_is_the_rows_and_the_attempts(preprocess):
    first, again = preprocess(ROW)["sampling_params"], preprocess(ROW)["sampling_params"]
    retried, other = preprocess(ROW | {"attempt": 1}), preprocess(ROW | {"seed": 5})
    assert first == again
    assert 0 <= seed_of(first) < 2**31
    assert len({seed_of(first), seed_of(retried["sampling_params"]), seed_of(other["sampling_params"])}) == 3


def test_the_row_survives_the_engine(preprocess):
    request = preprocess(ROW)
    reply = request | {"generated_text": " A slow rock song with feeling. ", "__inference_error__": ""}
    row = vllm.postprocess(reply, CONFIG)
    assert row["caption"] == "A slow rock song with feeling."
    assert row["seed"] == ROW["seed"]
    assert row["genre_aspects"] == ["rock"]
    assert row["mood_aspects"] == []
    assert row["status"] is None


def test_a_row_that_has_ended_bypasses_the_engine(preprocess):
    ended = ROW | {"status": "failed", "reason": "captions.empty"}
    request = preprocess(ended)
    assert request["__inference_error__"]
    assert vllm.postprocess(request, CONFIG) == json.loads(json.dumps(ended, default=lambda v: v.tolist()))


def test_an_engine_error_fails_the_row(preprocess):
    row = vllm.postprocess(preprocess(ROW) | {"__inference_error__": "ValueError: prompt\ntoo long"}, CONFIG)
    assert (row["status"], row["reason"]) == ("failed", "captions.error: ValueError: prompt too long")
    assert row.get("caption") is None


def test_a_reply_that_is_no_caption_rejects_the_row_with_its_reason(preprocess):
    row = vllm.postprocess(preprocess(ROW) | {"generated_text": "", "__inference_error__": ""}, CONFIG)
    assert (row["status"], row["reason"]) == ("rejected", "captions.empty")


def test_a_row_that_keeps_its_caption_bypasses_the_engine(preprocess):
    kept = ROW | {"caption": "As it was.", "attempt": 1, "caption_words": 3}
    request = preprocess(kept)
    assert request["__inference_error__"]
    assert vllm.postprocess(request, CONFIG) == json.loads(json.dumps(kept, default=lambda v: v.tolist()))


def test_a_prompt_without_room_fails_its_row_only(monkeypatch, preprocess):
    monkeypatch.setattr(vllm, "prompt_ids", lambda *_: [0] * 1020)
    row = vllm.postprocess(preprocess(ROW), CONFIG)
    assert row["status"] == "failed"
    assert "max_model_len" in row["reason"]


def test_preprocess_can_be_sent_to_a_worker(preprocess):
    assert pickle.loads(pickle.dumps(preprocess)).template == preprocess.template


def test_turns_and_candidates_have_seeds_of_their_own():
    seeds = {seed_of(vllm.sampling(CONFIG, 1, 0, turn, candidate)) for turn in range(3) for candidate in range(4)}
    assert len(seeds) == 12


def test_a_caption_that_fails_a_check_is_kept_beside_its_reason(preprocess):
    strict = CONFIG.model_copy(update={"checks": ChecksConfig(min_words=5, min_coverage=1)})
    row = vllm.postprocess(preprocess(ROW) | {"generated_text": "This is a nice rock song."}, strict)
    assert (row["status"], row["reason"]) == ("rejected", "captions.coverage: does not say slow tempo")
    assert row["caption"] == "This is a nice rock song."
    assert (row["caption_words"], row["tag_coverage"], row["contradicted"]) == (6, 0.5, [])


def test_a_cpu_engine_draws_by_our_sampler_and_a_gpu_engine_by_its_own():
    on_gpu = CONFIG.model_copy(update={"resources": CONFIG.resources.model_copy(update={"num_gpus": 1.0})})
    assert vllm.engine_kwargs(VllmConfig(), "cpu")["logits_processors"] == [vllm.SAMPLER]
    assert "logits_processors" not in vllm.engine_kwargs(VllmConfig(), "gpu")
    own = {"seed": 3, "temperature": CONFIG.temperature, "top_p": CONFIG.top_p}
    likeliest = {"temperature": 0.0, "max_tokens": CONFIG.max_tokens}
    assert vllm.seeded_sampling(CONFIG, 3) == likeliest | {"extra_args": {vllm.DRAW: own}}
    assert vllm.seeded_sampling(on_gpu, 3) == own | {"max_tokens": CONFIG.max_tokens}
    greedy = vllm.seeded_sampling(CONFIG.model_copy(update={"temperature": 0.0}), 3)
    assert (greedy["temperature"], "extra_args" in greedy) == (0.0, False)


def test_keys_and_values_of_a_shared_gpu_take_what_they_are_told():
    """vLLM would otherwise measure what it may take while the other engines load beside it."""
    told = VllmConfig(kv_cache_gib=1.5)
    assert vllm.engine_kwargs(told, "gpu")["kv_cache_memory_bytes"] == 3 * 2**29
    assert "kv_cache_memory_bytes" not in vllm.engine_kwargs(told, "cpu")
    assert "kv_cache_memory_bytes" not in vllm.engine_kwargs(VllmConfig(), "gpu")


def test_a_model_on_several_gpus_takes_them_whole():
    with pytest.raises(ValueError, match=r"tensor_parallel_size 2 takes whole GPUs; resources\.num_gpus is 0\.5"):
        CaptionsConfig(vllm=VllmConfig(tensor_parallel_size=2), resources={"num_gpus": 0.5})
    CaptionsConfig(vllm=VllmConfig(tensor_parallel_size=2), resources={"num_gpus": 1})


def test_the_engine_knows_the_adapters_rank(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 12, "rank_pattern": {"q_proj": 20}}))
    arguments = vllm.engine_kwargs(VllmConfig(), "gpu", str(tmp_path))
    assert (arguments["enable_lora"], arguments["max_lora_rank"], arguments["max_loras"]) == (True, 32, 1)
    assert vllm.engine_kwargs(VllmConfig(), "cpu", str(tmp_path))["max_loras"] == 2


@pytest.mark.parametrize("content", [None, "{}", "no json", '{"r": 4096}'])
def test_a_folder_that_is_no_adapter_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(InputError, match="adapter"):
        vllm.adapter_rank(str(tmp_path))


def test_a_path_that_is_no_checkpoint_is_refused(tmp_path):
    for model in (str(tmp_path), str(tmp_path / "none"), "./nowhere"):
        with pytest.raises(InputError, match=r"captions\.vllm\.model"):
            vllm.model_source(VllmConfig(model=model))
    assert vllm.model_source(VllmConfig(model="org/name")) == "org/name"
