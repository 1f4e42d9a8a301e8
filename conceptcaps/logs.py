"""Log records as lines of JSON, with the ids of the run and of the row that they are about."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

_RUN: dict[str, str] = {}


def name_run(run_id: str) -> None:
    """Records of this process are about this run from here on."""
    _RUN["run_id"] = run_id


class JsonFormatter(logging.Formatter):
    """One object per record: `time`, `level`, `logger`, `message`, and, where they are known, `run_id`, `row_id` and
    `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        found = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        found |= _RUN | {name: value for name in ("run_id", "row_id") if (value := getattr(record, name, None))}
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        return json.dumps(found, ensure_ascii=False)
