"""The job as `conceptcaps run` does it, but with the engines of `faulty.py`: what chaos tests start and kill.

python tests/faulty_job.py RUN_DIR [key=value ...]
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from faulty import FAULTY
from runs import small_config

from conceptcaps import cli
from conceptcaps.errors import InputError
from conceptcaps.pipelines import generate

if __name__ == "__main__":
    generate.run_generate = partial(generate.run_generate, engines=FAULTY)
    try:
        cli.execute(small_config(sys.argv[1], *sys.argv[2:]), ("generate",), quiet=True)
    except InputError as error:
        sys.exit(f"refused: {error}")
