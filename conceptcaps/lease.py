"""One writer at a time: a lease file in the run directory, renewed while its holder lives.

It needs nothing of the storage but reading, writing and deleting a small file, so it works on object stores. A holder
that dies leaves a lease that ends by itself; on the same machine its death is seen at once. Two jobs that begin in the
same instant are told apart by reading back what was written, and whatever still slips through is stopped at the last
gate: every shard is published only while its job's token stands in the file (`check`).
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conceptcaps.errors import InputError, describe
from conceptcaps.rundir import RunDir, now

logger = logging.getLogger(__name__)

LEASE = "lease.json"
_SETTLE = {True: 0.05, False: 1.0}
"""Seconds from writing to reading back, on a local disk and on others."""


def check(run: RunDir) -> None:
    """The last gate before a shard is published: nobody passes but the holder, and anybody where no lease was taken.

    Raises:
        InputError: another job has taken the run directory.
    """
    if run.token is None:
        return
    held = _read(run)
    if held and held["token"] != run.token:
        raise _refusal(run, held)


class Lease:
    """Holds a run directory from `with` to its end.

    Args:
        run: the run directory; its `token` is set while the lease is held, and travels with it to the workers.
        seconds: after which an unrenewed lease has ended; it is renewed six times as often.
        on_loss: is called from the renewing thread when another job has taken the directory all the same.
    """

    def __init__(self, run: RunDir, seconds: float, on_loss: Callable[[], None] = lambda: None):
        self.run, self.seconds, self.on_loss = run, seconds, on_loss
        self.token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        """Raises:
        InputError: another job that is alive holds the directory.
        """
        self._refuse_if_held()
        self._write()
        time.sleep(_SETTLE[self.run.is_local])
        held = _read(self.run)
        if not held or held["token"] != self.token:
            raise _refusal(self.run, held or {})
        self.run.token = self.token
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.run.token = None
        held = _read(self.run)
        if held and held["token"] == self.token:
            self.run.delete(LEASE)

    def _refuse_if_held(self) -> None:
        held = _read(self.run)
        if held is None or _is_dead(held):
            return
        if time.time() - held["renewed_at"] <= held["seconds"]:
            raise _refusal(self.run, held)
        # Its time is over by this machine's clock, which need not be the holder's: see whether it still moves.
        time.sleep(held["seconds"] / 3)
        again = _read(self.run)
        if again and again["renewed_at"] != held["renewed_at"]:
            raise _refusal(self.run, again)

    def _write(self) -> None:
        holder = {
            "token": self.token,
            "host": socket.gethostname(),
            "boot": _boot(),
            "pid": os.getpid(),
            "pid_started": _started(os.getpid()),
            "seconds": self.seconds,
            "renewed_at": time.time(),
            "renewed": now(),
        }
        self.run.write_json(holder, LEASE)

    def _renew(self) -> None:
        while not self._stop.wait(self.seconds / 6):
            try:
                held = _read(self.run)
                if held and held["token"] != self.token:
                    logger.error("%s", _refusal(self.run, held))
                    self.on_loss()
                    return
                self._write()
            except (OSError, InputError) as error:  # the next time may go better; the fence guards the shards
                logger.warning("the lease of %s was not renewed: %s", self.run, describe(error))


def holder(run: RunDir) -> dict[str, Any] | None:
    """Who holds a run directory now, as the lease file says it; None where nobody does."""
    held = _read(run)
    if held is None or _is_dead(held) or time.time() - held["renewed_at"] > held["seconds"]:
        return None
    return held


def _read(run: RunDir) -> dict[str, Any] | None:
    try:
        held = run.read_json(LEASE)
    except InputError:  # not there, or not a lease
        return None
    return held if isinstance(held, dict) and {"token", "renewed_at", "seconds"} <= held.keys() else None


def _refusal(run: RunDir, held: dict[str, Any]) -> InputError:
    who = f"process {held.get('pid')} on {held.get('host')}, last seen {held.get('renewed')}"
    return InputError(
        f"run directory {run}",
        f"is in use by another job ({who})",
        f"Wait for it or stop it; if it has crashed, its lease ends {held.get('seconds', 0):g} s after that",
    )


def _is_dead(held: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine that is no more."""
    if held.get("host") != socket.gethostname() or held.get("boot") != _boot() or _boot() is None:
        return False
    return _started(int(held["pid"])) != held.get("pid_started")


def _boot() -> str | None:
    path = Path("/proc/sys/kernel/random/boot_id")
    try:
        # Containers of one machine share its boot and may share a host name, but never a PID namespace.
        return f"{path.read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """When a process was started, in the kernel's ticks; None where there is none (or it is a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
