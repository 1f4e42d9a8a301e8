"""What a result was measured on: kept beside every figure."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil

from conceptcaps.rundir import code_version, package_versions


def describe_machine() -> dict[str, object]:
    """Processor, cores, memory in GiB, Python, package versions and the code's version."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "packages": package_versions(),
        "code": code_version(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
