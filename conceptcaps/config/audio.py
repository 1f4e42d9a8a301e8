"""Section `audio`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from conceptcaps.config.base import Resources, Section, speed_key
from conceptcaps.config.quality import SignalChecksConfig
from conceptcaps.signal import AudioFormat


class MusicgenConfig(Section):
    """The checkpoint of engines `musicgen` and `audiocraft`, and how it samples (Copet et al. 2023)."""

    model: str = Field(
        "facebook/musicgen-small", description="Hub id or local path of a transformers MusicGen checkpoint"
    )
    revision: str | None = Field(None, description="Branch, tag or commit on the hub")
    dtype: Literal["float32", "float16", "bfloat16"] = Field("float32", description="Decoder weights and activations")
    guidance_scale: float = Field(3.0, description="Classifier-free guidance; 1 is none", ge=1)
    top_k: int = Field(250, description="Sample among this many tokens; 0: all", ge=0)
    top_p: float = Field(0.0, description="Nucleus sampling instead of top-k where positive", ge=0, le=1)
    temperature: float = Field(1.0, description="Logits are divided by this", gt=0)
    window: float = Field(30.0, description="Seconds decoded in one go; longer clips continue window by window", gt=0)
    extend_stride: float = Field(18.0, description="Seconds between the starts of two windows", gt=0)
    clips_at_once: int | None = speed_key(None, "Clips decoded together (null: as many as free memory holds)", ge=1)

    @model_validator(mode="after")
    def _windows_overlap(self) -> MusicgenConfig:
        if self.extend_stride > self.window:
            raise ValueError(f"extend_stride is {self.extend_stride} s, longer than window, {self.window} s")
        return self


class AudioConfig(Section):
    """Captions to audio."""

    engine: Literal["musicgen", "audiocraft", "procedural"] = Field(
        "procedural", description="The synthesiser; 'audiocraft' needs resources.python (`conceptcaps env build`)"
    )
    musicgen: MusicgenConfig = Field(MusicgenConfig(), description="Settings of engines `musicgen` and `audiocraft`")
    duration: float = Field(10.0, description="Length of a clip in seconds", gt=0, le=300)
    format: AudioFormat = Field("flac", description="How audio is encoded in the shards")
    candidates: int = Field(1, description="Takes per caption; the best aligned is kept", ge=1)
    rounds: int = Field(1, description="Passes: rows rejected in one are made again with fresh seeds in the next", ge=1)
    checks: SignalChecksConfig = Field(SignalChecksConfig(), description="Checks of the waveform")
    keep_rejected_audio: bool = Field(False, description="Write the audio of rejected rows too")
    resources: Resources = Field(Resources(), description="Synthesis workers; each loads the model once")
