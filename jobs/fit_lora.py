"""Fit the captioner's LoRA adapter. Run with `python jobs/fit_lora.py -c CONFIG`, or by `ray job submit`."""

from conceptcaps.cli import job

if __name__ == "__main__":
    job("lora")
