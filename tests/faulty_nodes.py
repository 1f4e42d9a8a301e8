"""A run on three simulated nodes of which one is lost and to which another is added, with rows that do harm.

    python tests/faulty_nodes.py RUN_DIR NUM_ROWS

Writes RUN_DIR/../nodes.json: the ids of the nodes that were lost and added. Started by a test, for a Ray of its own.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import ray
from faulty import FAULTY
from ray.cluster_utils import Cluster
from runs import small_config, write_specs

from conceptcaps import shards
from conceptcaps.pipelines.generate import run_generate
from conceptcaps.rundir import RunDir


def harmful(num_rows: int) -> dict[int, str]:
    """1% of the rows raise, and 0.1% kill their worker."""
    raising = dict.fromkeys(range(7, num_rows, 100), "raise-audio")
    return raising | dict.fromkeys(range(13, num_rows, 1000), "kill-audio")


def main(folder: str, num_rows: int) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80 * 2**20})
    nodes = [cluster.add_node(num_cpus=2, object_store_memory=80 * 2**20) for _ in range(3)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    cluster.wait_for_nodes()
    run = RunDir(folder)
    write_specs(run, num_rows, harmful(num_rows))
    # One synthesiser fills most of a node, so that each node has one and the added one gets one.
    pools = ["audio.resources.num_cpus=1.2", "audio.resources.workers=2", "audio.resources.max_workers=3"]
    pools += ["audio.resources.batch_size=5", "ray.max_worker_deaths=1"]
    changed = {}
    with ThreadPoolExecutor() as beside:
        made = beside.submit(run_generate, small_config(folder, *pools), run, FAULTY)
        while shards.count(run).rows < num_rows // 5 and not made.done():
            time.sleep(0.5)
        changed["lost"] = nodes[-1].node_id
        cluster.remove_node(nodes[-1], allow_graceful=False)
        # In this thread: Ray sets signal handlers for a new node.
        changed["added"] = cluster.add_node(num_cpus=2, object_store_memory=80 * 2**20).node_id
    made.result()
    Path(folder).parent.joinpath("nodes.json").write_text(json.dumps(changed))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
