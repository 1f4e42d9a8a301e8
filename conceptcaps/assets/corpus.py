"""The embedded annotations: rows in MusicCaps's own format, and the taxonomy that they use.

Made by `python -m conceptcaps.assets.build_corpus`; read here without any stage.
"""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

from conceptcaps.vocabulary import Vocabulary

FOLDER = Path(__file__).parent
CORPUS = FOLDER / "corpus.csv.gz"
TAXONOMY = FOLDER / "concepts_to_tags.json"
COLUMNS = ("ytid", "start_s", "end_s", "aspect_list", "caption")


def load_corpus() -> list[dict[str, str]]:
    """The rows as strings, keys `COLUMNS`; `aspect_list` is the repr of a list of strings, as MusicCaps has it."""
    text = gzip.decompress(CORPUS.read_bytes()).decode()
    return list(csv.DictReader(io.StringIO(text)))


def load_taxonomy() -> Vocabulary:
    """The vocabulary of the embedded corpus."""
    return Vocabulary.from_json(TAXONOMY.read_bytes(), str(TAXONOMY))
