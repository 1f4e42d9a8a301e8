"""Engine `musicgen`: any transformers MusicGen checkpoint (Copet et al. 2023), decoded by our own loop."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from conceptcaps.audio.checkpoint import MAX_TEXT_TOKENS, load_checkpoint, load_tokenizer
from conceptcaps.audio.decoding import Decoder, Window
from conceptcaps.audio.delay import delays
from conceptcaps.audio.encodec import Codec
from conceptcaps.audio.sampling import Sampling
from conceptcaps.audio.transformer import Transformer
from conceptcaps.config.audio import AudioConfig, MusicgenConfig
from conceptcaps.devices import device_for, device_memory, is_out_of_memory
from conceptcaps.engines import Batch
from conceptcaps.errors import InputError

logger = logging.getLogger(__name__)

_MEMORY_SHARE = 0.8  # of what is free; the rest is for EnCodec and for what the allocator cannot reuse


class MusicgenSynthesiser:
    """Captions to audio with a MusicGen checkpoint.

    Reads the columns `caption` and `seed`. Every clip has exactly `round(duration * sampling_rate)` samples, and
    depends on its own caption and seed only: bit for bit on a CPU in float32, within its kernels' rounding on a GPU.

    Args:
        config: section `audio`.

    Raises:
        InputError: no checkpoint there, another architecture, a hub out of reach, a clip without a sample.
    """

    sampling_rate: int

    def __init__(self, config: AudioConfig):
        settings = config.musicgen
        device = device_for(config.resources, "audio.resources")
        model = load_checkpoint(settings)
        channels = model.config.decoder.audio_channels
        self._tokenizer = load_tokenizer(settings)
        self._text = model.text_encoder.float().to(device).eval()
        self._projection = model.enc_to_dec_proj.float().to(device) if hasattr(model, "enc_to_dec_proj") else None
        self._codec = Codec(model.audio_encoder, channels, device)
        transformer = Transformer(model.decoder.to(device, getattr(torch, settings.dtype)).eval())
        self._device = device
        self.sampling_rate = self._codec.sampling_rate
        self._num_samples = round(config.duration * self.sampling_rate)
        if self._num_samples < 1:
            raise InputError("key 'audio.duration'", f"{config.duration} s holds no sample", "Make clips longer")
        sampling = Sampling(settings.guidance_scale, settings.top_k, settings.top_p, settings.temperature)
        longest = transformer.max_columns - max(delays(transformer.num_codebooks, channels))
        window = _window(settings, self._codec, longest)
        self._decoder = Decoder(transformer, sampling, channels, window)
        self._clips_at_once = settings.clips_at_once
        self._gpu_share = config.resources.num_gpus

    def __call__(self, batch: Batch) -> list[np.ndarray]:
        """One float32 (channels, samples) waveform in [-1, 1] per row.

        Raises:
            FloatingPointError: the decoder's numbers overflowed, as float16 can; names the rows.
            torch.OutOfMemoryError: not even one clip fits.
        """
        captions, seeds = batch["caption"], batch["seed"]
        waveforms: list[Tensor] = []
        # Reckoned once: later on, what decoding holds looks as if others had taken it.
        self._clips_at_once = self._clips_at_once or self._clips_that_fit()
        while len(waveforms) < len(captions):
            rows = slice(len(waveforms), len(waveforms) + self._clips_at_once)
            made = self._try(captions[rows], seeds[rows])
            if made is None:
                self._halve(len(captions[rows]))
            else:
                waveforms += made
        self._codec.finish()
        return [waveform.cpu().numpy() for waveform in waveforms]

    def _try(self, captions: list[str], seeds: list[int]) -> list[Tensor] | None:
        """The clips; None where several were too many for the memory."""
        try:
            return self._synthesise(captions, seeds)
        except RuntimeError as error:
            if not is_out_of_memory(error) or len(captions) == 1:
                raise
        return None

    def _halve(self, tried: int) -> None:
        """Decode fewer than `tried` clips at once from now on."""
        self._clips_at_once = self._decoder.clips_within(max(1, tried // 2))
        self._decoder.release()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        logger.warning("%d clips at once do not fit in memory; going on with %d", tried, self._clips_at_once)

    def _synthesise(self, captions: list[str], seeds: list[int]) -> list[Tensor]:
        states, mask = self.encode_text(captions)
        rows = torch.tensor(seeds, dtype=torch.int64, device=self._device)
        num_frames = self._codec.num_frames(self._num_samples)
        codes, finite = self._decoder.generate(states, mask, rows, num_frames)
        if not bool(finite.all()):
            self._decoder.clean()
            lost = [seed for seed, fine in zip(seeds, finite.tolist(), strict=True) if not fine]
            raise FloatingPointError(f"logits are not finite in the rows with seed {lost}")
        # Not copied to the host yet: on a GPU the next clips' codes are decoded meanwhile.
        return list(self._codec.decode(codes, self._num_samples))

    @torch.inference_mode()
    def encode_text(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """float32 (B, S, E) states in the decoder's width and bool (B, S), true where there is text."""
        together = 1 if self._device.type == "cpu" else len(captions)
        parts = [self._encode_part(captions[i : i + together]) for i in range(0, len(captions), together)]
        longest = max(mask.shape[1] for _, mask in parts)
        pad = torch.nn.functional.pad
        states = torch.cat([pad(states, (0, 0, 0, longest - states.shape[1])) for states, _ in parts])
        return states, torch.cat([pad(mask, (0, longest - mask.shape[1])) for _, mask in parts])

    def _encode_part(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        tokens = self._tokenizer(
            captions, padding=True, truncation=True, max_length=MAX_TEXT_TOKENS, return_tensors="pt"
        ).to(self._device)
        states = self._text(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
        if self._projection is not None:
            states = self._projection(states)
        mask = tokens.attention_mask.bool()
        return states * mask[..., None], mask

    def _clips_that_fit(self) -> int:
        """Clips whose keys and values fit in the free memory of the device."""
        each = self._decoder.bytes_per_clip(self._codec.num_frames(self._num_samples))
        return self._decoder.clips_within(int(_MEMORY_SHARE * _free_bytes(self._device, self._gpu_share) / each))


def _window(settings: MusicgenConfig, codec: Codec, longest: int) -> Window:
    """The windows in frames: as configured, and never beyond the positions that the checkpoint has."""
    frame_rate = codec.sampling_rate / codec.hop_length
    frames = max(1, min(round(settings.window * frame_rate), longest))
    stride = max(1, min(round(settings.extend_stride * frame_rate), frames))
    return Window(frames, stride)


def _free_bytes(device: torch.device, share: float) -> int:
    if device.type == "cuda":
        return device_memory(device, share)
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
