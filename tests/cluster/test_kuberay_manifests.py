from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from conceptcaps.config import load

ROOT = Path(__file__).resolve().parents[2]
KUBERAY = ROOT / "cluster" / "kuberay"
SCHEMA = json.loads((Path(__file__).parent / "kuberay_schema.json").read_text())
MANIFESTS = ("raycluster", "rayjob")
STAGE_OF = {"vllm": "captions", "musicgen": "audio", "clap": "alignment"}


def read(name):
    return yaml.safe_load((KUBERAY / f"{name}.yaml").read_text())


def cluster_of(manifest):
    return manifest["spec"].get("rayClusterSpec", manifest["spec"])


def pods(spec):
    return [spec["headGroupSpec"]["template"], *(group["template"] for group in spec["workerGroupSpecs"])]


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifest_fits_the_schema(name):
    jsonschema.validate(read(name), SCHEMA)


@pytest.mark.parametrize(
    ("where", "value"),
    [("rayVersions", "2.60.0"), ("authOptions", {"mode": "none"}), ("headGroupSpec", {}), ("rayVersion", 2.6)],
)
def test_the_schema_refuses_what_kuberay_would(where, value):
    manifest = read("raycluster")
    manifest["spec"][where] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, SCHEMA)


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_cluster_is_that_of_the_installed_ray_and_asks_for_a_token(name):
    import ray

    spec = cluster_of(read(name))
    assert spec["rayVersion"] == ray.__version__
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"] is True


def test_the_dashboard_stays_on_loopback_where_kuberay_can_do_without():
    def host(name):
        return cluster_of(read(name))["headGroupSpec"]["rayStartParams"]["dashboard-host"]

    assert host("raycluster") == "127.0.0.1"
    policy = next(d for d in yaml.safe_load_all((KUBERAY / "base.yaml").read_text()) if d["kind"] == "NetworkPolicy")
    open_to = [
        peer["podSelector"]["matchLabels"]
        for rule in policy["spec"]["ingress"]
        if 8265 in [port["port"] for port in rule.get("ports", [{"port": 8265}])]
        for peer in rule["from"]
    ]
    assert open_to == [{"app": "conceptcaps"}, {"app.kubernetes.io/name": "kuberay-operator"}]


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_policy_covers_every_pod(name):
    manifest = read(name)
    templates = pods(cluster_of(manifest))
    if "submitterPodTemplate" in manifest["spec"]:
        templates.append(manifest["spec"]["submitterPodTemplate"])
    assert all(template["metadata"]["labels"] == {"app": "conceptcaps"} for template in templates)


@pytest.mark.parametrize("name", MANIFESTS)
def test_pods_run_without_privileges_and_without_secrets(name):
    for template in pods(cluster_of(read(name))):
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True
        for container in template["spec"]["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            tokens = [entry for entry in container["env"] if "TOKEN" in entry["name"]]
            assert tokens
            assert all("value" not in entry and "secretKeyRef" in entry["valueFrom"] for entry in tokens)


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_groups_carry_the_pools_of_the_cluster_config(name):
    """Each group starts with room for the workers that the config starts with, and grows as far as its pools do."""
    config = load(ROOT / "configs" / "cluster.yaml")
    groups = {group["groupName"]: group for group in cluster_of(read(name))["workerGroupSpecs"]}
    assert groups.keys() == STAGE_OF.keys()
    for group_name, group in groups.items():
        resources = getattr(config, STAGE_OF[group_name]).resources
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        cpus, gpus = float(limits["cpu"]), float(limits["nvidia.com/gpu"])
        for pods_there, workers in (
            (group["minReplicas"], resources.workers),
            (group["maxReplicas"], resources.max_workers),
        ):
            assert pods_there * gpus >= workers * resources.num_gpus
            assert pods_there * cpus >= workers * resources.num_cpus
        assert limits == group["template"]["spec"]["containers"][0]["resources"]["requests"]


def test_the_head_takes_no_work():
    for name in MANIFESTS:
        head = cluster_of(read(name))["headGroupSpec"]
        assert head["rayStartParams"]["num-cpus"] == "0"
        assert "nvidia.com/gpu" not in head["template"]["spec"]["containers"][0]["resources"]["limits"]


def test_the_job_runs_our_command_with_a_config_that_exists():
    entrypoint = read("rayjob")["spec"]["entrypoint"].split()
    assert entrypoint[:2] == ["conceptcaps", "run"]
    assert (ROOT / entrypoint[entrypoint.index("-c") + 1]).is_file()
