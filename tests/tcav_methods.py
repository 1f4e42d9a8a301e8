"""Methods to compare TCAV with, where workers can import them."""

from __future__ import annotations

import numpy as np


def always(case, examined):
    """Calls every attribute used."""
    return {"flags": {"always": np.ones(examined.truth.shape, bool)}}
