"""Embeddings less what those of a run share."""

from __future__ import annotations

import numpy as np

from conceptcaps.alignment.threshold import centred
from conceptcaps.alignment.windows import unit


def test_centred_embeddings_lose_what_they_share():
    rng = np.random.default_rng(0)
    own = unit(rng.normal(size=(200, 16)))
    shared = unit(0.6 * own + unit(rng.normal(size=16)))
    found = centred(shared, shared.mean(0))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
    assert np.linalg.norm(found.mean(0)) < 0.1 < np.linalg.norm(shared.mean(0))
    assert (found * own).sum(1).mean() > (shared * own).sum(1).mean()
