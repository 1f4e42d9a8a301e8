from __future__ import annotations

import pytest

from conceptcaps.taxonomy.phrases import remove_quality


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("The low quality recording features a flute. The recording is noisy.", "The recording features a flute."),
        ("It sounds jazzy, funky, boomy and the recording is noisy and in mono.", "It sounds jazzy, funky and boomy."),
        ("The recording is noisy and in mono, but it sounds calm.", "It sounds calm."),
        ("The recording is noisy and fairly wide.", "The recording is fairly wide."),
        ("A song. The audio quality is poor with ambient crowd noises.", "A song."),
        ("The song is a rock tune with poor audio quality.", "The song is a rock tune."),
        ("Even though the recording is noisy, it gives off joyful vibes.", "It gives off joyful vibes."),
        ("A man sings. This is an amateur recording and of poor audio-quality.", "A man sings."),
        ("The song has bad audio quality with ambient noises of people.", "The song has ambient noises of people."),
        ("Low fidelity live recording of a string ensemble.", "Live recording of a string ensemble."),
        ("It is uptempo and the recording is mono, as it was probably recorded with a phone.", "It is uptempo."),
        (
            "The audio quality is inferior but the music is upbeat and youthful.",
            "The music is upbeat and youthful.",
        ),
        ("A nice low end; The audio quality is average. It is passionate.", "A nice low end. It is passionate."),
    ],
)
def test_remarks_go_and_sentences_stay_whole(caption, expected):
    assert remove_quality(caption) == expected


@pytest.mark.parametrize(
    "caption",
    [
        "A slow piano melody over soft strings.",
        "There is a fuzzy quality to the instrument as well.",
        "A recording of bells plays over a kick drum.",
        "The audio quality is poor.",  # nothing else is said
    ],
)
def test_captions_without_a_removable_remark_are_untouched(caption):
    assert remove_quality(caption) == caption
