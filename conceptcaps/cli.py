"""The `conceptcaps` command: handlers, progress, exit codes. Every handler is a few lines over the package."""

from __future__ import annotations

import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from conceptcaps import __version__, environments
from conceptcaps.config import Config, load
from conceptcaps.config.load import load_tree
from conceptcaps.errors import InputError
from conceptcaps.lease import holder
from conceptcaps.logs import JsonFormatter
from conceptcaps.pipelines.drain import Drained, draining_on_sigterm
from conceptcaps.pipelines.stages import BY_NAME, default_stages, parse_stages, run_stages
from conceptcaps.rundir import Manifest, RunDir

app = typer.Typer(
    help="Make concept-labelled music datasets: tags, captions and audio that agree, on one laptop or a Ray cluster.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="Look at the configuration.", no_args_is_help=True)
app.add_typer(config_app, name="config")
env_app = typer.Typer(help="Environments for engines that cannot live with the others.", no_args_is_help=True)
app.add_typer(env_app, name="env")
console = Console(stderr=True)

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="YAML run, e.g. configs/demo.yaml. Default: the embedded settings."),
]
RunDirectory = Annotated[
    str | None, typer.Option("--run-dir", help="Where the run lives: a path, s3://, gs://. Running again continues it.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override one key, e.g. --set specs.num_samples=100. Repeatable.")
]
Stages = Annotated[str | None, typer.Option("--stages", help="Only these stages, comma-separated. Default: all.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars: plain log lines.")]


def main(program: typer.Typer = app) -> None:
    """Entry point: 0 done, 1 the work is at fault, 2 the input is."""
    try:
        program()
    except InputError as error:
        console.print("[bold red]error[/] ", end="")
        console.print(str(error), highlight=False, soft_wrap=True, markup=False)
        sys.exit(2)


def set_up_logging(quiet: bool, log_format: str = "text") -> None:
    """Handlers are set here; modules only log."""
    level = os.environ.get("CONCEPTCAPS_LOG", "INFO" if quiet else "WARNING")
    handler: logging.Handler = RichHandler(console=console, show_path=False)
    if log_format == "json":
        handler = logging.StreamHandler()
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(message)s", datefmt="[%X]"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("conceptcaps").setLevel(level)


def resolve(config_file: Path | None, run_dir: str | None, overrides: list[str] | None) -> Config:
    """The configuration of a command line."""
    config = load(config_file, overrides or ())
    return config.model_copy(update={"run_dir": run_dir}) if run_dir else config


def execute(config: Config, stages: tuple[str, ...], quiet: bool = False) -> RunDir:
    """Connect to the cluster and run stages: what every job and every stage command does."""
    from conceptcaps.runtime import connect

    set_up_logging(quiet, config.ray.log_format)
    where = config.run_dir or f"runs/{config.name}"
    try:
        with draining_on_sigterm(config.ray.grace_seconds):
            connect(config.ray, quiet)
            # Ray has put handlers of its own, for logs and for signals, in the place of ours.
            set_up_logging(quiet, config.ray.log_format)
            with draining_on_sigterm(config.ray.grace_seconds):
                return run_stages(config, stages, report=say)
    except Drained:
        left = rows_left(where)
        say(f"stopped as asked; {left} rows are left. Run it again to go on.")
        raise SystemExit(0) from None


def say(line: str) -> None:
    """A line for people."""
    console.print(line, highlight=False, soft_wrap=True, markup=False)


def rows_left(run_dir: str) -> int | str:
    """How many rows of a run are not made yet; '?' before its specs are there."""
    from conceptcaps import shards

    run = RunDir(run_dir)
    return shards.count_specs(run) - shards.count(run).rows if run.files("specs") else "all"


@app.command()
def run(
    config_file: ConfigFile = None,
    run_dir: RunDirectory = None,
    overrides: Overrides = None,
    stages: Stages = None,
    quiet: Quiet = False,
) -> None:
    """Run the whole job, from annotations to a labelled dataset; again, to continue where it stopped.

    `conceptcaps run -c configs/demo.yaml` needs nothing but a CPU.
    """
    config = resolve(config_file, run_dir, overrides)
    say_where(execute(config, chosen_stages(config, stages), quiet))


def chosen_stages(config: Config, stages: str | None) -> tuple[str, ...]:
    """The stages of a comma-separated list, in running order; all that the config calls for where there is none."""
    return parse_stages([name.strip() for name in stages.split(",")]) if stages else default_stages(config)


def say_where(made: RunDir) -> None:
    """The last lines of a run: where its results are."""
    for what, *place in (("dataset", "dataset"), ("report", "report", "index.html")):
        if made.exists(*place):
            typer.echo(f"{what}: {made.uri(*place)}")
    typer.echo(f"run: {made}")


def _stage_command(name: str) -> None:
    """Give a stage a command of its own."""

    def command(
        config_file: ConfigFile = None, run_dir: RunDirectory = None, overrides: Overrides = None, quiet: Quiet = False
    ) -> None:
        say_where(execute(resolve(config_file, run_dir, overrides), (name,), quiet))

    app.command(name, help=f"{BY_NAME[name].help}. A stage of `run`, alone.", rich_help_panel="Stages")(command)


