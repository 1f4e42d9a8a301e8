"""What the page counts, against a count by hand."""

from collections import Counter

import numpy as np
import pytest
from synthetic import VOCABULARY, rows, write_run, write_shards

from conceptcaps import schema
from conceptcaps.report.gather import TagStatistics, attach_audio, gather, throughput, vocabulary_of


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("gather") / "run", 80)


def test_counts_and_statistics(run):
    made = rows(80)
    accepted = [row for row in made if row["status"] == schema.ACCEPTED]
    found = gather(run, VOCABULARY, 1000)
    assert found.counts.statuses == Counter(row["status"] for row in made)
    assert found.reasons[schema.FAILED] == {"audio.error": found.counts.statuses[schema.FAILED]}
    assert sorted(found.scores[schema.ACCEPTED]) == pytest.approx(sorted(row["alignment_score"] for row in accepted))
    assert found.caption_words == [len(row["caption"].split()) for row in accepted]
    assert found.seconds == pytest.approx(0.25 * len(accepted))
    assert found.tags_said == 1
    assert found.tags.counts[VOCABULARY.index["rock"]] == sum("rock" in row["aspect_list"] for row in accepted)
    assert {row["id"] for row in found.examples} == {row["id"] for row in made}


def test_examples_are_few_mixed_and_the_same_each_time(run):
    first, again = gather(run, VOCABULARY, 20).examples, gather(run, VOCABULARY, 20).examples
    assert [row["id"] for row in first] == [row["id"] for row in again]
    statuses = Counter(row["status"] for row in first)
    assert statuses[schema.ACCEPTED] == 16
    assert sum(statuses.values()) == 20
    assert gather(run, VOCABULARY, 0).examples == []


def test_audio_is_that_of_the_row(run):
    wanted = {row["id"]: row["audio"]["bytes"] for row in rows(80) if row["status"] == schema.ACCEPTED}
    examples = gather(run, VOCABULARY, 80).examples
    got = {row["id"]: data for row, data in attach_audio(run, examples)}
    assert got == wanted
    assert all(row["shard"].startswith("shards/attempt-0/") for row in examples)


def test_phi_is_the_correlation():
    matrix = np.random.default_rng(0).integers(0, 2, (50, len(VOCABULARY)))
    statistics = TagStatistics(VOCABULARY)
    statistics.add(VOCABULARY.decode(matrix))
    assert np.allclose(statistics.phi(), np.corrcoef(matrix.T), atol=1e-9)


def test_vocabulary_from_shards_alone(tmp_path):
    run = write_run(tmp_path / "run", 80)
    run.delete("taxonomy")
    assert set(vocabulary_of(run).tags) == set(VOCABULARY.tags)
    assert vocabulary_of(run).category_of("rock") == "genre"


def test_throughput_counts_every_row(run, tmp_path):
    minutes, written = throughput(run)
    assert minutes[0] == 0
    assert (np.diff(minutes) >= 0).all()
    assert written[-1] == 80
    single = write_run(tmp_path / "single", 0)
    write_shards(single, rows(3))
    assert throughput(single) is None
