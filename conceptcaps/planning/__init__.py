"""What N rows will cost before a cluster is paid for: hours, storage, memory, money, and pool sizes that balance."""

from __future__ import annotations

from conceptcaps.planning.model import Plan, PoolPlan, Prices, plan
from conceptcaps.planning.pools import Pool, pools_of
from conceptcaps.planning.rates import Rate, Rates, measured_rates, stated_rates
from conceptcaps.planning.simulation import Trace, simulate

__all__ = [
    "Plan",
    "Pool",
    "PoolPlan",
    "Prices",
    "Rate",
    "Rates",
    "Trace",
    "measured_rates",
    "plan",
    "pools_of",
    "simulate",
    "stated_rates",
]
