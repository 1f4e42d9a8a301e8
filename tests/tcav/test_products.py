import numpy as np
import pytest

from conceptcaps.tcav import products
from conceptcaps.tcav.products import combinations, gram_matrices, projections


def sets(*, shared: bool) -> tuple[np.ndarray, np.ndarray]:
    """Features and padded sets of clips, all from the same few clips or from many."""
    rng = np.random.default_rng(0)
    clips = np.stack([rng.permutation(14 if shared else 300)[:12] for _ in range(40)])
    clips[3, 7:] = -1
    return rng.normal(size=(300, 33)), clips


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("block", [1, 2**14, 2**20])
def test_products_equal_those_of_gathered_features(shared: bool, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_BLOCK_BYTES", block)
    features, clips = sets(shared=shared)
    x = features[np.maximum(clips, 0)]
    real = clips >= 0
    rng = np.random.default_rng(1)
    weights, vectors = rng.normal(size=clips.shape) * real, rng.normal(size=(len(clips), 33))
    both = real[:, :, None] & real[:, None]
    np.testing.assert_allclose(gram_matrices(features, clips)[both], (x @ x.mT)[both], atol=1e-12)
    np.testing.assert_allclose(combinations(features, clips, weights), np.einsum("pn,pnd->pd", weights, x), atol=1e-12)
    np.testing.assert_allclose(
        projections(features, clips, vectors)[real], np.einsum("pnd,pd->pn", x, vectors)[real], atol=1e-12
    )


def test_shared_clips_are_multiplied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def gathered(*_):
        raise AssertionError("gathered each problem's clips")

    monkeypatch.setattr(products, "_gathered", gathered)
    gram_matrices(*sets(shared=True))
    with pytest.raises(AssertionError, match="gathered"):
        gram_matrices(*sets(shared=False))
