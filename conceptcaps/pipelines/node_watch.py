"""A driver whose own Ray node has died: Ray leaves about half of them waiting for ever, so they are ended here."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray

logger = logging.getLogger(__name__)

_SECONDS = 5.0
_LOOKS = 2  # in a row that must find the node dead


@contextmanager
def ending_with_its_node() -> Iterator[None]:
    """Inside, this process ends with exit code 1 when its node is dead: the next start makes what is left."""
    node, over = ray.get_runtime_context().get_node_id(), threading.Event()
    threading.Thread(target=_watch, args=(node, over), name="node watch", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(node: str, over: threading.Event) -> None:
    dead = 0
    while not over.wait(_SECONDS):
        dead = 0 if _is_alive(node) else dead + 1
        if dead >= _LOOKS and not over.is_set():
            logger.critical("the Ray node of this job has died; what is written is whole: start it again to go on")
            os._exit(1)


def _is_alive(node: str) -> bool:
    try:
        return any(found["NodeID"] == node and found["Alive"] for found in ray.nodes())
    except Exception:  # Ray itself ends a driver whose cluster does not answer for long
        return True
