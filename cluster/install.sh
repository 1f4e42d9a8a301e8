#!/usr/bin/env bash
# The steps of the container files and of a cluster's set-up commands: one environment per group of packages that
# cannot live together.
#
#   cluster/install.sh main DIR [gpu|cpu]   this package, Ray, vLLM, transformers      (Python 3.11 or newer)
#   cluster/install.sh audiocraft DIR       audiocraft 1.3 with the old torch it pins  (Python 3.11)
#   cluster/install.sh laion_clap DIR       laion-clap 1.1 with an old numpy           (Python 3.11)
#
# DIR is the virtual environment to make; an existing one is brought up to date.
set -euo pipefail

usage() {
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

[ $# -ge 2 ] || usage
group=$1 dir=$2 device=${3:-gpu}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}

pip() {
    "$dir/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir "$@"
}

make_environment() {
    test -x "$dir/bin/python" || "$python" -m venv "$dir"
}

case $group-$device in
main-gpu)
    make_environment
    pip "${root}[vllm,metrics]"
    ;;
main-cpu)
    # The lock is complete and leaves out packages that are built for CUDA only; torch comes first, with its own needs.
    make_environment
    pip torch==2.13.0
    pip --no-deps -r "$root/requirements/cpu.lock"
    pip --no-deps --no-build-isolation "$root"
    ;;
audiocraft-* | laion_clap-*)
    make_environment
    pip --no-deps -r "$root/conceptcaps/locks/$group.lock"
    pip --no-deps --no-build-isolation "$root"
    ;;
*)
    usage
    ;;
esac
"$dir/bin/python" -m pip list --disable-pip-version-check 2>/dev/null | grep -iE '^(torch|ray|vllm|transformers|audiocraft|laion[-_]clap|numpy) '
