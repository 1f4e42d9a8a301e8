"""The whole configuration of a run."""

from __future__ import annotations

from pydantic import Field

from conceptcaps.config.alignment import AlignmentConfig
from conceptcaps.config.audio import AudioConfig
from conceptcaps.config.base import Section, speed_key
from conceptcaps.config.captions import CaptionsConfig
from conceptcaps.config.comparison import ComparisonConfig
from conceptcaps.config.dataset import DatasetConfig
from conceptcaps.config.evaluation import EvaluationConfig
from conceptcaps.config.lora import LoraConfig
from conceptcaps.config.quality import QualityConfig
from conceptcaps.config.ray import RayConfig
from conceptcaps.config.report import ReportConfig
from conceptcaps.config.specs import SpecsConfig
from conceptcaps.config.taxonomy import TaxonomyConfig
from conceptcaps.config.tcav import TcavConfig
from conceptcaps.config.vae import VaeConfig


class Config(Section):
    """A complete run: one section per stage, and the Ray cluster that it runs on."""

    name: str = Field("conceptcaps", description="Name of the run and of the dataset it makes")
    seed: int = Field(0, description="Everything random in the run derives from this", ge=0)
    run_dir: str | None = speed_key(None, "Local path or URI (s3://, gs://) of the run; null: runs/<name>")
    ray: RayConfig = Field(default_factory=RayConfig, description="The cluster and how rows travel on it")
    taxonomy: TaxonomyConfig = Field(default_factory=TaxonomyConfig, description="Annotations to a vocabulary")
    vae: VaeConfig = Field(default_factory=VaeConfig, description="The model of tag sets")
    specs: SpecsConfig = Field(default_factory=SpecsConfig, description="Sampling of new tag sets")
    comparison: ComparisonConfig = Field(default_factory=ComparisonConfig, description="Sampled sets against real ones")
    captions: CaptionsConfig = Field(default_factory=CaptionsConfig, description="Tags to captions")
    lora: LoraConfig = Field(default_factory=LoraConfig, description="Fitting the captioner's adapter")
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig, description="Measuring captions")
    audio: AudioConfig = Field(default_factory=AudioConfig, description="Captions to audio")
    alignment: AlignmentConfig = Field(default_factory=AlignmentConfig, description="Scoring and filtering audio")
    quality: QualityConfig = Field(default_factory=QualityConfig, description="Measures of the audio")
    dataset: DatasetConfig = Field(default_factory=DatasetConfig, description="Shards to the finished dataset")
    report: ReportConfig = Field(default_factory=ReportConfig, description="The page to read before publishing")
    tcav: TcavConfig = Field(default_factory=TcavConfig, description="What a music classifier has learned")
