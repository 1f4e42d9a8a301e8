"""How far a collection of clips is from a reference, by their embeddings, with intervals and the noise floor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conceptcaps.metrics.audio import Moments, frechet_distance, kernel_distance, median_distance
from conceptcaps.seeding import generator


@dataclass(frozen=True)
class Distance:
    """One comparison.

    Attributes:
        clips: number on either side: both are cut to the smaller, as the Frechet distance is biased by size.
        fad: Frechet audio distance (Kilgour et al. 2019).
        kad: kernel audio distance (Chung et al. 2025), unscaled.
        kad_low: 2.5% quantile over resamples of the clips.
        kad_high: 97.5% quantile.
        fad_floor: FAD between two halves of the reference, each half as many clips; None where it is too small.
        kad_floor: KAD between the same halves.
    """

    clips: int
    fad: float
    kad: float
    kad_low: float
    kad_high: float
    fad_floor: float | None
    kad_floor: float | None


def distance(made: np.ndarray, reference: np.ndarray, *, bootstraps: int = 200, seed: int = 0) -> Distance:
    """Compare embeddings.

    Args:
        made: float (num_made, dim).
        reference: float (num_reference, dim).
        bootstraps: resamples behind the interval.
        seed: of the choice of clips and of the resamples.

    Raises:
        ValueError: fewer than four clips on a side.
    """
    count = min(len(made), len(reference))
    if count < 4:
        raise ValueError(f"needs four clips on each side, not {len(made)} and {len(reference)}")
    rng = generator(seed, "distance")
    made, reference = (x[np.sort(rng.permutation(len(x))[:count])].astype(np.float64) for x in (made, reference))
    width = median_distance(reference)
    found = [
        kernel_distance(made[rng.choice(count, count // 2, replace=False)], reference, width) for _ in range(bootstraps)
    ]
    middle = kernel_distance(made, reference, width)
    # Half-samples without replacement vary as the whole does (Politis et al. 1999, with m = n / 2); resamples with
    # replacement would count a clip against itself.
    low, high = np.quantile(np.array(found) - np.mean(found), [0.025, 0.975])
    order = rng.permutation(count)
    one, other = reference[order[: count // 2]], reference[order[count // 2 : count // 2 * 2]]
    floors = (
        (frechet_distance(Moments.of(one), Moments.of(other)), kernel_distance(one, other, width))
        if count >= 8
        else (None, None)
    )
    fad = frechet_distance(Moments.of(made), Moments.of(reference))
    return Distance(count, fad, middle, middle + float(low), middle + float(high), *floors)
