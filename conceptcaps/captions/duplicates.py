"""Near-duplicates among captions by SimHash (Charikar 2002), a number per caption that travels with its row.

Whether a caption is a duplicate depends on the others; the hash does not. So hashes are made row by row in the stream,
and compared afterwards, in the order of ids: the result does not depend on batches or workers.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from conceptcaps.captions.checks import Verdict, assess, stems

BITS = 64
_SHINGLE = 2


def caption_checks(caption: str, tags: Sequence[str], verdict: Verdict | None = None) -> dict[str, Any]:
    """The columns `schema.CAPTION_CHECKS` of a row; none for an empty caption.

    Args:
        caption: cleaned.
        tags: of the row.
        verdict: of the checks, where they have been made.
    """
    if not caption:
        return {}
    found = verdict or assess(caption, tags)
    return {
        "caption_words": len(caption.split()),
        "tag_coverage": found.coverage,
        "contradicted": list(found.contradicted),
        "caption_hash": simhash(caption),
    }


def simhash(text: str) -> int:
    """A 64-bit hash, as a signed integer, whose Hamming distance grows with the difference of texts in word pairs."""
    words = stems(text)
    shingles = {" ".join(words[i : i + _SHINGLE]) for i in range(max(1, len(words) - _SHINGLE + 1))}
    digests = b"".join(hashlib.blake2b(s.encode(), digest_size=8).digest() for s in sorted(shingles))
    bits = np.unpackbits(np.frombuffer(digests, np.uint8).reshape(-1, 8), axis=1)
    majority = bits.sum(0) * 2 > len(bits)
    return int(np.packbits(majority).view(">i8")[0])


def first_alike(hashes: Sequence[int], distance: int = 3) -> list[int | None]:
    """For each hash the index of the first earlier one within a Hamming distance; None where there is none.

    By the pigeonhole principle two hashes that differ in `distance` bits agree in one of `distance` + 1 bands, so
    only hashes that share a band are compared.

    Args:
        hashes: of captions, in the order of their ids.
        distance: in bits, 0 to 15.
    """
    bands: dict[tuple[int, int], list[int]] = defaultdict(list)
    values = [value % 2**BITS for value in hashes]
    found: list[int | None] = []
    for i, value in enumerate(values):
        keys = _bands(value, distance + 1)
        near = [j for key in keys for j in bands[key] if (values[j] ^ value).bit_count() <= distance]
        found.append(min(near) if near else None)
        for key in keys:
            bands[key].append(i)
    return found


def _bands(value: int, count: int) -> list[tuple[int, int]]:
    """The value's bits in `count` parts, each with its number."""
    width = -(-BITS // count)
    return [(k, (value >> (k * width)) & ((1 << width) - 1)) for k in range(count)]
