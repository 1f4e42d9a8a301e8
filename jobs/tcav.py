"""What a music classifier has learned. Run with `python jobs/tcav.py -c CONFIG`, or by `ray job submit`."""

from conceptcaps.cli import job

if __name__ == "__main__":
    job("tcav")
