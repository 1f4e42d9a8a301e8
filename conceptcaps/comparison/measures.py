"""What is measured on two collections of tag sets, grouped by how their intervals are found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from conceptcaps.contradictions import Contradictions
from conceptcaps.metrics import tags as metrics
from conceptcaps.vocabulary import CATEGORIES, Vocabulary

Direction = Literal["lower", "higher", "floor"]
"""Which way a metric is better; 'floor' where the best value is that of real rows, e.g. the share of novel sets."""


@dataclass(frozen=True)
class Reference:
    """The real rows.

    Attributes:
        vocabulary: of every matrix.
        train: uint8 (num_train, num_tags), what the samplers were fitted on.
        held: uint8 (num_held, num_tags), what nothing was fitted on.
        contradictions: of the vocabulary.
    """

    vocabulary: Vocabulary
    train: np.ndarray
    held: np.ndarray
    contradictions: Contradictions


CATEGORY_PAIRS = [(i, j) for i in range(len(CATEGORIES)) for j in range(i, len(CATEGORIES))]

DIRECTIONS: dict[str, Direction] = {
    "auc_logistic": "lower",
    "auc_trees": "lower",
    "size_wasserstein": "lower",
    "size_ks": "lower",
    "marginal_js": "lower",
    "marginal_pearson": "higher",
    "marginal_spearman": "higher",
    "cooccurrence_pearson": "higher",
    "cooccurrence_kl": "lower",
    "cooccurrence_hellinger": "lower",
    "pmi_pearson": "higher",
    "phi_pearson": "higher",
    "mmd": "lower",
    "contradictions": "lower",
    "unique_share": "floor",
    "novel_share": "floor",
    "nearest_jaccard": "floor",
}
for _i, _j in CATEGORY_PAIRS:
    DIRECTIONS[f"cooccurrence_pearson_{CATEGORIES[_i]}_{CATEGORIES[_j]}"] = "higher"


def joint_measures(reference: Reference, real: np.ndarray, made: np.ndarray, min_support: float) -> dict[str, float]:
    """Metrics of both collections as wholes; see `metrics.tags` for each.

    PMI and phi are compared on the pairs that the held-out rows support, whatever `real` and `made` are.
    """
    groups = reference.vocabulary.category_indices
    supported = metrics.supported_pairs(reference.held, min_support)
    found = {
        "size_wasserstein": metrics.size_wasserstein(real, made),
        "size_ks": metrics.size_ks(real, made),
        "marginal_js": metrics.marginal_js(real, made),
        "marginal_pearson": metrics.marginal_pearson(real, made),
        "marginal_spearman": metrics.marginal_spearman(real, made),
        "cooccurrence_pearson": metrics.cooccurrence_pearson(real, made),
        "cooccurrence_kl": metrics.cooccurrence_kl(real, made),
        "cooccurrence_hellinger": metrics.cooccurrence_hellinger(real, made),
        "pmi_pearson": metrics.association_pearson(real, made, "pmi", supported),
        "phi_pearson": metrics.association_pearson(real, made, "phi", supported),
    }
    one, other = metrics.cooccurrence(real), metrics.cooccurrence(made)
    for i, j in CATEGORY_PAIRS:
        mask = metrics.pair_mask(len(groups), groups, (i, j))
        found[f"cooccurrence_pearson_{CATEGORIES[i]}_{CATEGORIES[j]}"] = metrics.pearson(one[mask], other[mask])
    return found


def row_measures(reference: Reference, made: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics that are means over made rows: float (num_rows,) each."""
    novel = ~np.isin(metrics.row_keys(made), metrics.row_keys(reference.train))
    return {
        "contradictions": reference.contradictions.violations(made).astype(np.float64),
        "novel_share": novel.astype(np.float64),
        "nearest_jaccard": metrics.nearest_jaccard(made, reference.train),
    }
