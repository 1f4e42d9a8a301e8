"""Shards to train, validation and test. Run with `python jobs/dataset.py -c CONFIG`, or by `ray job submit`."""

from conceptcaps.cli import job

if __name__ == "__main__":
    job("dataset")
