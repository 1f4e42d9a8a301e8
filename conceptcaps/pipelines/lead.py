"""How far a step of the streaming plan may work ahead of the next.

Ray Data lets a fast step fill half of the object store before it holds it back. Captions are small: that would be
hundreds of thousands of them that no clip has been made of, all to be made again after a kill.
"""

from __future__ import annotations

from ray.data import DataContext
from ray.data._internal.execution import backpressure_policy as policies


class ShortLead(policies.DownstreamCapacityBackpressurePolicy):
    """Holds a step back as soon as `DataContext.downstream_capacity_backpressure_ratio` times what the next one has
    under way is waiting for it."""

    OBJECT_STORE_BUDGET_UTIL_THRESHOLD = 0.0


def keep_lead_short() -> None:
    """Plans built from here on keep it: a plan keeps the context that it was built in."""
    others = [p for p in policies.ENABLED_BACKPRESSURE_POLICIES if not issubclass(ShortLead, p)]
    DataContext.get_current().set_config(policies.ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, [*others, ShortLead])
