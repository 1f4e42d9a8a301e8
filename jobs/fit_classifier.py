"""Fit the genre classifier alone. Run with `python jobs/fit_classifier.py -c CONFIG`, or by `ray job submit`."""

import typer

from conceptcaps.cli import ConfigFile, Overrides, RunDirectory, main, resolve
from conceptcaps.pipelines.tcav import run_classifier
from conceptcaps.rundir import RunDir
from conceptcaps.runtime import connect

script = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@script.command()
def fit(config_file: ConfigFile = None, run_dir: RunDirectory = None, overrides: Overrides = None) -> None:
    """Fit the classifier on `tcav.clips` and print its last epoch."""
    config = resolve(config_file, run_dir, overrides)
    connect(config.ray)
    typer.echo(run_classifier(config, RunDir(config.run_dir or f"runs/{config.name}")))


if __name__ == "__main__":
    main(script)
