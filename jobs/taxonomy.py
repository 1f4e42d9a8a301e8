"""Annotations to training rows. Run with `python jobs/taxonomy.py -c CONFIG`, or by `ray job submit`."""

from conceptcaps.cli import job

if __name__ == "__main__":
    job("taxonomy")
