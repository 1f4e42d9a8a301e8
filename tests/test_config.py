"""Configuration: whole files, overrides, and errors that name the key, the file and the nearest valid key."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from conceptcaps.config import Config, load, output_settings
from conceptcaps.config.base import Section
from conceptcaps.errors import InputError

CONFIGS = sorted((Path(__file__).resolve().parent.parent / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_shipped_config_loads_and_survives_a_round_trip(path):
    config = load(path)
    assert Config.model_validate(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))) == config


def test_paper_config_holds_the_published_settings():
    config = load(CONFIGS[0].parent / "paper.yaml")
    vae, music = config.vae, config.audio.musicgen
    assert (vae.latent_dim, vae.hidden_dim, vae.dropout, vae.beta) == (128, 512, 0.25, 0.25)
    assert config.captions.vllm.model == "meta-llama/Llama-3.1-8B-Instruct"
    assert (music.model, config.audio.duration) == ("facebook/musicgen-large", 30)
    assert (music.guidance_scale, music.top_k) == (3.0, 250)


@pytest.mark.parametrize(
    ("override", "key", "suggestion"),
    [
        ("specs.num_sample=5", "specs.num_sample", "specs.num_samples"),
        ("spec.num_samples=5", "spec", "specs"),
        ("audio.top_k=5", "audio.top_k", "audio.musicgen.top_k"),
    ],
)
def test_unknown_key_names_itself_and_the_nearest_valid_one(override, key, suggestion):
    with pytest.raises(InputError) as caught:
        load(None, [override])
    assert f"{key!r}" in str(caught.value)
    assert f"{suggestion!r}" in str(caught.value)


def test_bad_value_in_a_file_names_file_and_key(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("audio:\n  duration: -3\n")
    with pytest.raises(InputError, match=r"mine\.yaml.*audio\.duration.*-3"):
        load(path)


@pytest.mark.parametrize(
    ("text", "problem"), [("a: [", "is not YAML"), ("- a\n", "not a mapping"), (None, "cannot be read")]
)
def test_file_that_is_no_config(tmp_path, text, problem):
    path = tmp_path / "mine.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=problem):
        load(path)


def test_overrides_win_in_order_and_are_yaml():
    config = load(None, ["specs.num_samples=3", "specs.num_samples=4", "specs.seed_tags=[rock, slow]"])
    assert config.specs.num_samples == 4
    assert config.specs.seed_tags == ("rock", "slow")


def test_output_settings_leave_out_speed_and_place_only():
    fast = load(None, ["captions.resources.workers=4", "captions.resources.batch_size=2", "captions.temperature=0.7"])
    assert output_settings(fast.captions) == output_settings(load(None).captions)
    warm = load(None, ["captions.temperature=0.8"])
    assert output_settings(warm.captions) != output_settings(load(None).captions)


def test_every_key_says_what_it_is():
    def undescribed(model: type[Section], prefix: str = "") -> list[str]:
        found = []
        for name, field in model.model_fields.items():
            if not field.description:
                found.append(prefix + name)
            if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
                found += undescribed(field.annotation, f"{prefix}{name}.")
        return found

    assert undescribed(Config) == []


@pytest.mark.parametrize("name", ["paper", "cluster", "single-gpu"])
def test_what_a_gpu_config_fits_is_fitted_on_a_gpu(name):
    config = load(Path(__file__).parent.parent / "configs" / f"{name}.yaml", [])
    assert config.tcav.classifier.resources.num_gpus
    assert config.tcav.resources.num_gpus
    assert config.captions.vllm.adapter != "run" or config.lora.resources.num_gpus
