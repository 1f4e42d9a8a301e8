"""Fit the model of tag sets. Run with `python jobs/fit_vae.py -c CONFIG`, or by `ray job submit`."""

from conceptcaps.cli import job

if __name__ == "__main__":
    job("vae")
