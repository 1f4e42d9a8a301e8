"""MusicGen's decoding loop: delay pattern, guidance, a seed per row, and long clips window by window.

On a CPU every step attends to exactly the columns so far. On a GPU a step is one recorded CUDA graph per (clips, text
length, columns attended to), the last two rounded up, and nothing between two steps waits for the device. Both are the
same function: only the type of `position` and the length of the attention differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from conceptcaps.audio import delay
from conceptcaps.audio.sampling import Sampling, guide, row_keys, sample
from conceptcaps.audio.transformer import Cache, Position, Text, Transformer, put, take

TEXT_MULTIPLE = 32  # text lengths are rounded up to this, so that few shapes occur
_PREFILL_COLUMNS = 64
_LENGTH_MULTIPLE = 128
_WARM_UP_STEPS = 2
_MOST_RECORDINGS = 8
_USUAL_TEXT_TOKENS = 64  # of the longest caption of a batch, for the estimate of memory


@dataclass(frozen=True)
class Window:
    """Clips longer than `frames` continue in windows that start `stride` frames apart (audiocraft's extend stride)."""

    frames: int
    stride: int


@dataclass
class _Run:
    """One batch on its way through one window."""

    columns: Tensor  # int64 (B, K, columns)
    keys: Tensor  # int64 (columns, B, K)
    cache: Cache
    text: Text
    finite: Tensor  # bool (B,)


class Decoder:
    """Captions' states to codes.

    Args:
        transformer: the decoder network.
        sampling: how tokens are drawn.
        num_channels: 2 where the codebooks of left and right are interleaved, else 1.
        window: how many frames are decoded at once, and how far apart windows start.
        recorded: record steps as CUDA graphs; None: where the device is a GPU. On another device the steps of the
            graph run one by one, which is slow and tells whether they are right.
    """

    def __init__(
        self,
        transformer: Transformer,
        sampling: Sampling,
        num_channels: int,
        window: Window,
        recorded: bool | None = None,
    ):
        self._transformer, self._sampling, self._window = transformer, sampling, window
        self._delay = delay.delays(transformer.num_codebooks, num_channels)
        self._guided = sampling.guidance_scale > 1
        self._recorded = transformer.device.type == "cuda" if recorded is None else recorded
        self._cache: Cache | None = None
        self._text: Text | None = None
        self._recordings: dict[tuple[int, int], _Recording] = {}
        self._capture: tuple[torch.cuda.Stream, Any] | None = None

    def bytes_per_clip(self, num_frames: int) -> int:
        """Memory that decoding takes for each clip of a batch: keys and values, of the text too, and the logits'."""
        columns = self._columns(min(num_frames, self._window.frames))
        logits = (1 + self._guided) * self._transformer.num_codebooks * self._transformer.vocab_size * 4
        text = (1 + self._recorded) * self._transformer.text_bytes(_USUAL_TEXT_TOKENS)
        return self._transformer.cache_bytes(columns, self._guided) + text + 8 * logits

    def clips_within(self, most: int) -> int:
        """The most clips, at least 1, that are decoded as no more than `most`; see `_rows`."""
        return next((n for n in range(most, 0, -1) if self._rows(n) <= most), 1)

    @torch.inference_mode()
    def generate(self, states: Tensor, mask: Tensor, seeds: Tensor, num_frames: int) -> tuple[Tensor, Tensor]:
        """Decode a batch.

        Args:
            states: (B, S, E) encoded captions in the decoder's width, zero where `mask` is false.
            mask: bool (B, S), true where there is text; each row has some.
            seeds: int64 (B,), one per clip.
            num_frames: frames of every clip.

        Returns:
            int64 (B, K, num_frames) codes, and bool (B,): whether the clip's logits were finite at every step.
        """
        num_clips = len(seeds)
        states, mask, seeds = _fill(states, mask, seeds, self._rows(num_clips))
        text = self._transformer.read(states.to(self._transformer.dtype), mask)
        codes = seeds.new_empty((len(seeds), self._transformer.num_codebooks, 0))
        finite = torch.ones_like(seeds, dtype=torch.bool)
        while codes.shape[2] < num_frames:
            known = codes[:, :, codes.shape[2] - self._overlap(codes.shape[2]) :]
            first = codes.shape[2] - known.shape[2]
            total = min(num_frames - first, self._window.frames)
            window, healthy = self._decode_window(known, total, first, text, seeds)
            codes = torch.cat([codes, window[:, :, known.shape[2] :]], 2)
            finite &= healthy
        return codes[:num_clips], finite[:num_clips]

    def _overlap(self, num_known: int) -> int:
        return min(num_known, self._window.frames - self._window.stride)

    def _rows(self, num_clips: int) -> int:
        """Clips decoded, some of them idle: powers of two up to 8, then multiples of 8, where shapes are recorded.

        At least 2 elsewhere: oneDNN and BLAS take another path, with other bits, for a single row.
        """
        if not self._recorded:
            return max(num_clips, 2)
        return 1 << (num_clips - 1).bit_length() if num_clips <= 8 else -(-num_clips // 8) * 8

    def _columns(self, num_frames: int) -> int:
        columns = delay.num_columns(num_frames, self._delay)
        return -(-columns // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE if self._recorded else columns

    def _decode_window(
        self, known: Tensor, num_frames: int, first: int, text: Text, seeds: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Codes (B, K, num_frames) of the window that starts at frame `first` and whose first frames are known."""
        batch = len(seeds)
        columns = delay.to_columns(known, num_frames, self._delay, self._transformer.vocab_size)
        frames = delay.frames_of_columns(columns.shape[2], self._delay, columns.device) + first
        keys = row_keys(seeds, frames, self._transformer.num_codebooks)
        cache = self._allocate(batch, self._columns(num_frames))
        run = _Run(columns, keys, cache, text, torch.ones_like(seeds, dtype=torch.bool))
        start, stop = known.shape[2], columns.shape[2] - 1
        self._prefill(run, start)
        if self._recorded:
            self._recording(run).decode(run, start, stop)
        else:
            for position in range(start, stop):
                self.step(run, position, position + 1)
        return delay.to_codes(run.columns, num_frames, self._delay), run.finite

    def _prefill(self, run: _Run, stop: int) -> None:
        """Read the columns before `stop` into the cache, many at once."""
        for position in range(0, stop, _PREFILL_COLUMNS):
            tokens = run.columns[:, :, position : min(position + _PREFILL_COLUMNS, stop)]
            length = position + tokens.shape[2]
            self._transformer.step(tokens, position, length, run.cache, run.text, self._guided)

    def step(self, run: _Run, position: Position, length: int) -> None:
        """Read the column at `position` and write the next: no branch depends on a value on the device."""
        tokens = take(run.columns, 2, position)
        logits = self._transformer.step(tokens, position, length, run.cache, run.text, self._guided).float()
        if self._guided:
            logits = guide(logits, self._sampling.guidance_scale)
        drawn = sample(logits, take(run.keys, 0, position + 1)[0], self._sampling)[..., None]
        following = take(run.columns, 2, position + 1)
        put(run.columns, 2, position + 1, torch.where(following == delay.UNKNOWN, drawn, following))
        run.finite &= torch.isfinite(logits.sum((1, 2)))

    def _allocate(self, batch: int, columns: int) -> Cache:
        """A view of the one cache, made anew only where it is too small; recordings hold views of it too."""
        cache = self._cache
        if cache is None or cache.keys[0].shape[0] < batch or cache.keys[0].shape[2] < columns:
            self.release()
            self._cache = cache = self._transformer.new_cache(batch, columns, self._guided)
        return Cache(*([x[: self._cache_rows(layer, batch)] for layer, x in enumerate(side)] for side in _sides(cache)))

    def _cache_rows(self, layer: int, batch: int) -> int:
        return batch if layer == 0 else batch * (1 + self._guided)

    def _recording(self, run: _Run) -> _Recording:
        key = (run.columns.shape[0], run.text.mask.shape[-1])
        recording = self._recordings.get(key)
        if recording is None or recording.too_short(run):
            if recording is not None or len(self._recordings) == _MOST_RECORDINGS:
                self._forget_recordings()
            recording = _Recording(self, run, self._text_buffers(run.text))
            self._recordings[key] = recording
        return recording

    def _text_buffers(self, text: Text) -> Text:
        """Views, of the shapes of `text`, of the one place that all recordings read their text from."""
        rows, tokens = text.mask.shape[0], text.mask.shape[-1]
        own = self._text
        if own is None or own.mask.shape[0] < rows or own.mask.shape[-1] < tokens:
            most = (rows, tokens) if own is None else (max(rows, len(own.mask)), max(tokens, own.mask.shape[-1]))
            self._forget_recordings()
            self._text = None
            self._text = own = self._transformer.new_text(*most)
        keys, values = ([x[:rows, :, :tokens] for x in side] for side in (own.keys, own.values))
        return Text(keys, values, own.mask[:rows, ..., :tokens])

    def capture(self) -> tuple[torch.cuda.Stream, Any]:
        """The stream and the memory that all graphs are recorded on: nothing in it outlives a replay."""
        if self._capture is None:
            self._capture = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
        return self._capture

    def _forget_recordings(self) -> None:
        # All at once, with their memory: a pool whose graphs are gone cannot be recorded into again.
        self._recordings.clear()
        self._capture = None

    @torch.inference_mode()
    def clean(self) -> None:
        """Forget the keys and values of a clip whose numbers overflowed.

        A recorded step masks the columns that are still to come, and adds minus infinity to whatever they hold: not a
        number remains not a number, for this clip and for every later one in its place.
        """
        for x in chain(*_sides(self._cache)) if self._cache else ():
            x.zero_()

    def release(self) -> None:
        """Give the cache and the recordings back."""
        self._forget_recordings()
        self._cache = self._text = None


class _Recording:
    """The steps of one batch shape, recorded on buffers of their own that each run is copied into."""

    def __init__(self, decoder: Decoder, run: _Run, text: Text):
        self._decoder = decoder
        self._run = _Run(run.columns.clone(), run.keys.clone(), run.cache, text, run.finite.clone())
        self._position = torch.zeros(1, dtype=torch.int64, device=run.columns.device)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def too_short(self, run: _Run) -> bool:
        return self._run.columns.shape[2] < run.columns.shape[2]

    def decode(self, run: _Run, start: int, stop: int) -> None:
        """Decode columns start + 1 to `stop` of `run`."""
        for mine, theirs in self._buffers(run):
            mine.copy_(theirs)
        self._position.fill_(start)
        for position in range(start, stop):
            self._replay(-(-(position + 1) // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE)
        run.columns.copy_(self._run.columns[:, :, : run.columns.shape[2]])
        run.finite.copy_(self._run.finite)

    def _buffers(self, run: _Run) -> Iterator[tuple[Tensor, Tensor]]:
        columns = run.columns.shape[2]
        yield self._run.columns[:, :, :columns], run.columns
        yield self._run.keys[:columns], run.keys
        yield self._run.finite, run.finite
        yield self._run.text.mask, run.text.mask
        yield from zip(self._run.text.keys, run.text.keys, strict=True)
        yield from zip(self._run.text.values, run.text.values, strict=True)

    def _replay(self, length: int) -> None:
        if self._position.device.type != "cuda":
            self._advance(length)
            return
        if length not in self._graphs:
            self._graphs[length] = self._record(length)
        self._graphs[length].replay()

    def _advance(self, length: int) -> None:
        self._decoder.step(self._run, self._position, length)
        self._position += 1

    def _record(self, length: int) -> torch.cuda.CUDAGraph:
        """Record one step. The steps that warm it up write what the replay then writes again."""
        stream, memory = self._decoder.capture()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_STEPS):
                self._decoder.step(self._run, self._position, length)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=memory, stream=stream):
            self._advance(length)
        return graph


def _sides(cache: Cache) -> tuple[list[Tensor], list[Tensor]]:
    return cache.keys, cache.values


def _fill(states: Tensor, mask: Tensor, seeds: Tensor, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pad a batch to `rows` clips, and its text to a multiple of `TEXT_MULTIPLE` tokens, as little as that needs."""
    idle = rows - len(seeds)
    tokens = -(-states.shape[1] // TEXT_MULTIPLE) * TEXT_MULTIPLE - states.shape[1]
    states = torch.nn.functional.pad(states, (0, 0, 0, tokens, 0, idle))
    mask = torch.nn.functional.pad(mask, (0, tokens, 0, idle))
    mask[len(seeds) :, 0] = True  # an idle row attends to something, and is thrown away
    return states, mask, torch.nn.functional.pad(seeds, (0, idle))
