import numpy as np
import pytest

from conceptcaps.alignment.threshold import BELOW, Means, Threshold, calibrate, centred_scores, mismatched
from conceptcaps.alignment.windows import unit
from conceptcaps.errors import InputError


def rows_with_a_common_part(number: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Audio and text embeddings of matched rows; texts share a part that is larger for some than for others."""
    rng = np.random.default_rng(0)
    meaning = unit(rng.normal(size=(number, 8)))
    shared = np.zeros(8)
    shared[0] = 1
    audio = unit(meaning + 2 * shared + 0.3 * rng.normal(size=(number, 8)))
    return audio, unit(meaning + rng.uniform(1, 4, (number, 1)) * shared)


def test_mismatched_scores_are_of_pairs_with_different_labels_only():
    scores = np.arange(9).reshape(3, 3)
    assert sorted(mismatched(scores, ["a", "b", "b"])) == [1, 2, 3, 6]
    with pytest.raises(InputError, match="no two with different captions"):
        mismatched(scores, ["a", "a", "a"])


def test_a_pair_is_centred_by_the_other_rows():
    audio, text = rows_with_a_common_part(40)
    others = Means.of(np.delete(audio, (3, 7), axis=0), np.delete(text, (3, 7), axis=0))
    clip, caption = others.taken_off(audio[3], text[7])
    assert centred_scores(audio, text)[3, 7] == pytest.approx(clip @ caption)
    others = Means.of(np.delete(audio, 3, axis=0), np.delete(text, 3, axis=0))
    clip, caption = others.taken_off(audio[3], text[3])
    assert centred_scores(audio, text)[3, 3] == pytest.approx(clip @ caption)


@pytest.mark.parametrize("quantile", [0.9, 0.95])
def test_new_mismatched_pairs_are_refused_as_often_as_the_quantile_says(quantile):
    audio, text = rows_with_a_common_part(3000)
    refused = []
    for rows in np.arange(1600).reshape(-1, 40):
        threshold = calibrate(audio[rows], text[rows], range(40), quantile, centre=True).threshold
        clips, captions = threshold.means.taken_off(audio[1600:2999], text[1601:])
        refused.append(np.mean((clips * captions).sum(1) < threshold.value))
    assert np.mean(refused) == pytest.approx(quantile, abs=0.006)


def test_means_taken_off_lose_fewer_matched_pairs_at_the_same_quantile():
    audio, text = rows_with_a_common_part()
    first, rest = slice(0, 64), slice(64, None)
    lost = {}
    for centre in (False, True):
        threshold = calibrate(audio[first], text[first], range(64), 0.95, centre=centre).threshold
        scores = [threshold.scores(a[None], t)[0] for a, t in zip(audio[rest], text[rest], strict=True)]
        swapped = [threshold.scores(a[None], t)[0] for a, t in zip(audio[rest], np.roll(text[rest], 1, 0), strict=True)]
        assert np.mean([threshold.decide(s) == BELOW for s in swapped]) == pytest.approx(0.95, abs=0.04)
        lost[centre] = np.mean([threshold.decide(s) == BELOW for s in scores])
    assert lost[True] < 0.5 * lost[False]


def test_scores_without_means_are_cosines_and_with_them_keep_their_precision():
    audio, text = (side.astype(np.float32) for side in rows_with_a_common_part(10))
    np.testing.assert_array_equal(Threshold("absolute", 0.2).scores(audio, text[0]), audio @ text[0])
    found = Threshold("null_quantile", 0.2, Means.of(audio, text)).scores(audio, text[0])
    assert found.dtype == np.float32
    assert np.abs(found).max() <= 1 + 1e-6
