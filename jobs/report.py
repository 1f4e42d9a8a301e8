"""The page to read before publishing. Run with `python jobs/report.py -c CONFIG`, or by `ray job submit`."""

from conceptcaps.cli import job

if __name__ == "__main__":
    job("report")
