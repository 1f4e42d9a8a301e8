"""What the split needs to know of each shard row, in some hundred bytes: never its caption or audio."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from conceptcaps import schema, seeding
from conceptcaps.dataset.groups import NUM_HASHES, key, signatures
from conceptcaps.dataset.splits import TagLists
from conceptcaps.errors import InputError, describe
from conceptcaps.rundir import RunDir
from conceptcaps.vocabulary import aspects_column

_READ = ("id", "attempt", "status", "caption", "aspect_list", "pair_id")
_DRAW_BITS = 21

INDEX = pa.schema(
    [
        pa.field("file", pa.int32()),  # position in the list of shard files
        pa.field("row", pa.int32()),  # position in the file
        pa.field("id", pa.string()),
        pa.field("attempt", pa.int32()),
        pa.field("accepted", pa.bool_()),
        pa.field("tags", pa.list_(pa.string())),
        pa.field("tags_key", pa.int64()),
        pa.field("pair_key", pa.int64()),
        pa.field("signature", pa.binary(4 * NUM_HASHES)),
        pa.field("draw", pa.int64()),  # the seed's say in the split
        pa.field("rank", pa.float64()),  # in [0, 1): a subset of p percent takes the rows below p / 100
        pa.field("error", pa.string()),  # a file that cannot be read has one row, with this only
    ]
)


def read_index(
    run: RunDir, files: Sequence[int], paths: Sequence[str], seed: int, verified: Sequence[str] = ()
) -> pa.Table:
    """The index of some shard files, given by their positions in `paths`.

    Args:
        verified: categories all of whose tags must be verified in the audio for a row to count as accepted.
    """
    return pa.concat_tables([_index_file(run, file, paths[file], seed, verified) for file in files])


def _index_file(run: RunDir, file: int, path: str, seed: int, verified: Sequence[str]) -> pa.Table:
    try:
        with pq.ParquetFile(path, filesystem=run.fs) as reader:
            schema.check(reader.schema_arrow, schema.SHARD, path)
            more = ["verified_aspects", *map(aspects_column, verified)] if verified else []
            table = reader.read(columns=[*_READ, *more])
    except InputError as error:
        return pa.Table.from_pylist([{"file": file, "error": error.problem}], schema=INDEX)
    except (OSError, pa.ArrowException) as error:
        return pa.Table.from_pylist([{"file": file, "error": describe(error)}], schema=INDEX)
    return _index_rows(table, file, seed, verified)


def _index_rows(table: pa.Table, file: int, seed: int, verified: Sequence[str]) -> pa.Table:
    accepted = pc.equal(table["status"], schema.ACCEPTED)
    if verified:
        accepted = pc.and_(accepted, _carries(table, verified))
    ids = table["id"].to_pylist()
    found = signatures([caption or "" for caption in table["caption"].to_pylist()])
    columns = {
        "file": pa.array([file] * len(table), pa.int32()),
        "row": pa.array(np.arange(len(table)), pa.int32()),
        "id": table["id"],
        "attempt": table["attempt"],
        "accepted": accepted,
        "tags": table["aspect_list"],
        "tags_key": pa.array([key(tags or ()) for tags in table["aspect_list"].to_pylist()], pa.int64()),
        "pair_key": pa.array([key([p] if p else ()) for p in table["pair_id"].to_pylist()], pa.int64()),
        "signature": pa.array([row.tobytes() for row in found], pa.binary(4 * NUM_HASHES)),
        "draw": pa.array([seeding.derive(seed, "split", i) for i in ids], pa.int64()),
        "rank": pa.array([seeding.derive(seed, "subset", i) / 2**63 for i in ids], pa.float64()),
        "error": pa.nulls(len(table), pa.string()),
    }
    return pa.table(columns, schema=INDEX)


def _carries(table: pa.Table, categories: Sequence[str]) -> pa.Array:
    """bool (num_rows,): whether the audio carries every tag of the categories."""
    rows = table.select(["verified_aspects", *map(aspects_column, categories)]).to_pylist()
    carried = [set(row.pop("verified_aspects") or ()) for row in rows]
    return pa.array([set().union(*filter(None, row.values())) <= has for row, has in zip(rows, carried, strict=True)])


def latest_accepted(index: pa.Table) -> pa.Table:
    """The accepted rows among those that count (of each id the highest attempt), in the order of their ids."""
    order = pc.sort_indices(index, [("id", "ascending"), ("attempt", "descending"), ("file", "ascending")]).to_numpy()
    ids = index["id"].combine_chunks().take(pa.array(order)) if len(order) else pa.array([], pa.string())
    first = np.ones(len(order), bool)
    if len(order) > 1:
        first[1:] = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
    kept = order[first]
    accepted = index["accepted"].to_numpy()[kept].astype(bool)
    return index.take(pa.array(kept[accepted]))


def bad_files(index: pa.Table) -> Iterator[tuple[int, str]]:
    """Position and fault of each file that could not be read."""
    for row in index.filter(pc.is_valid(index["error"])).select(["file", "error"]).to_pylist():
        yield row["file"], row["error"]


@dataclass(frozen=True)
class Rows:
    """The accepted rows as arrays, in the order of their ids."""

    ids: pa.Array
    file: np.ndarray
    row: np.ndarray
    keys: tuple[np.ndarray, np.ndarray]
    signatures: np.ndarray
    draws: np.ndarray
    rank: np.ndarray
    tags: TagLists

    @classmethod
    def of(cls, index: pa.Table) -> Rows:
        """From `latest_accepted`."""
        ids = index["id"].combine_chunks()
        lists = index["tags"].combine_chunks()
        draw = index["draw"].to_numpy()
        raw = b"".join(index["signature"].to_pylist())
        return cls(
            ids=ids,
            file=index["file"].to_numpy(),
            row=index["row"].to_numpy(),
            keys=(index["tags_key"].to_numpy(), index["pair_key"].to_numpy()),
            signatures=np.frombuffer(raw, np.uint32).reshape(-1, NUM_HASHES),
            draws=np.stack([(draw >> (_DRAW_BITS * k)) % 2**_DRAW_BITS for k in range(3)], 1) / 2**_DRAW_BITS,
            rank=index["rank"].to_numpy(),
            tags=tag_lists(lists),
        )

    def __len__(self) -> int:
        return len(self.file)


def tag_lists(lists: pa.ListArray) -> TagLists:
    """Arrow lists of tags as codes, names in alphabetical order."""
    flat = lists.flatten().dictionary_encode()
    names = np.array(flat.dictionary.to_pylist(), dtype=object)
    order = np.argsort(names)
    position = np.empty(len(names), np.int32)
    position[order] = np.arange(len(names))
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return TagLists(tuple(names[order]), position[flat.indices.to_numpy(zero_copy_only=False)], offsets)
