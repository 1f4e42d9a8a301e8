"""The steps of the streaming plan: callables on Arrow tables, each holding one engine, in actor pools of their own.

Rows ride through every step to the end; a step passes on untouched what an earlier one has ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import pyarrow as pa

from conceptcaps import schema, seeding, signal
from conceptcaps.alignment import make_aligner
from conceptcaps.alignment.tags import TagReference, Verifier
from conceptcaps.alignment.threshold import Threshold
from conceptcaps.alignment.windows import pooled
from conceptcaps.audio import make_synthesiser
from conceptcaps.audio.checks import Measures, problem
from conceptcaps.captions import make_captioner
from conceptcaps.captions.duplicates import caption_checks
from conceptcaps.captions.pairs import complete
from conceptcaps.config.alignment import AlignmentConfig
from conceptcaps.config.audio import AudioConfig
from conceptcaps.config.captions import CaptionsConfig
from conceptcaps.engines import Aligner, Captioner, Synthesiser
from conceptcaps.pairs import skeleton
from conceptcaps.pipelines.guard import Guard, Watch
from conceptcaps.pipelines.isolation import Row, answers, fail, pending, to_batch
from conceptcaps.pipelines.telemetry import stage_seconds

Answer = TypeVar("Answer")

STAGES = ("captions", "audio", "alignment")
TIMES = pa.schema([pa.field(f"{stage}_{what}", pa.float32()) for stage in STAGES for what in ("seconds", "startup")])
"""What a row took, in seconds of a worker of each stage: its share of its batches, and, in the first row that a worker
makes, the worker's start. They travel with the row to be added up where it is published, and stand in no shard."""

CAPTIONED = pa.schema(
    [
        *schema.SPECS,
        pa.field("attempt", pa.int32(), nullable=False),
        pa.field("caption", pa.string()),
        pa.field("status", pa.string()),
        pa.field("reason", pa.string()),
        *schema.CAPTION_CHECKS,
        *TIMES,
    ]
)
SYNTHESISED = pa.schema(
    [
        *CAPTIONED,
        pa.field("takes", pa.list_(pa.binary())),  # encoded audio, one file per take
        pa.field("sampling_rate", pa.int32()),
        pa.field("duration", pa.float64()),
    ]
)
DECIDED = pa.schema([*schema.SHARD, *TIMES])
EMBEDDED = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("caption", pa.string()),
        pa.field("audio_embedding", pa.list_(pa.float32())),
        pa.field("text_embedding", pa.list_(pa.float32())),
        pa.field("reason", pa.string()),  # of a row that ended before it was embedded
    ]
)


def table_of(rows: list[Row], wanted: pa.Schema) -> pa.Table:
    """Rows as a table of exactly these columns; missing values are null."""
    return pa.Table.from_pylist(rows, schema=wanted)


@dataclass(frozen=True)
class Engines:
    """How a worker makes its engine; benchmarks and fault tests give others."""

    captioner: Callable[[CaptionsConfig], Captioner] = make_captioner
    synthesiser: Callable[[AudioConfig], Synthesiser] = make_synthesiser
    aligner: Callable[[AlignmentConfig], Aligner] = make_aligner


