#!/usr/bin/env bash
# One whole run on Slurm: a Ray cluster of N nodes that starts with the job and ends with it.
#
#   cluster/slurm.sh NODES [sbatch options] -- [options of `conceptcaps run`]
#   cluster/slurm.sh 4 --partition gpu --gpus-per-node 4 -- -c configs/cluster.yaml --run-dir /shared/runs/big
#
# Call it from the checkout, which all nodes must see, with the environment in $CONCEPTCAPS_ENV (default: .venv).
# Submit the same line again to continue a run; a job that Slurm preempts is queued again and continues by itself.
#SBATCH --job-name=conceptcaps
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=conceptcaps-%j.log
#SBATCH --signal=B:TERM@300
set -euo pipefail

submit() {
    local nodes=${1:-} options=()
    if ! [[ $nodes =~ ^[1-9][0-9]*$ ]]; then
        sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
        exit 2
    fi
    shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    [ $# -eq 0 ] || shift
    exec sbatch --nodes="$nodes" "${options[@]}" "$0" "$@"
}

# Everything below runs inside the job, on its first node.
serve() {
    local env=${CONCEPTCAPS_ENV:-$PWD/.venv} nodes head port
    export PATH="$env/bin:$PATH" RAY_USAGE_STATS_ENABLED=0 VLLM_NO_USAGE_STATS=1

    # Other users' jobs share the network: the cluster answers only to who can read this file.
    export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$PWD/.ray-token-$SLURM_JOB_ID"
    (umask 077 && python -c 'import secrets; print(secrets.token_hex(32), end="")' >"$RAY_AUTH_TOKEN_PATH")
    trap 'stop' EXIT

    mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
    head=$(srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" hostname --ip-address | awk '{print $1}')
    port=$((20000 + SLURM_JOB_ID % 20000))
    export RAY_ADDRESS="$head:$port"

    start "${nodes[0]}" --head --node-ip-address="$head" --port="$port" --dashboard-host=127.0.0.1
    wait_for 1
    for node in "${nodes[@]:1}"; do
        start "$node" --address="$RAY_ADDRESS"
    done
    wait_for "${#nodes[@]}"

    srun --overlap --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" conceptcaps run "$@" --quiet &
    driver=$!
    trap 'kill -TERM "$driver"' TERM # Slurm's notice: srun hands it on, and the run ends with what is under way
    wait "$driver" || wait "$driver"
}

start() {
    local node=$1
    shift
    srun --overlap --nodes=1 --ntasks=1 --nodelist="$node" ray start --block --disable-usage-stats "$@" &
    rays+=($!)
}

wait_for() {
    python - "$1" <<'PYTHON'
import sys, time
import ray

wanted, until = int(sys.argv[1]), time.monotonic() + 600
while time.monotonic() < until:
    try:
        if not ray.is_initialized():
            ray.init(address="auto", log_to_driver=False)
        if sum(node["Alive"] for node in ray.nodes()) >= wanted:
            sys.exit(0)
    except ConnectionError:
        pass
    time.sleep(2)
sys.exit(f"{wanted} nodes did not come up within ten minutes")
PYTHON
}

stop() {
    kill "${rays[@]}" 2>/dev/null || true
    rm -f "$RAY_AUTH_TOKEN_PATH"
}

rays=()
driver=
if [ -n "${SLURM_JOB_ID:-}" ]; then
    serve "$@"
else
    submit "$@"
fi
