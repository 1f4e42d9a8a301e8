"""Directional derivatives of a class logit, and the scores that sum them up (Kim et al. 2018, sections 3.3 and 3.4).

The derivative along a vector is a product with the gradient, so one gradient per class and clip serves every concept,
run and placebo.
"""

from __future__ import annotations

import numpy as np

from conceptcaps.errors import InputError


def directional_derivatives(gradients: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """float (num_clips, num_vectors): the change of the logit per unit step along each vector.

    Args:
        gradients: float (num_clips, dim), of one class's logit with respect to one layer.
        vectors: float (num_vectors, dim), unit length.
    """
    return gradients @ vectors.T.astype(gradients.dtype, copy=False)


def sign_scores(derivatives: np.ndarray) -> np.ndarray:
    """float64 (num_vectors,) in [0, 1]: the TCAV score, the share of clips whose logit the concept raises."""
    return (derivatives > 0).mean(0, dtype=np.float64)


def magnitude_scores(derivatives: np.ndarray) -> np.ndarray:
    """float64 (num_vectors,) in [0, 1]: the rising derivatives' share of all absolute derivatives; 0.5 is balance.

    The weighted variant of captum's TCAV, which small derivatives of either sign do not upset. NaN where every
    derivative is zero.
    """
    rising = np.maximum(derivatives, 0).sum(0, dtype=np.float64)
    total = np.abs(derivatives).sum(0, dtype=np.float64)
    return np.divide(rising, total, out=np.full(total.shape, np.nan), where=total > 0)


def check_gradients(gradients: np.ndarray, layer: str, class_name: str) -> None:
    """Refuse gradients in which no concept can have a derivative.

    Args:
        gradients: float (num_clips, dim).

    Raises:
        InputError: gradients that are not finite, or all zero.
    """
    if not np.isfinite(gradients).all():
        raise InputError(
            f"layer {layer!r}, class {class_name!r}", "has gradients that are not finite", "Check the classifier"
        )
    if not gradients.any():
        raise InputError(
            f"layer {layer!r}, class {class_name!r}",
            "has all-zero gradients: the logit does not depend on this layer",
            "Analyse a layer that the classifier's head reads",
        )
