from __future__ import annotations

import pytest

from conceptcaps.assets.corpus import load_corpus
from conceptcaps.captions.checks import contradicted, is_english, is_said, judge, stem
from conceptcaps.config.captions import ChecksConfig

GOOD = "This is a slow rock song in which a female voice sings over acoustic drums, and the mood is calm and warm."
GERMAN = """Das ist ein sehr ruhiges Lied mit einer tiefen Stimme und einer Gitarre, die leise und langsam dazu
spielt und dann verklingt, bis nichts mehr bleibt als der Hall des Raumes."""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("strummed", "strumming"), ("drum", "drums"), ("calm", "calmly"), ("voice", "voices"), ("happy", "happily"),
        ("dance", "dancing"), ("clap", "clapping"), ("melody", "melodies"), ("singer's", "singers"),
    ],
)  # fmt: skip
def test_inflections_of_one_word_agree(one, other):
    assert stem(one) == stem(other)


@pytest.mark.parametrize(("one", "other"), [("bass", "bas"), ("drum", "dream"), ("sad", "sand"), ("brass", "bras")])
def test_other_words_stay_apart(one, other):
    assert stem(one) != stem(other)


@pytest.mark.parametrize(
    ("caption", "tag", "said"),
    [
        ("It has acoustic drums.", "acoustic drums", True),
        ("It has an acoustic drum.", "acoustic drums", True),
        ("The guitar is strumming.", "strummed guitar", False),
        ("The drums are acoustic.", "acoustic drums", False),
        ("It has no drums.", "drums", False),
        ("It goes without any real drums.", "drums", False),
        ("It has no bass. Drums play on.", "drums", True),
        ("It has no bass, drums or voices.", "drums", False),
        ("There are no voices here.", "no voices", True),
        ("It goes without a voice.", "no voices", True),
        ("A voice sings.", "no voices", False),
        ("A lo-fi beat.", "lo fi", True),
        ("An R&B song.", "r&b", True),
        ("A hip hop song.", "hip-hop", True),
        ("Rockabilly.", "rock", False),
    ],
)
def test_coverage_knows_inflection_and_denial(caption, tag, said):
    assert is_said(caption, tag) == said


def test_synonyms_count_as_said():
    assert not is_said("A man sings.", "male voice")
    assert is_said("A man sings.", "male voice", ["man sings", "male singer"])


@pytest.mark.parametrize(
    ("caption", "tags", "denied"),
    [
        ("A slow tempo song with a male voice.", ["slow tempo", "no voices"], ("no voices",)),
        ("A song at a fast tempo.", ["slow tempo", "rock"], ("slow tempo",)),
        ("A song at a slow tempo, with drums and no voices.", ["slow tempo", "drums", "no voices"], ()),
        ("The drums play.", ["no percussion"], ("no percussion",)),
        ("There is no percussion.", ["acoustic drums"], ("acoustic drums",)),
        ("A slow tempo, then a fast tempo.", ["slow tempo", "fast tempo"], ()),
        ("A happy song.", ["slow tempo"], ()),
    ],
)
def test_contradictions(caption, tags, denied):
    assert contradicted(caption, tags) == denied


def test_the_corpus_says_its_tags_and_contradicts_none():
    import ast

    for row in load_corpus()[:300]:
        verdict = judge(row["caption"], ast.literal_eval(row["aspect_list"]), ChecksConfig(min_coverage=1))
        assert verdict.problem is None, (row, verdict)


@pytest.mark.parametrize(
    ("caption", "settings", "code"),
    [
        (GOOD, {}, None),
        ("A slow rock song with feeling.", {}, "too_short"),
        (GOOD, {"max_words": 10, "min_words": 5}, "too_long"),
        ("- slow\n- rock", {}, "markup"),
        (f"{GOOD} It sounds like Miles Davis.", {}, "name"),
        (f"{GOOD} It sounds like Miles Davis.", {"names": False}, None),
        (f"{GOOD} It is played at a fast tempo.", {}, "contradiction"),
        (f"{GOOD} It is played at a fast tempo.", {"contradictions": False}, None),
        (GOOD.replace("calm and warm", "good"), {"min_coverage": 1}, "coverage"),
        (GOOD.replace("calm and warm", "good"), {"min_coverage": 0.5}, None),
        (GERMAN, {}, "language"),
    ],
)  # fmt: skip
def test_each_check_has_its_reason(caption, settings, code):
    tags = ["slow tempo", "rock", "calm"] if "fast tempo" in caption else ["rock", "calm"]
    verdict = judge(caption, tags, ChecksConfig(**settings))
    assert (verdict.problem or (None,))[0] == code


def test_candidates_are_ranked_by_what_they_fail():
    config = ChecksConfig(min_coverage=1)
    good = judge(GOOD, ["rock", "calm"], config)
    partial = judge(GOOD, ["rock", "sad"], config)
    wrong = judge(GOOD, ["rock", "no voices"], config)
    assert good.rank > partial.rank
    assert good.rank > wrong.rank
    assert partial.coverage == 0.5


def test_english_is_told_by_its_small_words():
    assert is_english(GOOD)
    assert not is_english("")
    assert not is_english("Musique lente avec une voix douce et des cordes dans une ambiance calme")
