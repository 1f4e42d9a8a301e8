"""A driver whose own Ray node has died: Ray leaves some of them waiting for ever, so they are ended here."""

from __future__ import annotations

import logging
import os
import threading
import time

import ray

logger = logging.getLogger(__name__)

_SECONDS = 5.0
_LOOKS = 2  # in a row that must find the node dead
_WATCHED: set[str] = set()


def end_with_node() -> None:
    """Watch this process's node for as long as it is joined: when it is dead, the process ends with exit code 1.

    What is written is whole, and the next start makes what is left. A node that is watched already is left at that.
    """
    node = ray.get_runtime_context().get_node_id()
    if node not in _WATCHED:
        _WATCHED.add(node)
        threading.Thread(target=_watch, args=(node,), name="node watch", daemon=True).start()


def _watch(node: str) -> None:
    dead = 0
    while _is_joined(node):
        dead = 0 if _is_alive(node) else dead + 1
        if dead >= _LOOKS and _is_joined(node):
            logger.critical("the Ray node of this job has died; what is written is whole: start it again to go on")
            os._exit(1)
        time.sleep(_SECONDS)
    _WATCHED.discard(node)


def _is_joined(node: str) -> bool:
    """Whether this process has neither left the node nor joined another cluster."""
    try:
        return ray.is_initialized() and ray.get_runtime_context().get_node_id() == node
    except Exception:  # it is being left
        return False


def _is_alive(node: str) -> bool:
    try:
        return any(found["NodeID"] == node and found["Alive"] for found in ray.nodes())
    except Exception:  # Ray itself ends a driver whose cluster does not answer for long
        return True
