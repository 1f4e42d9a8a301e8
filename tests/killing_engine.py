"""The served engine with one request that ends its process, for tests of the guard."""

from __future__ import annotations

import json
import os

from conceptcaps.pipelines.guarded_engine import GuardedEngine


class KillingEngine(GuardedEngine):
    def __init__(self, *args, killer, **kwargs):
        super().__init__(*args, **kwargs)
        self.killer = killer

    async def _ask(self, rows, turn):
        if any(json.loads(row["row"])["id"] == self.killer for row in rows):
            os._exit(1)
        return await super()._ask(rows, turn)
