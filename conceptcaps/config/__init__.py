"""Every key of a run: one typed model per section, defaults and descriptions in the models and nowhere else."""

from conceptcaps.config.load import load, output_settings
from conceptcaps.config.root import Config

__all__ = ["Config", "load", "output_settings"]
