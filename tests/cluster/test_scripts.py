from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

CLUSTER = Path(__file__).resolve().parents[2] / "cluster"
SCRIPTS = sorted(CLUSTER.glob("*.sh"))

SRUN = """#!/bin/bash
node=?
while [[ ${1:-} == -* ]]; do
    [[ $1 == --nodelist=* ]] && node=${1#*=}
    shift
done
[[ $1 == hostname ]] && { echo 10.0.0.1; exit 0; }
exec "$@" "on=$node"
"""
RAY = """#!/bin/bash
mode=$(stat -c %a "$RAY_AUTH_TOKEN_PATH"); size=$(stat -c %s "$RAY_AUTH_TOKEN_PATH")
echo "ray $* auth=$RAY_AUTH_MODE token=$mode/$size" >>"$LOG"
exec sleep 60
"""
PYTHON = """#!/bin/bash
[[ $1 == -c ]] && exec PYTHON "$@"
cat >/dev/null
until [[ $(grep -c ^ray "$LOG") -ge $2 ]]; do sleep 0.05; done
echo "nodes $2" >>"$LOG"
"""
DRIVER = """#!/bin/bash
echo "conceptcaps $* address=$RAY_ADDRESS" >>"$LOG"
[[ -n ${DRIVER_FAILS:-} ]] && exit 3
[[ -z ${DRIVER_WAITS:-} ]] && exit 0
trap 'echo drained >>"$LOG"; kill $!; exit 0' TERM
sleep 60 & wait
"""


@pytest.fixture
def slurm(tmp_path):
    """A job's surroundings: Slurm's commands, Ray and the driver, each saying what it was asked."""
    binaries = tmp_path / "env" / "bin"
    binaries.mkdir(parents=True)
    python = PYTHON.replace("PYTHON", sys.executable)
    scontrol = '#!/bin/bash\nprintf "%s\\n" n1 n2 n3\n'
    sbatch = '#!/bin/bash\nprintf "%s\\n" "$@" >>"$LOG"\n'
    for name, text in {
        "srun": SRUN, "ray": RAY, "conceptcaps": DRIVER, "python": python, "scontrol": scontrol, "sbatch": sbatch,
    }.items():  # fmt: skip
        (binaries / name).write_text(text)
        (binaries / name).chmod(0o755)
    log = tmp_path / "log"
    log.touch()
    env = {"PATH": f"{binaries}:/usr/bin:/bin", "LOG": str(log), "CONCEPTCAPS_ENV": str(tmp_path / "env")}
    return env, log, tmp_path


def start(slurm, *arguments, **more):
    env, _, folder = slurm
    env = env | {"SLURM_JOB_ID": "77", "SLURM_JOB_NODELIST": "n[1-3]"} | more
    return subprocess.Popen([CLUSTER / "slurm.sh", *arguments], env=env, cwd=folder, start_new_session=True)


def wait_for(log, text):
    until = time.monotonic() + 30
    while text not in log.read_text():
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.05)


def test_slurm_submission_takes_the_number_of_nodes(slurm):
    env, log, folder = slurm
    command = [CLUSTER / "slurm.sh", "4", "--partition", "gpu", "--", "-c", "configs/cluster.yaml"]
    subprocess.run(command, env=env, cwd=folder, check=True)
    said = log.read_text().splitlines()
    assert said[:3] == ["--nodes=4", "--partition", "gpu"]
    assert said[3:] == [str(CLUSTER / "slurm.sh"), "-c", "configs/cluster.yaml"]


@pytest.mark.parametrize("nodes", ["", "0", "many", "-c"])
def test_slurm_submission_without_a_number_is_refused(slurm, nodes):
    env, log, folder = slurm
    answer = subprocess.run([CLUSTER / "slurm.sh", nodes], env=env, cwd=folder, capture_output=True, text=True)
    assert answer.returncode == 2
    assert "NODES" in answer.stderr
    assert not log.read_text()


def test_slurm_job_starts_head_then_workers_then_the_run(slurm):
    _, log, folder = slurm
    assert start(slurm, "-c", "c.yaml", "--run-dir", "/shared/run").wait(30) == 0
    said = log.read_text().splitlines()
    rays = [line for line in said if line.startswith("ray ")]
    assert "--head" in rays[0]
    assert "on=n1" in rays[0]
    assert "--dashboard-host=127.0.0.1" in rays[0]
    assert sorted(line.split("on=")[1].split()[0] for line in rays) == ["n1", "n2", "n3"]
    assert all("--address=10.0.0.1:20077" in line for line in rays[1:])
    assert all("auth=token token=600/64" in line for line in rays)
    assert said.index("nodes 1") < said.index(rays[1])
    assert said.index("nodes 3") < len(said) - 1
    assert said[-1].startswith("conceptcaps run -c c.yaml --run-dir /shared/run --quiet")
    assert not list(folder.glob(".ray-token-*")), "the token outlives the job"


def test_slurm_job_ends_as_the_run_does(slurm):
    assert start(slurm, DRIVER_FAILS="1").wait(30) == 3


def test_slurm_notice_drains_the_run(slurm):
    _, log, folder = slurm
    job = start(slurm, DRIVER_WAITS="1")
    wait_for(log, "conceptcaps run")
    time.sleep(0.3)
    job.send_signal(signal.SIGTERM)
    assert job.wait(30) == 0
    assert "drained" in log.read_text()
    assert not list(folder.glob(".ray-token-*"))


def test_install_refuses_what_it_does_not_know(tmp_path):
    for arguments in ([], ["main"], ["other", tmp_path / "env"], ["main", tmp_path / "env", "tpu"]):
        answer = subprocess.run([CLUSTER / "install.sh", *arguments], capture_output=True, text=True)
        assert answer.returncode == 2
        assert "audiocraft" in answer.stderr
    assert not (tmp_path / "env").exists()


def test_container_files_run_the_script_that_is_tested():
    for group in ("main", "audiocraft", "laion_clap"):
        text = (CLUSTER / f"Containerfile.{group}").read_text()
        assert f"RUN cluster/install.sh {group} " in text
    assert "USER ray" in (CLUSTER / "Containerfile.main").read_text()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_scripts_can_be_executed_and_parse(script):
    assert script.stat().st_mode & stat.S_IXUSR
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_shellcheck(script):
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if not shellcheck:
        pytest.skip("shellcheck is not installed in this environment")
    answer = subprocess.run([shellcheck, script], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout


@pytest.mark.isolated
@pytest.mark.parametrize(
    ("arguments", "check"),
    [
        (["main", "cpu"], "import conceptcaps.cli, ray.data.llm, vllm"),
        (["audiocraft"], "import audiocraft.models, numpy; assert numpy.__version__ < '2'"),
        (["laion_clap"], "import torchlibrosa, numpy, conceptcaps; assert numpy.__version__ < '2'"),
    ],
    ids=["main", "audiocraft", "laion_clap"],
)
def test_container_steps_make_an_environment_that_works(tmp_path, arguments, check):
    group, *device = arguments
    subprocess.run([CLUSTER / "install.sh", group, tmp_path / "env", *device], check=True)
    subprocess.run([tmp_path / "env" / "bin" / "python", "-c", check], check=True, cwd=tmp_path)
