from __future__ import annotations

import importlib.metadata
import json
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from conceptcaps import doctor
from conceptcaps.config import load
from conceptcaps.config.base import Resources
from conceptcaps.runtime import Demand

VLLM = ["captions.engine=vllm", "captions.vllm.model=some/llm"]


def levels(findings):
    return [finding.level for finding in findings]


@pytest.fixture
def model(tmp_path):
    """A folder laid out like a sharded transformers model."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for i, name in enumerate(names):
        save_file({f"w{i}": np.zeros((4, 4), np.float32)}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w0": names[0], "w1": names[1]}}))
    return folder


def check(model):
    return list(doctor.check_models(load(None, [f"alignment.model={model}"])))


def test_a_whole_model_is_ok(model):
    (finding,) = check(model)
    assert (finding.level, finding.what) == ("ok", f"alignment.model {model}")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda m: (m / "config.json").unlink(), "config.json is missing"),
        (lambda m: (m / "tokenizer.json").unlink(), "no tokenizer"),
        (lambda m: (m / "model-00002-of-00002.safetensors").unlink(), "model-00002-of-00002.safetensors is missing"),
        (lambda m: (m / "model.safetensors.index.json").write_text("{"), "index.json is no safetensors"),
    ],
)
def test_what_is_missing_of_a_model_is_named(model, harm, message):
    harm(model)
    (finding,) = check(model)
    assert finding.level == "problem"
    assert message in finding.message
    assert finding.mend


def test_a_truncated_shard_is_found(model):
    shard = model / "model-00001-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-5])
    (finding,) = check(model)
    assert finding.level == "problem"
    assert "model-00001-of-00002.safetensors has" in finding.message


def test_pickled_weights_are_refused(model):
    for path in model.glob("*.safetensors*"):
        path.unlink()
    (model / "pytorch_model.bin").write_bytes(b"")
    (finding,) = check(model)
    assert "pickled" in finding.message


def test_a_path_without_a_folder_is_a_problem(tmp_path):
    (finding,) = check(tmp_path / "nowhere")
    assert (finding.level, finding.message) == ("problem", "is no folder")


def listing(*names):
    return lambda *_, **__: SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in names])


@pytest.mark.parametrize(
    ("names", "level", "message"),
    [
        (["config.json", "model.safetensors"], "ok", "with all its files"),
        (["config.json", "model-00001-of-00003.safetensors"], "problem", "1 of 3 weight files"),
        (["config.json", "pytorch_model.bin"], "problem", "pickled"),
        (["model.safetensors"], "problem", "config.json"),
    ],
)
def test_a_model_on_the_hub_is_listed(monkeypatch, names, level, message):
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", listing(*names))
    (finding,) = check("laion/clap")
    assert finding.level == level
    assert message in finding.message


@pytest.mark.parametrize(
    ("model", "trusted", "level", "message"),
    [
        ("{}/clap.safetensors", False, "ok", "is whole"),
        ("{}/clap.pt", False, "problem", "is pickled"),
        ("{}/clap.pt", True, "ok", "is whole"),
        ("{}/none.safetensors", False, "problem", "is no file"),
        ("{}/broken.safetensors", False, "problem", "no safetensors file"),
        ("some/clap/music.pt", True, "ok", "with all its files"),
        ("some/clap/other.pt", True, "problem", "has no file other.pt"),
    ],
)
def test_the_weights_of_laion_clap_are_looked_at(monkeypatch, tmp_path, model, trusted, level, message):
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", listing("music.pt", "tokenizer.json"))
    save_file({"w": np.zeros(3, np.float32)}, tmp_path / "clap.safetensors")
    for name in ("clap.pt", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"anything")
    settings = ["alignment.engine=laion_clap", f"alignment.model={model.format(tmp_path)}"]
    settings.append(f"alignment.laion_clap.allow_pickle={trusted}")
    finding, tokenizer = doctor.check_models(load(None, settings))
    assert (finding.level, message in finding.message) == (level, True), finding
    assert tokenizer.level == "ok"
    _, tokenizer = doctor.check_models(load(None, [*settings, f"alignment.laion_clap.tokenizer={tmp_path}"]))
    assert (tokenizer.level, tokenizer.message) == ("problem", "has no tokenizer")


def test_an_unreachable_hub_says_so(monkeypatch, tmp_path):
    def unreachable(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    (finding,) = check("laion/clap-that-nobody-has")
    assert finding.level == "problem"
    assert "no route to host" in finding.message
    assert "HF_HUB_OFFLINE" in finding.mend


def test_a_gated_model_names_its_licence(monkeypatch):
    import httpx
    from huggingface_hub.errors import GatedRepoError

    def gated(*_, **__):
        raise GatedRepoError("gated", response=httpx.Response(403, request=httpx.Request("GET", "https://h")))

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", gated)
    (finding,) = check("meta-llama/Llama")
    assert "https://huggingface.co/meta-llama/Llama" in finding.mend


def test_remote_code_is_warned_of(monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", listing("config.json", "model.safetensors"))
    found = list(doctor.check_models(load(None, [*VLLM, "captions.vllm.trust_remote_code=true"])))
    assert levels(found) == ["ok", "ok", "warning"]


def adapter(folder, base="some/llm"):
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    save_file({"a": np.zeros(3, np.float32)}, folder / "adapter_model.safetensors")
    return folder


def check_adapter(folder):
    return list(doctor.check_adapter(load(None, [*VLLM, f"captions.vllm.adapter={folder}"])))


def test_an_adapter_is_checked(tmp_path):
    folder = adapter(tmp_path / "adapter")
    assert levels(check_adapter(folder)) == ["ok"]
    (folder / "adapter_model.safetensors").unlink()
    (finding,) = check_adapter(folder)
    assert "adapter_model.safetensors is missing" in finding.message
    assert levels(check_adapter(tmp_path / "nowhere")) == ["problem"]


def test_an_adapter_of_another_model_is_warned_of(tmp_path):
    assert levels(check_adapter(adapter(tmp_path / "adapter", base="other/model"))) == ["ok", "warning"]


def test_the_runs_own_adapter_needs_nothing():
    assert levels(check_adapter("run")) == ["ok"]
    on_gpu = [*VLLM, "captions.vllm.adapter=run", "captions.resources.num_gpus=1"]
    (finding,) = doctor.check_adapter(load(None, on_gpu))
    assert (finding.level, finding.mend) == ("warning", "Set lora.resources.num_gpus")
    assert levels(doctor.check_adapter(load(None, [*on_gpu, "lora.resources.num_gpus=1"]))) == ["ok"]
    assert not list(doctor.check_adapter(load(None)))


def test_storage_is_probed_and_left_as_it_was(tmp_path):
    config = load(None, [f"run_dir={tmp_path / 'new' / 'run'}"])
    assert levels(doctor.check_storage(config)) == ["ok"]
    assert not (tmp_path / "new" / "run").exists()
    (tmp_path / "kept").write_text("x")
    assert levels(doctor.check_storage(load(None, [f"run_dir={tmp_path}"]))) == ["ok"]
    assert {p.name for p in tmp_path.iterdir()} == {"kept", "new"}


def test_storage_that_cannot_be_written_is_a_problem(tmp_path):
    (tmp_path / "file").write_text("x")
    (finding,) = doctor.check_storage(load(None, [f"run_dir={tmp_path / 'file' / 'run'}"]))
    assert finding.level == "problem"
    assert finding.mend


def test_too_little_space_is_warned_of(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    (finding,) = doctor.check_storage(load(None, [f"run_dir={tmp_path}"]))
    assert finding.level == "warning"


def test_packages_of_this_environment_are_ok():
    assert levels(doctor.check_packages(load(None, VLLM))) == ["ok"]


def test_a_wrong_version_is_named_with_the_command_that_mends_it(monkeypatch):
    real = importlib.metadata.version
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.10.0" if name == "ray" else real(name))
    problems = [f for f in doctor.check_packages(load(None)) if f.level == "problem"]
    assert [f.what for f in problems] == ["package ray"]
    assert "2.10.0 is installed" in problems[0].message
    assert "pip install 'ray" in problems[0].mend


def test_a_missing_vllm_is_a_problem_only_where_it_serves(monkeypatch):
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if "vllm" in name else real(name))
    assert levels(doctor.check_packages(load(None, VLLM))) == ["problem"]
    assert levels(doctor.check_packages(load(None))) == ["ok"]


def test_a_quantised_fit_wants_its_package(monkeypatch):
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "bitsandbytes" else real(name))
    quantised = ["lora.quantisation=nf4", "lora.resources.num_gpus=1"]
    assert levels(doctor.check_packages(load(None, [*VLLM, *quantised]))) == ["ok"]  # no adapter is fitted
    (finding,) = doctor.check_packages(load(None, [*VLLM, "captions.vllm.adapter=run", *quantised]))
    assert (finding.level, finding.what) == ("problem", "package bitsandbytes")


NODES = [{"CPU": 8.0}, {"CPU": 16.0, "GPU": 2.0, "accelerator_type:L4": 1.0}]


@pytest.mark.parametrize(
    ("resources", "gpus", "fits"),
    [
        ({"workers": 9, "num_cpus": 1}, None, True),
        ({"num_cpus": 12}, None, True),
        ({"num_cpus": 24}, None, False),
        ({"num_gpus": 1}, 2.0, True),
        ({"num_gpus": 1}, 4.0, False),
        ({"num_gpus": 1, "accelerator_type": "L4"}, None, True),
        ({"num_gpus": 1, "accelerator_type": "H100"}, None, False),
    ],
)
def test_a_pool_that_fits_on_no_node_is_found(resources, gpus, fits):
    demand = Demand("audio.resources", Resources(**resources), gpus_per_worker=gpus)
    found = list(doctor.unplaceable([demand], NODES))
    assert bool(found) != fits
    assert all("audio.resources" in f.what and "16 CPUs, 2 GPUs" in f.message for f in found)


def test_local_paths_on_several_nodes_are_warned_of(tmp_path):
    config = load(None, ["run_dir=s3://bucket/run", f"alignment.model={tmp_path}"])
    assert [f.what for f in doctor._shared_by_nodes(config, 2)] == ["alignment.model"]
    assert not list(doctor._shared_by_nodes(config, 1))


def test_packaged_models_are_looked_for_where_they_are_loaded_from(monkeypatch, tmp_path):
    from conceptcaps.alignment import clap
    from conceptcaps.captions import vllm

    folders = {"captions.vllm.model": vllm.EMBEDDED, "alignment.model": clap.EMBEDDED}
    for key, folder in folders.items():
        assert str(folder).endswith(f"assets/{doctor.PACKAGED[key]}")
    monkeypatch.setitem(doctor.PACKAGED, "alignment.model", "nowhere")
    (finding,) = doctor.check_models(load(None))
    assert (finding.level, finding.what) == ("problem", "alignment.model embedded")


def test_the_whole_doctor_on_a_cluster(cluster, tmp_path, model):
    small = [f"{stage}.resources.num_cpus=0.2" for stage in ("captions", "audio", "alignment")]
    small.append(f"alignment.model={model}")
    good = load(None, [f"run_dir={tmp_path}", *small])
    assert set(levels(doctor.doctor(good))) == {"ok"}
    problems = [f for f in doctor.doctor(load(None, [*small, "audio.resources.num_gpus=1"])) if f.level == "problem"]
    assert {f.what for f in problems} == {"key 'audio.resources'", "the cluster"}
