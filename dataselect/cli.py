"""The command line: verbs, their options, exit codes. Results to stdout, progress and errors to stderr."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from dataselect import __version__
from dataselect.core.errors import DataselectError, RecipeError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RecipeArgument = Annotated[Path, typer.Argument(help="the recipe, a YAML file", show_default=False)]
SetOption = Annotated[
    list[str], typer.Option("--set", metavar="a.b=value", help="override a value of the recipe")
]
JsonOption = Annotated[bool, typer.Option("--json", help="print the result as JSON")]
RehashOption = Annotated[bool, typer.Option("--rehash", help="read every shard again; trust no size or time")]


def _version(value: bool) -> None:
    if value:
        print(f"dataselect {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Select the part of a text corpus worth training a language model on.

    Exit codes: 0 done, 1 failed, 2 bad recipe or usage, 3 an `expect:` guard failed, 4 locked by another run.
    """


@app.command()
def run(
    recipe: RecipeArgument,
    workers: Annotated[
        int | None, typer.Option(min=1, help="processes; by default one a CPU", show_default=False)
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            help="local: processes of this machine; ray: a Ray cluster (pip install dataselect[ray])"
        ),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            help="of the Ray cluster; else RAY_ADDRESS, one on this machine, or a new one", show_default=False
        ),
    ] = None,
    sets: SetOption = [],
    as_json: JsonOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only print the plan")] = False,
    sample: Annotated[
        str | None, typer.Option(metavar="SHARE", help="run on a hash sample such as 1%; publishes nothing")
    ] = None,
    rehash: RehashOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress")] = False,
    with_profile: Annotated[
        bool, typer.Option("--profile", help="show where the time went, by phase and part")
    ] = False,
) -> None:
    """Run a recipe: read, filter, dedup, score, select, write. Does only what changed since the last run."""
    if dry_run:
        plan(recipe, sets, as_json, rehash)
        return
    from dataselect import runner
    from dataselect.report import funnel, profile
    from dataselect.report.progress import Progress

    share = None if sample is None else _share(sample)
    listener = Progress(quiet=quiet)
    report = runner.run(
        recipe,
        workers=workers,
        sets=sets,
        sample=share,
        rehash=rehash,
        engine=engine,
        address=address,
        listener=listener,
    )
    _print(report, as_json, funnel.render)
    if with_profile:
        print(profile.render(report), file=sys.stderr if as_json else sys.stdout)


@app.command()
def worker(
    recipe: RecipeArgument,
    workers: Annotated[
        int | None, typer.Option(min=1, help="processes; by default one a CPU", show_default=False)
    ] = None,
    sets: SetOption = [],
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress")] = False,
) -> None:
    """Join the run of a recipe with every other `worker` that shares its file system: Slurm, plain ssh.

    Start any number, at any time. All of them end when the result is published.
    """
    from dataselect import runner
    from dataselect.report import funnel
    from dataselect.report.progress import Progress

    listener = Progress(quiet=quiet)
    report = runner.run(recipe, workers=workers, sets=sets, engine="shared", listener=listener)
    _print(report, as_json, funnel.render)


@app.command()
def plan(
    recipe: RecipeArgument, sets: SetOption = [], as_json: JsonOption = False, rehash: RehashOption = False
) -> None:
    """Show what `run` would do: stages, reads of the text, which tasks run and why, disk space."""
    from dataselect import runner
    from dataselect.report import planview

    _print(runner.plan(recipe, sets=sets, rehash=rehash), as_json, planview.render)


@app.command()
def train(
    positive: Annotated[list[Path], typer.Option(help="shard of documents wanted; repeat for more")],
    out: Annotated[Path, typer.Option(help="model file to write (.bin)")],
    negative: Annotated[list[Path], typer.Option(help="shard of documents not wanted")] = [],
    text: Annotated[str, typer.Option(help="text column")] = "text",
    label_column: Annotated[
        str | None, typer.Option(help="column with the label, instead of two sets")
    ] = None,
    positive_label: Annotated[str, typer.Option(help="label of the documents wanted")] = "hq",
    negative_label: Annotated[str, typer.Option(help="label of the documents not wanted")] = "lq",
    dim: Annotated[int, typer.Option(min=1, help="size of the vectors")] = 100,
    word_ngrams: Annotated[int, typer.Option(min=1, help="longest word n-gram")] = 2,
    bucket: Annotated[int, typer.Option(min=1, help="hash buckets for n-grams")] = 2_000_000,
    epoch: Annotated[int, typer.Option(min=1, help="passes over the training documents")] = 5,
    holdout: Annotated[float, typer.Option(min=0, max=0.9, help="share held out to measure AUC")] = 0.1,
    threads: Annotated[int, typer.Option(min=1, help="more than one is not reproducible")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Train a fastText classifier from labelled shards, with a model card beside it."""
    from dataselect.training import train_fasttext

    card = train_fasttext(
        positive,
        negative,
        out,
        text=text,
        label_column=label_column,
        positive_label=positive_label,
        negative_label=negative_label,
        dim=dim,
        word_ngrams=word_ngrams,
        bucket=bucket,
        epoch=epoch,
        holdout=holdout,
        threads=threads,
    )
    _print(card, as_json, lambda card: json.dumps(card, indent=1, ensure_ascii=False))


@app.command()
def ls(
    output: Annotated[str, typer.Argument(help="output folder", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """List the live shards of an output folder."""
    from dataselect.io.store import store_at
    from dataselect.publish import live_shards

    paths = [f"{output.rstrip('/')}/{name}" for name in live_shards(store_at(output))]
    _print(paths, as_json, "\n".join)


@app.command()
def stages(as_json: JsonOption = False) -> None:
    """List the stages with their parameters, what they read and what they add."""
    from dataselect.report import stageview

    _print(stageview.describe(), as_json, stageview.render)


@app.command()
def schema(
    as_json: Annotated[bool, typer.Option("--json", help="the schema is JSON with or without it")] = True,
) -> None:
    """Print the JSON Schema of a recipe, for editors and CI."""
    from dataselect.planning.recipe import recipe_schema

    print(json.dumps(recipe_schema(), indent=1))


def _print(result: Any, as_json: bool, render: Callable[[Any], str]) -> None:
    print(json.dumps(result, indent=1, ensure_ascii=False) if as_json else render(result))


def _share(text: str) -> float:
    from dataselect.core.sizes import parse_share

    try:
        share = parse_share(text)
    except ValueError as error:
        raise RecipeError(f"--sample {text}: {error}") from None
    if not isinstance(share, float) or not 0 < share <= 1:
        raise RecipeError(f"--sample {text}: expected a share in (0, 1], such as 1% or 0.01")
    return share


class _Stopped(BaseException):
    """SIGTERM or SIGINT: unwinds, so that workers are stopped and temporary files removed.

    Not a KeyboardInterrupt, which typer would take for itself.
    """


def _stop(number: int, _: object) -> NoReturn:
    raise _Stopped(number)


def main() -> None:
    """Entry point: every foreseen failure is one sentence and an exit code."""
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as it is for a script's background jobs
        signal.signal(signal.SIGINT, _stop)
    try:
        app(standalone_mode=True)
    except DataselectError as error:
        print(f"dataselect: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the exit's flush complains
        sys.exit(1)
    except OSError as error:
        print(f"dataselect: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    except _Stopped as stopped:
        word = "stopped" if stopped.args[0] == signal.SIGINT else "terminated"
        print(f"dataselect: {word}; the same command goes on from here", file=sys.stderr)
        sys.exit(128 + stopped.args[0])