for _name in BY_NAME:
    _stage_command(_name)


def job(*stages: str) -> None:
    """A job script: `python jobs/<stage>.py -c CONFIG [--run-dir DIR] [--set key=value]`; no stages means all."""

    def command(
        config_file: ConfigFile = None,
        run_dir: RunDirectory = None,
        overrides: Overrides = None,
        only: Stages = None,
        quiet: Quiet = True,
    ) -> None:
        config = resolve(config_file, run_dir, overrides)
        say_where(execute(config, chosen_stages(config, only) if only or not stages else stages, quiet))

    script = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    script.command()(command)
    main(script)


@app.command()
def retry(
    run_dir: Annotated[str, typer.Argument(help="The run directory.")],
    status: Annotated[str, typer.Option(help="How the rows ended that are tried again, comma-separated.")] = "failed",
    overrides: Overrides = None,
    quiet: Quiet = False,
) -> None:
    """Make rows again that failed or were rejected, with fresh seeds; earlier attempts stay in the run's history.

    Stages that depend on the rows follow. `--set` may change keys of speed and place only.
    """
    from conceptcaps.pipelines import reopen

    made = open_existing(run_dir)
    config = changed(reopen.config_of(made), overrides)
    attempt, rows = reopen.retry(made, [name.strip() for name in status.split(",") if name.strip()], config)
    if not rows:
        typer.echo(f"{made}: no row ended as {status}")
        return
    say(f"attempt {attempt}: {rows} rows are tried again")
    say_where(execute(config, reopen.stages_begun(made), quiet))


@app.command()
def extend(
    run_dir: Annotated[str, typer.Argument(help="The run directory.")],
    num_samples: Annotated[int, typer.Option(help="Rows that the run is to have in all.", min=1)],
    overrides: Overrides = None,
    quiet: Quiet = False,
) -> None:
    """Add rows to a run; those that it has keep their ids, content and splits."""
    from conceptcaps.pipelines import reopen

    made = open_existing(run_dir)
    config = reopen.extend(made, num_samples, changed(reopen.config_of(made), overrides))
    say_where(execute(config, reopen.stages_begun(made), quiet))


def changed(config: Config, overrides: list[str] | None) -> Config:
    """A run's own configuration with keys overridden; keys that would change what it makes are refused later."""
    return load_tree(config.model_dump(mode="json"), overrides or ())


@app.command()
def status(run_dir: Annotated[str, typer.Argument(help="The run directory.")]) -> None:
    """What a run has done and what is left; works from another shell while it runs."""
    from conceptcaps import shards

    made = open_existing(run_dir)
    manifest = Manifest(made)
    table = Table("stage", "state", "seconds", "facts")
    for name in BY_NAME:
        record = manifest.stage(name)
        counted = ", ".join(f"{k} {v}" for k, v in _plain(record.get("counts", {})).items())
        facts = record.get("error") or record.get("why") or counted
        table.add_row(name, record.get("state", "-"), str(record.get("seconds", "")), facts)
    Console().print(table)
    if held := holder(made):
        typer.echo(f"job: process {held['pid']} on {held['host']}, last seen {held['renewed']}")
    else:
        typer.echo("job: none is running")
    counts, wanted = shards.count(made), shards.count_specs(made)
    typer.echo(f"rows: {counts.to_dict() | {'left': wanted - counts.rows}}")
    if seconds := _seconds_of(manifest.stage("generate")):
        typer.echo(f"throughput: {counts.rows / seconds:.2f} rows/s")


def _seconds_of(record: dict[str, Any]) -> float:
    """How long a stage took, or has been running."""
    if record.get("state") == "running":
        return (datetime.now(UTC) - datetime.fromisoformat(record["started"])).total_seconds()
    return float(record.get("seconds", 0))


def _plain(counts: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in counts.items() if isinstance(value, int | float | str)}


@app.command()
def verify(run_dir: Annotated[str, typer.Argument(help="The run directory.")]) -> None:
    """Read every shard back: schema, unique ids, decodable audio, counts. Exit code 1 and the offender where not."""
    from conceptcaps.dataset.verify import verify as find_problems

    made = open_existing(run_dir)
    problems = 0
    for problem in find_problems(made):
        problems += 1
        typer.echo(f"bad: {problem}")
    if problems:
        raise typer.Exit(1)
    typer.echo(f"{made}: all is well")


def open_existing(run_dir: str) -> RunDir:
    """A run directory that holds a run.

    Raises:
        InputError: there is none at that place.
    """
    made = RunDir(run_dir)
    if not made.exists("manifest.json"):
        raise InputError(run_dir, "holds no run (no manifest.json)", "Give the --run-dir of a run that was started")
    return made


