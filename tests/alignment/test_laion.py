"""Engine `laion_clap` in its own environment: the embeddings of transformers' ClapModel with the same weights."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from runs import small_config, write_specs
from safetensors.torch import save_file
from tiny_clap import TEXTS, tones, write_tokenizer
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

from conceptcaps import environments, schema, shards, signal
from conceptcaps.alignment import make_aligner
from conceptcaps.alignment.clap import ClapAligner
from conceptcaps.alignment.laion import LaionClapAligner, load_weights
from conceptcaps.config.alignment import AlignmentConfig
from conceptcaps.errors import InputError
from conceptcaps.pipelines.generate import run_generate
from conceptcaps.pipelines.steps import Engines
from conceptcaps.rundir import RunDir

TESTS = Path(__file__).resolve().parents[1]
RATE = 48_000
AUTHORS = [
    (r"^text_model", "text_branch"),
    (r"^audio_model\.audio_encoder", "audio_branch"),
    (r"batch_norm", "bn0"),
    (r"(layers\.\d+\.blocks\.\d+)\.attention\.self\.relative", r"\1.attn.relative"),
    (r"(layers\.\d+\.blocks\.\d+)\.attention\.output\.dense", r"\1.attn.proj"),
    (r"(layers\.\d+\.blocks\.\d+)\.intermediate\.dense", r"\1.mlp.fc1"),
    (r"(layers\.\d+\.blocks\.\d+)\.output\.dense", r"\1.mlp.fc2"),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"_projection\.linear1", "_projection.0"),
    (r"_projection\.linear2", "_projection.2"),
]
"""transformers' names to the authors', in turn."""


def test_without_its_package_the_engine_names_the_command_that_brings_it():
    with pytest.raises(InputError, match=r"conceptcaps env build laion_clap.*alignment\.resources\.python"):
        LaionClapAligner(AlignmentConfig(engine="laion_clap"))


def test_a_file_that_is_nowhere_is_refused():
    with pytest.raises(InputError, match="'embedded' is no file here"):
        load_weights(AlignmentConfig(engine="laion_clap"))


def test_the_hub_out_of_reach_is_said(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="the hub did not give it"):
        load_weights(AlignmentConfig(engine="laion_clap", model="nobody/no-such-clap/music.safetensors"))


def test_pickled_weights_are_opened_where_that_is_asked_for_only(tmp_path):
    file = tmp_path / "music.pt"
    torch.save({"state_dict": {"module.audio_branch.bn0.weight": torch.ones(2), "module.position_ids": None}}, file)
    with pytest.raises(InputError, match=r"music\.pt is pickled.*allow_pickle=true"):
        load_weights(AlignmentConfig(engine="laion_clap", model=str(file)))
    trusted = AlignmentConfig(engine="laion_clap", model=str(file), laion_clap={"allow_pickle": True})
    assert list(load_weights(trusted)) == ["audio_branch.bn0.weight"]
    file.write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"music\.pt cannot be read"):
        load_weights(trusted)


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory) -> Path:
    """One that is there already, named by CONCEPTCAPS_LAION_CLAP_PYTHON, or one built from the lock file."""
    if given := os.environ.get("CONCEPTCAPS_LAION_CLAP_PYTHON"):
        return Path(given)
    return environments.build("laion_clap", tmp_path_factory.mktemp("laion") / "env")


def write_both(folder: Path, fusion: bool) -> Path:
    """Random weights of the authors' smallest audio encoder: a transformers folder, and their own file in it."""
    torch.manual_seed(0)
    # Every size that the authors' code fixes is theirs.
    text = {"vocab_size": 400, "num_hidden_layers": 2, "intermediate_size": 96, "max_position_embeddings": 90}
    text["layer_norm_eps"] = 1e-5
    audio = {"enable_fusion": fusion, "fusion_type": "aff_2d" if fusion else None, "projection_dim": 512}
    model = ClapModel(ClapConfig(audio_config=audio, text_config=text | {"projection_dim": 512}, projection_dim=512))
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and tensor.dim() > 1:
            torch.nn.init.normal_(tensor, std=0.05)
        elif name.endswith("batch_norm.running_mean"):
            tensor.fill_(-40.0)  # decibels, as of real clips
        elif name.endswith("batch_norm.running_var"):
            tensor.fill_(400.0)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    file = folder / "tokenizer_config.json"  # transformers 4 has not the class that 5 names
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    ClapFeatureExtractor(
        frequency_min=50, frequency_max=14_000, truncation="fusion" if fusion else "rand_trunc"
    ).save_pretrained(folder)
    save_file(authors_names(model.state_dict()), folder / "authors.safetensors")
    return folder


