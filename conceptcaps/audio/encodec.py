"""EnCodec's decoder (Defossez et al. 2022): codes to waveforms, in chunks that bound its memory."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from conceptcaps.devices import is_out_of_memory

logger = logging.getLogger(__name__)

_CHUNK_SECONDS = 240.0  # about 40 MB of a GPU's memory each at MusicGen's 32 kHz
_PADDING_SIZES = ("stride", "kernel_size", "padding_total")


class Codec:
    """The audio side of a MusicGen checkpoint.

    Args:
        model: a transformers `EncodecModel` on the CPU; it is moved.
        num_channels: channels of the clips; the codebooks of two are interleaved, left first.
        device: where to decode.
    """

    def __init__(self, model: Any, num_channels: int, device: torch.device):
        self._model, self._num_channels = _move(model.float().eval(), device), num_channels
        self._chunk_seconds = _CHUNK_SECONDS
        self._stream = torch.cuda.Stream() if device.type == "cuda" else None
        self.sampling_rate: int = model.config.sampling_rate
        self.hop_length: int = model.config.hop_length
        for module in model.modules():
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight")

    def num_frames(self, num_samples: int) -> int:
        """Fewest frames that hold `num_samples` samples."""
        return -(-num_samples // self.hop_length)

    @torch.inference_mode()
    def decode(self, codes: Tensor, num_samples: int) -> Tensor:
        """float32 (batch, channels, num_samples) in [-1, 1] from int64 (batch, codebooks, frames).

        Samples beyond full scale are clipped, as audiocraft does when it writes a file. On a GPU the work goes on
        beside what the caller launches next, and the result may be read after `finish`.
        """
        if self._stream is None:
            return self._decode(codes, num_samples)
        self._stream.wait_stream(torch.cuda.current_stream())
        codes.record_stream(self._stream)
        with torch.cuda.stream(self._stream):
            return self._decode(codes, num_samples)

    def finish(self) -> None:
        """Wait for what `decode` has begun."""
        if self._stream is not None:
            self._stream.synchronize()

    def _decode(self, codes: Tensor, num_samples: int) -> Tensor:
        tracks = torch.cat([codes[:, side :: self._num_channels] for side in range(self._num_channels)])
        audio = self._try(tracks)
        while audio is None:
            self._chunk_seconds /= 2
            logger.warning("EnCodec's chunks do not fit in memory; going on with %.0f s", self._chunk_seconds)
            audio = self._try(tracks)
        return torch.cat(audio.chunk(self._num_channels), 1)[..., :num_samples].clamp(-1, 1)

    def _try(self, tracks: Tensor) -> Tensor | None:
        """The tracks' audio; None where several at once were too many for the memory."""
        chunk = self._chunk(tracks.shape[2])
        try:
            return torch.cat([self._model.decode(part[None], [None]).audio_values for part in tracks.split(chunk)])
        except RuntimeError as error:
            if not is_out_of_memory(error) or chunk == 1:
                raise
        return None

    def _chunk(self, num_frames: int) -> int:
        """Tracks decoded together: one on a CPU, where a track's bits must not depend on its neighbours."""
        if self._model.device.type == "cpu":
            return 1
        return max(1, int(self._chunk_seconds * self.sampling_rate / self.hop_length / num_frames))


def _move(model: Any, device: torch.device) -> Any:
    """The model on `device`, but for what its convolutions reckon their padding from: numbers that transformers keeps
    as buffers, and that every convolution would wait to read back from a GPU."""
    sizes = [
        (module, name, buffer)
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
        if name in _PADDING_SIZES
    ]
    model = model.to(device)
    for module, name, buffer in sizes:
        setattr(module, name, buffer)
    return model
