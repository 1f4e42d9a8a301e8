"""Sampled tag sets against real ones. Run with `python jobs/compare.py -c CONFIG`, or by `ray job submit`."""

from conceptcaps.cli import job

if __name__ == "__main__":
    job("comparison")