@app.command()
def doctor(config_file: ConfigFile = None, run_dir: RunDirectory = None, overrides: Overrides = None) -> None:
    """Look for what would stop a run, before any GPU is paid for: packages, storage, models, pools."""
    from conceptcaps.doctor import doctor as examine

    set_up_logging(quiet=False)
    problems = 0
    for finding in examine(resolve(config_file, run_dir, overrides)):
        typer.echo(str(finding))
        problems += finding.level == "problem"
    if problems:
        raise typer.Exit(1)


@app.command()
def plan(
    config_file: ConfigFile = None,
    overrides: Overrides = None,
    num_samples: Annotated[int | None, typer.Option(help="Rows to make. Default: specs.num_samples.")] = None,
    measured: Annotated[str | None, typer.Option(help="Take rates and sizes from this finished run.")] = None,
    rate: Annotated[
        list[str] | None,
        typer.Option(help="Seconds per row of one worker: audio=0.24, or audio=0.24+60 with start-up."),
    ] = None,
    gpu_hour: Annotated[float, typer.Option(help="Price of a GPU hour.")] = 0.0,
    cpu_hour: Annotated[float, typer.Option(help="Price of a CPU hour.")] = 0.0,
) -> None:
    """GPU hours, wall time, storage and money of a run; the pool that holds it up, and sizes that balance the pools."""
    from conceptcaps.planning.model import Prices
    from conceptcaps.planning.model import plan as make_plan
    from conceptcaps.planning.rates import measured_rates, stated_rates

    known = measured_rates(open_existing(measured)) if measured else None
    rates = stated_rates(rate or (), known)
    made = make_plan(load(config_file, overrides or ()), num_samples, rates=rates, prices=Prices(gpu_hour, cpu_hour))
    for label, text in made.lines():
        typer.echo(f"{label}: {text}")


@app.command("captions-eval")
def captions_eval(
    config_file: ConfigFile = None, run_dir: RunDirectory = None, overrides: Overrides = None, quiet: Quiet = False
) -> None:
    """Fine-tuned, base and zero-shot model, grammar and human captions side by side on the run's held-out rows."""
    from conceptcaps.pipelines.captions_eval import RESULTS, run_captions_eval, table_of
    from conceptcaps.runtime import connect

    config = resolve(config_file, run_dir, overrides)
    made = RunDir(config.run_dir or f"runs/{config.name}")
    set_up_logging(quiet)
    connect(config.ray, quiet)
    typer.echo(table_of(run_captions_eval(config, made)))
    typer.echo(f"results: {made.uri(*RESULTS)}")


@app.command()
def push(
    run_dir: Annotated[str, typer.Argument(help="The run directory.")],
    repo: Annotated[str, typer.Argument(help="owner/name on the Hugging Face hub.")],
    public: Annotated[bool, typer.Option("--public", help="Make the repository public; private otherwise.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Upload a finished dataset to the hub; an interrupted upload goes on where it stopped."""
    from conceptcaps.dataset.push import push as upload

    typer.echo(str(upload(open_existing(run_dir), repo, private=not public, dry_run=dry_run)))


@app.command("tcav-benchmark")
def tcav_benchmark(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer and smaller networks, a few minutes.")] = False,
    output: Annotated[Path | None, typer.Option(help="Write everything measured to this JSON file.")] = None,
) -> None:
    """Does TCAV find what a classifier really uses? On networks whose true attributes are known by intervention."""
    import json

    from conceptcaps.config.ray import RayConfig
    from conceptcaps.pipelines.tcav_benchmark import QUICK, run_benchmark, table_of
    from conceptcaps.runtime import connect

    connect(RayConfig(), quiet=True)
    found = run_benchmark(**QUICK if quick else {})
    header, lines = table_of(found)
    table = Table(*header)
    for line in lines:
        table.add_row(*line)
    Console().print(table)
    for name, flagged in found["placebo_flagged"].items():
        typer.echo(f"placebo tags flagged by {name}: {flagged['share']:.2%}")
    for name, agreement in found["agreement_with_interventions"].items():
        for method, values in agreement.items():
            typer.echo(f"{name}, {method}: Pearson {values['pearson']:.3f}, slope {values['slope']:.3f}")
    if output:
        output.write_text(json.dumps(found, indent=2) + "\n")


@env_app.command("build")
def env_build(
    name: Annotated[str, typer.Argument(help="Which: " + ", ".join(environments.NAMES))],
    folder: Annotated[Path | None, typer.Argument(help="Where. Default: .envs/NAME")] = None,
) -> None:
    """Make an environment from its lock file, and print the interpreter to set as `resources.python`."""
    typer.echo(environments.build(name, (folder or Path(".envs") / name).absolute()))


@config_app.command("show")
def config_show(config_file: ConfigFile = None, overrides: Overrides = None) -> None:
    """The resolved configuration: every key with the value a run would use."""
    typer.echo(yaml.safe_dump(load(config_file, overrides or ()).model_dump(mode="json"), sort_keys=False), nl=False)


@app.command()
def version() -> None:
    """The version of this package."""
    typer.echo(__version__)


if __name__ == "__main__":
    main()
