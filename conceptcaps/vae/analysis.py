"""What a fitted beta-VAE has learned: bound, reconstructions, active units, and a picture of its latent space."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import torch

from conceptcaps.extras import require
from conceptcaps.vae.model import BetaVAE
from conceptcaps.vocabulary import CATEGORIES, Vocabulary

Projection = Literal["pca", "tsne", "umap"]
_ACTIVE_VARIANCE = 0.01
_FEWEST_MAPPED = 10


def describe_vae(
    model: BetaVAE, matrix: np.ndarray, vocabulary: Vocabulary, num_samples: int, seed: int
) -> dict[str, Any]:
    """Measures of a one-member model on rows that it was not fitted on.

    Args:
        model: in evaluation mode.
        matrix: uint8 (num_rows, num_tags).
        vocabulary: of the columns.
        num_samples: of the IWAE bound.
        seed: of its draws.

    Returns:
        `validation_nats_per_row` (negative IWAE bound), `elbo_nats_per_row`, `kl_nats_per_row`, `active_units`,
        `silhouette_genre`, `silhouette_by_genre`, and reconstruction measures.
    """
    rows = torch.from_numpy(matrix).float()
    generator = torch.Generator().manual_seed(seed)
    bound = model.iwae_bound(rows, num_samples, generator).mean()
    with torch.no_grad():
        terms = model.loss(rows, torch.randn(len(rows), model.latent_dim, generator=generator))
    means = latents(model, matrix)
    silhouette, by_genre = genre_silhouettes(means, matrix, vocabulary)
    return {
        "validation_nats_per_row": -float(bound),
        "elbo_nats_per_row": float((terms.reconstruction + terms.kl).mean()),
        "kl_nats_per_row": float(terms.kl.mean()),
        "active_units": active_units(means),
        "silhouette_genre": silhouette,
        "silhouette_by_genre": by_genre,
        **reconstruction(model, matrix),
    }


def latents(model: BetaVAE, matrix: np.ndarray) -> np.ndarray:
    """float32 (num_rows, latent_dim): posterior means of multi-hot rows."""
    with torch.no_grad():
        mean: np.ndarray = model.encode(torch.from_numpy(matrix).float()[None])[0][0].numpy()
    return mean


def active_units(means: np.ndarray) -> int:
    """Latent dimensions whose posterior mean varies with the row: variance above 0.01 (Burda et al. 2016, sec. 5)."""
    return int((means.var(0) > _ACTIVE_VARIANCE).sum())


def reconstruction(model: BetaVAE, matrix: np.ndarray, threshold: float = 0.5) -> dict[str, float]:
    """How rows come back from their posterior means, tags set at `threshold`.

    Returns:
        `precision`, `recall`, `f1` over all tags (each in [0, 1], higher is better), `exact_match`, the share of rows
        that come back whole, and `hamming`, wrong tags per row.
    """
    with torch.no_grad():
        logits = model.decode(torch.from_numpy(latents(model, matrix))[None])[0].numpy()
    returned, held = logits >= np.log(threshold / (1 - threshold)), matrix.astype(bool)
    hits = float((returned & held).sum())
    precision, recall = hits / max(returned.sum(), 1), hits / max(held.sum(), 1)
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / max(precision + recall, 1e-12),
        "exact_match": float((returned == held).all(1).mean()),
        "hamming": float((returned != held).sum(1).mean()),
    }


def genre_of(matrix: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """int (num_rows,): the column of each row's commonest genre tag, -1 where it has none."""
    columns = np.flatnonzero(vocabulary.category_indices == CATEGORIES.index("genre"))
    held = matrix[:, columns] > 0
    weighted = held * (1 + matrix[:, columns].sum(0))
    return np.where(held.any(1), columns[weighted.argmax(1)] if len(columns) else -1, -1)


def genre_silhouettes(
    means: np.ndarray, matrix: np.ndarray, vocabulary: Vocabulary, min_rows: int = 5
) -> tuple[float, dict[str, float]]:
    """Silhouette (Rousseeuw 1987) of latents grouped by genre, in [-1, 1]: over all rows, and per genre.

    Genres of fewer than `min_rows` rows are left out; NaN and no genre where fewer than two remain.
    """
    from sklearn.metrics import silhouette_samples

    genres = genre_of(matrix, vocabulary)
    names, counts = np.unique(genres[genres >= 0], return_counts=True)
    chosen = np.isin(genres, names[counts >= min_rows])
    if len(np.unique(genres[chosen])) < 2:
        return float("nan"), {}
    each, labels = silhouette_samples(means[chosen], genres[chosen]), genres[chosen]
    by_genre = {vocabulary.tags[g]: float(each[labels == g].mean()) for g in np.unique(labels)}
    return float(each.mean()), by_genre


def project(means: np.ndarray, method: Projection, seed: int) -> np.ndarray:
    """float32 (num_rows, 2): latents on a plane.

    Args:
        means: float (num_rows, latent_dim).
        method: 'pca', 'tsne' (van der Maaten and Hinton 2008) or 'umap' (McInnes et al. 2018); too few rows for the
            latter two are put on their principal components.
        seed: of the projection.

    Raises:
        InputError: 'umap' without umap-learn.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if method == "pca" or len(means) < _FEWEST_MAPPED:
        size = min(2, *means.shape)
        points = PCA(size, random_state=seed).fit_transform(means)
        return np.pad(points, ((0, 0), (0, 2 - size))).astype(np.float32)
    if method == "umap":
        umap = require("umap", "metrics")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a seed leaves it one thread
            neighbours = min(15, len(means) - 1)
            return np.asarray(umap.UMAP(n_neighbors=neighbours, random_state=seed).fit_transform(means), np.float32)
    perplexity = min(30.0, (len(means) - 1) / 3)
    return np.asarray(TSNE(2, perplexity=perplexity, init="random", random_state=seed).fit_transform(means), np.float32)