class Step:
    """One engine and the care taken of its rows.

    Attributes:
        stage: its name in reasons, metrics and the run directory.
    """

    stage: str

    def __init__(self, watch: Watch | None, started: float):
        """Args:
        watch: None to let a row that kills its worker do so for ever (calibration, benchmarks).
        started: `time.perf_counter()` when the engine began to load.
        """
        self.guard = Guard.of(watch, self.stage)
        self.run_id = watch.run_id if watch else ""
        self._startup: float | None = time.perf_counter() - started

    def answers(self, call: Callable[[list[Row]], list[Answer]], rows: list[Row]) -> list[tuple[Row, Answer]]:
        """Each row with the engine's answer; rows that it cannot do are ended and left out."""
        if self.guard is None:
            return answers(partial(self._timed, call), rows, self.stage, self.run_id)
        alive = self.guard.give_up(rows)
        watched = partial(self._watched, self.guard, call)
        return [pair for piece in self.guard.pieces(alive) for pair in answers(watched, piece, self.stage, self.run_id)]

    def _watched(self, guard: Guard, call: Callable[[list[Row]], list[Answer]], rows: list[Row]) -> list[Answer]:
        with guard.trying(rows):
            return self._timed(call, rows)

    def _timed(self, call: Callable[[list[Row]], list[Answer]], rows: list[Row]) -> list[Answer]:
        begun = time.perf_counter()
        try:
            return call(rows)
        finally:
            took = time.perf_counter() - begun
            stage_seconds(self.stage).observe(took)
            for row in rows:
                row[f"{self.stage}_seconds"] = (row.get(f"{self.stage}_seconds") or 0.0) + took / len(rows)
            if self._startup is not None:
                rows[0][f"{self.stage}_startup"], self._startup = self._startup, None


class Caption(Step):
    """Tags to a caption, by an engine that runs in this worker; a row that brings its caption keeps it."""

    stage = "captions"

    def __init__(self, config: CaptionsConfig, engines: Engines, watch: Watch | None = None):
        started = time.perf_counter()
        self.engine = engines.captioner(config)
        super().__init__(watch, started)

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        uncaptioned = [row for row in pending(rows) if row["caption"] is None]
        for row, caption in self.answers(self._caption, uncaptioned):
            whole = complete(caption, row)
            row |= {"caption": whole} | caption_checks(whole, row["aspect_list"] or ())
        return table_of(rows, CAPTIONED)

    def _caption(self, rows: list[Row]) -> list[str]:
        return self.engine(to_batch(map(skeleton, rows)))


class Synthesise(Step):
    """A caption to `candidates` takes of audio, each from its own seed and encoded here, once."""

    stage = "audio"

    def __init__(self, config: AudioConfig, engines: Engines, watch: Watch | None = None):
        started = time.perf_counter()
        self.config = config
        self.engine = engines.synthesiser(config)
        super().__init__(watch, started)

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        alive = pending(rows)
        for row in alive:
            row["takes"] = []
        for take in range(self.config.candidates):
            # The rows of a pair must not differ in which take was kept.
            wanted = [row for row in pending(alive) if not (take and row["pair_id"])]
            for row, waveform in self.answers(partial(self._render, take), wanted):
                self._encode(row, waveform)
        return table_of([self._without_takes_if_ended(row) for row in rows], SYNTHESISED)

    def _render(self, take: int, rows: list[Row]) -> list[np.ndarray]:
        seeds = [seeding.derive(row["seed"], "audio", row["attempt"], take) for row in rows]
        batch = to_batch(rows)
        return self.engine(batch | {"seed": seeds})

    def _encode(self, row: Row, waveform: np.ndarray) -> None:
        rate = self.engine.sampling_rate
        try:
            row["takes"].append(signal.encode(waveform, rate, self.config.format))
        except ValueError as error:
            fail(row, "audio", error, self.run_id)
        row["sampling_rate"], row["duration"] = rate, waveform.shape[-1] / rate

    @staticmethod
    def _without_takes_if_ended(row: Row) -> Row:
        return row if row.get("status") is None else row | {"takes": None, "sampling_rate": None, "duration": None}


