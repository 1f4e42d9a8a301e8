"""Captions, audio and scores, streamed into shards. `python jobs/generate.py -c CONFIG`, or by `ray job submit`."""

from conceptcaps.cli import job

if __name__ == "__main__":
    job("generate")
