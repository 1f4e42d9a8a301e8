"""Sample new tag sets. Run with `python jobs/sample_specs.py -c CONFIG`, or by `ray job submit`."""

from conceptcaps.cli import job

if __name__ == "__main__":
    job("specs")