def authors_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        if name.endswith(("position_ids", "token_type_ids", "relative_position_index")):
            continue  # counted out, not learned
        own = name
        for theirs, ours in AUTHORS:
            own = re.sub(theirs, ours, own)
        found[own] = tensor.clone()
    blocks = {name.split("attention.self.query.weight")[0] for name in found if "blocks" in name and "query.w" in name}
    for block in blocks:
        for kind in ("weight", "bias"):
            parts = [found.pop(f"{block}attention.self.{which}.{kind}") for which in ("query", "key", "value")]
            found[f"{block}attn.qkv.{kind}"] = torch.cat(parts)
    return found


@pytest.mark.isolated
@pytest.mark.timeout(1800)
def test_a_jobs_clips_are_scored_in_the_environment(cluster, interpreter, tmp_path):
    from trivial_engines import TrivialCaptioner, TrivialSynthesiser

    folder, run = write_both(tmp_path / "model", fusion=False), RunDir(tmp_path / "run")
    write_specs(run, 6)
    settings = ["alignment.engine=laion_clap", f"alignment.model={folder / 'authors.safetensors'}"]
    settings += [f"alignment.laion_clap.tokenizer={folder}", f"alignment.resources.python={interpreter}"]
    engines = Engines(TrivialCaptioner, TrivialSynthesiser, make_aligner)
    run_generate(small_config(tmp_path / "run", *settings, "alignment.threshold.method=none"), run, engines)
    rows = pa.concat_tables(shards.latest(run, schema.SHARD.names)).to_pylist()
    assert [row["status"] for row in rows] == [schema.ACCEPTED] * 6, [row["reason"] for row in rows]
    ours = ClapAligner(AlignmentConfig(model=str(folder)))
    clips = [signal.decode(row["audio"]["bytes"]) for row in rows]
    expected = ours.embed_audio([clip for clip, _ in clips], clips[0][1])
    np.testing.assert_allclose([row["audio_embedding"] for row in rows], expected, atol=4e-3)  # mel bands round apart


@pytest.mark.isolated
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fusion", [False, True], ids=["windows", "fusion"])
def test_embeddings_are_those_of_transformers(interpreter, tmp_path, fusion):
    folder = write_both(tmp_path / "model", fusion)
    waves = tones(3.3, 10.0, 14.0, rate=RATE)
    np.savez(tmp_path / "in.npz", rate=RATE, texts=TEXTS, **{f"clip{i}": wave[0] for i, wave in enumerate(waves)})
    words = [interpreter, TESTS / "laion_clap_embeddings.py", tmp_path / "in.npz", folder]
    words += [folder / "authors.safetensors", tmp_path / "out.npz"]
    env = os.environ | {"PYTHONPATH": str(TESTS.parent)}
    answer = subprocess.run([str(w) for w in words], env=env, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr[-3000:]
    theirs = np.load(tmp_path / "out.npz")
    ours = ClapAligner(AlignmentConfig(model=str(folder)))
    audio, text = ours.embed_audio(waves, RATE), ours.embed_text(TEXTS)
    assert abs(float(audio[0] @ audio[1])) < 0.999, "clips must differ for this to mean anything"
    np.testing.assert_allclose(theirs["audio"], audio, atol=2e-3)  # 16 bits, and their mel in single precision
    np.testing.assert_allclose(theirs["text"], text, atol=1e-5)