class Embed(Step):
    """Captions and takes into the aligner's space; the first half of `Align`, and all that calibration needs."""

    stage = "alignment"

    def __init__(self, config: AlignmentConfig, engines: Engines, watch: Watch | None = None):
        started = time.perf_counter()
        self.engine = engines.aligner(config)
        super().__init__(watch, started)

    def embed(self, rows: list[Row]) -> list[tuple[list[np.ndarray], np.ndarray]]:
        """For each row the (num_windows, dim) audio embeddings of each take, and the (dim,) text embedding."""
        waveforms, rates = zip(*(signal.decode(take) for row in rows for take in row["takes"]), strict=True)
        return self._embed(rows, waveforms, rates[0])

    def _embed(
        self, rows: list[Row], waveforms: Sequence[np.ndarray], rate: int
    ) -> list[tuple[list[np.ndarray], np.ndarray]]:
        windows = self.engine.embed_windows(waveforms, rate)
        assert len(windows) == len(waveforms), f"the aligner gave {len(windows)} answers to {len(waveforms)} clips"
        audio = iter(windows)
        text = self.engine.embed_text([row["caption"] for row in rows])
        return [([next(audio) for _ in row["takes"]], own) for row, own in zip(rows, text, strict=True)]

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        for row, (takes, text) in self.answers(self.embed, pending(rows)):
            row["audio_embedding"], row["text_embedding"] = pooled(takes)[0].tolist(), text.tolist()
        return table_of(rows, EMBEDDED)


class Align(Embed):
    """Check and score the takes, keep the best, accept or reject it: the row as a shard holds it, and what it took.

    Args:
        config: section `alignment`.
        engines: makes the aligner.
        audio: section `audio`.
        threshold: from which score a clip is accepted.
        tags: what tags are verified against; None verifies none.
        watch: guards against rows that kill the worker.
    """

    def __init__(
        self,
        config: AlignmentConfig,
        engines: Engines,
        audio: AudioConfig,
        threshold: Threshold,
        tags: TagReference | None = None,
        watch: Watch | None = None,
    ):
        super().__init__(config, engines, watch)
        self.audio, self.threshold = audio, threshold
        self.verifier = Verifier.make(self.engine, tags, config) if tags else None

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        for row, (takes, text, measures) in self.answers(self.hear, pending(rows)):
            self._decide(row, takes, text, measures)
        return table_of(rows, DECIDED)

    def hear(self, rows: list[Row]) -> list[tuple[list[np.ndarray], np.ndarray, list[Measures | None]]]:
        """For each row the embeddings as of `embed`, and the measures of each take."""
        waveforms, rates = zip(*(signal.decode(take) for row in rows for take in row["takes"]), strict=True)
        wanted = self.audio.checks.enabled
        measures = iter([Measures.of(waveform, rates[0]) if wanted else None for waveform in waveforms])
        heard = [[next(measures) for _ in row["takes"]] for row in rows]
        return [(*pair, own) for pair, own in zip(self._embed(rows, waveforms, rates[0]), heard, strict=True)]

    def _decide(self, row: Row, windows: list[np.ndarray], text: np.ndarray, measures: list[Measures | None]) -> None:
        takes = pooled(windows)
        scores = self.threshold.scores(takes, text)
        if not np.isfinite(scores).all():
            fail(row, "alignment", ValueError("the score is not finite"), self.run_id)
            return
        audio = self.audio
        problems = [problem(m, row["duration"], audio.duration, audio.checks) if m else None for m in measures]
        # A take that is not sound is kept only where none is.
        best = int(np.argmax(scores - np.array([1e3 if p else 0.0 for p in problems])))
        row["take"], row["alignment_score"], row["audio_embedding"] = best, float(scores[best]), takes[best].tolist()
        row["clap_score"], row["clap_score_min"] = float(takes[best] @ text), float((windows[best] @ text).min())
        kept = measures[best]
        row["signal"] = kept.to_dict() if kept else None
        if self.verifier:
            row["verified_aspects"], row["aspect_margins"] = self.verifier(takes[best], row["aspect_list"] or [])
        row["reason"] = self._reason(float(scores[best]), problems[best])
        row["status"] = schema.REJECTED if row["reason"] else schema.ACCEPTED
        if not row["reason"] or self.audio.keep_rejected_audio:
            row["audio"] = {"bytes": row["takes"][best], "path": f"{row['id']}.{self.audio.format}"}

    def _reason(self, score: float, unsound: tuple[str, str] | None) -> str | None:
        if unsound:
            return schema.reason("audio", *unsound)
        code = self.threshold.decide(score)
        return schema.reason("alignment", code) if code else None
