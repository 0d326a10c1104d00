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


_ENGINES = ("local", "ray")


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
    if engine not in _ENGINES:
        join = "; machines without Ray join a run by `dataselect worker RECIPE`" if engine == "shared" else ""
        raise RecipeError(f"--engine: expected {' or '.join(_ENGINES)}, got {engine}{join}")
    from dataselect import runner
    from dataselect.report import funnel, profile
    from dataselect.report.progress import Progress

    share = None if sample is None else _sample_share(sample)
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
    """Join the run of a recipe with every other `worker`: by Slurm, by ssh, in containers with one bucket.

    Start any number, at any time, where shards, work and output have the same paths or URLs. All of them end
    when the result is published.
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
    out: Annotated[Path, typer.Option(help="model to write: .bin, or .ftz with --quantize")],
    positive: Annotated[
        list[str], typer.Option(help="shards of documents wanted; a glob pattern, repeat for more")
    ] = [],
    negative: Annotated[list[str], typer.Option(help="shards of documents not wanted")] = [],
    shards: Annotated[
        list[str], typer.Option(help="instead of these two: shards with a column that tells")
    ] = [],
    label_column: Annotated[
        str | None, typer.Option(help="column with the label; two labels or more")
    ] = None,
    score_column: Annotated[
        str | None, typer.Option(help="column with a number, which the limits make a label of")
    ] = None,
    positive_min: Annotated[float | None, typer.Option(help="scores from this up are positive")] = None,
    negative_max: Annotated[
        float | None, typer.Option(help="scores up to this are negative; those between are left out")
    ] = None,
    positive_top: Annotated[
        str | None, typer.Option(metavar="SHARE", help="or: the best 10% are positive")
    ] = None,
    negative_bottom: Annotated[
        str | None, typer.Option(metavar="SHARE", help="or: the worst 50% are negative")
    ] = None,
    text: Annotated[list[str], typer.Option(help="text column; repeat to join several by a newline")] = [
        "text"
    ],
    positive_label: Annotated[
        str | None,
        typer.Option(help="label whose probability will be the score  [default: hq]", show_default=False),
    ] = None,
    negative_label: Annotated[str, typer.Option(help="label of the others")] = "lq",
    max_bad_rows: Annotated[
        str, typer.Option(help="share (never less than 10 rows), or from 1 up a number; more fail")
    ] = "0.1%",
    balance: Annotated[
        str, typer.Option(metavar="none|downsample|upsample", help="make labels equally frequent in training")
    ] = "none",
    clean_labels: Annotated[
        bool, typer.Option("--clean-labels", help="find and leave out wrong labels (trains 5 models more)")
    ] = False,
    holdout: Annotated[
        str, typer.Option(metavar="SHARE", help="kept from training, to judge the model by")
    ] = "10%",
    learning_curve: Annotated[
        bool, typer.Option("--learning-curve", help="also judge models of 1/8, 1/4 and 1/2 of the lines")
    ] = False,
    word_ngrams: Annotated[int, typer.Option(help="longest word n-gram")] = 2,
    minn: Annotated[int, typer.Option(help="shortest character n-gram (languages: 2)")] = 0,
    maxn: Annotated[int, typer.Option(help="longest character n-gram (languages: 5); 0: none")] = 0,
    dim: Annotated[int, typer.Option(help="size of the vectors")] = 100,
    bucket: Annotated[
        int, typer.Option(help="hash buckets for n-grams; the file has (words + bucket) x dim x 4 bytes")
    ] = 2_000_000,
    min_count: Annotated[int, typer.Option(help="leave out words less frequent than this")] = 1,
    epoch: Annotated[
        int | None,
        typer.Option(
            help="passes over the documents  [default: 5, up to 50 for few documents]", show_default=False
        ),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(help="learning rate  [default: 0.1, up to 1 for few documents]", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="of the random start and of all hashes")] = 0,
    threads: Annotated[
        int, typer.Option(help="more than one is faster, and gives another model every time")
    ] = 1,
    quantize: Annotated[bool, typer.Option("--quantize", help="write a small .ftz")] = False,
    cutoff: Annotated[int, typer.Option(help="words and n-grams that --quantize keeps; 0: all")] = 0,
    retrain: Annotated[bool, typer.Option("--retrain", help="train on after --cutoff")] = False,
    force: Annotated[bool, typer.Option("--force", help="replace a model that exists")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a fastText classifier from labelled shards; write it with a model card beside it.

    \b
      dataselect train --positive 'hq/*.jsonl' --negative 'lq/*.jsonl' --out quality.bin
      dataselect train --shards 'pages/*.parquet' --label-column lang --out lang.bin
      dataselect train --shards 'graded/*.jsonl' --score-column grade \\
          --positive-min 3 --negative-max 2 --out edu.bin
    """  # noqa: D301 - click keeps the lines of a paragraph that begins with a backspace
    from dataselect.report import trainview
    from dataselect.report.progress import Progress
    from dataselect.training.spec import TrainSpec
    from dataselect.training.train import train as train_classifier

    spec = TrainSpec(
        out=out,
        positive=tuple(positive),
        negative=tuple(negative),
        shards=tuple(shards),
        text=tuple(text),
        label_column=label_column,
        score_column=score_column,
        positive_min=positive_min,
        negative_max=negative_max,
        positive_top=None if positive_top is None else _share("--positive-top", positive_top),
        negative_bottom=None if negative_bottom is None else _share("--negative-bottom", negative_bottom),
        positive_label=positive_label,
        negative_label=negative_label,
        max_bad_rows=max_bad_rows,
        balance=balance,
        clean_labels=clean_labels,
        holdout=_share("--holdout", holdout),
        learning_curve=learning_curve,
        word_ngrams=word_ngrams,
        minn=minn,
        maxn=maxn,
        dim=dim,
        bucket=bucket,
        min_count=min_count,
        epoch=epoch,
        lr=lr,
        seed=seed,
        threads=threads,
        quantize=quantize,
        cutoff=cutoff,
        retrain=retrain,
        force=force,
    )
    try:
        card = train_classifier(spec, None if quiet else Progress())
    except _Stopped as stopped:
        raise _Stopped(stopped.args[0], "nothing was written") from None
    _print(card, as_json, trainview.render)


@app.command()
def compare(
    selections: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]SELECTION...",
            help="recipes that were run, output folders, or glob patterns of shards",
            show_default=False,
        ),
    ],
    target: Annotated[
        list[str],
        typer.Option(help="shards of the target, NOT those selected by; a glob pattern, repeat for more"),
    ],
    raw: Annotated[
        list[str],
        typer.Option(
            help="shards that were selected from  [default: those of the first recipe]", show_default=False
        ),
    ] = [],
    text: Annotated[str, typer.Option(help="text column")] = "text",
    id_column: Annotated[
        str | None,
        typer.Option("--id", help="column with the document's id; else documents are known by their text"),
    ] = None,
    source_column: Annotated[
        str | None, typer.Option(help="column of raw with the source: adds controls of the same sources")
    ] = None,
    language_column: Annotated[
        str | None, typer.Option(help="column of raw with the language, for the report")
    ] = None,
    seeds: Annotated[int, typer.Option(help="random draws for each control")] = 5,
    order: Annotated[int, typer.Option(help="longest n-gram of the language models")] = 3,
    max_tokens: Annotated[
        int, typer.Option(help="compare at most so many tokens of each; bounds memory and time")
    ] = 4_000_000,
    plot: Annotated[
        Path | None, typer.Option(help="also write a picture, an .svg file", show_default=False)
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say which selection is most like a held-out target, at equal tokens and beside random controls.

    \b
      dataselect compare dsir.yaml topk.yaml --target heldout.jsonl
      dataselect compare a=out-a b='other/*.jsonl.zst' --raw 'raw/*' --target heldout.jsonl
    """  # noqa: D301 - click keeps the lines of a paragraph that begins with a backspace
    from dataselect.compare.compare import compare as compare_selections
    from dataselect.compare.spec import CompareSpec
    from dataselect.report import compareplot, compareview
    from dataselect.report.progress import Progress

    if plot is not None and plot.suffix != ".svg":
        raise RecipeError(f"--plot {plot}: expected a name that ends in .svg")
    if plot is not None and not plot.parent.is_dir():
        raise RecipeError(f"--plot {plot}: there is no folder {plot.parent}")
    spec = CompareSpec(
        selections=tuple(selections),
        target=tuple(target),
        raw=tuple(raw),
        text=text,
        id=id_column,
        source=source_column,
        language=language_column,
        seeds=seeds,
        order=order,
        max_tokens=max_tokens,
    )
    report = compare_selections(spec, None if quiet else Progress())
    if plot is not None:
        plot.write_text(compareplot.render(report), "utf-8")
    _print(report, as_json, compareview.render)


@app.command()
def ls(
    output: Annotated[str, typer.Argument(help="output folder", show_default=False)],
    heldout: Annotated[bool, typer.Option("--heldout", help="those of the held-out documents")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the live shards of an output folder."""
    from dataselect.io.store import store_at
    from dataselect.publish import live_shards

    kind = "heldout" if heldout else "shards"
    paths = [f"{output.rstrip('/')}/{name}" for name in live_shards(store_at(output), kind)]
    _print(paths, as_json, "\n".join)


@app.command()
def stages(as_json: JsonOption = False) -> None:
    """List the stages with their parameters, what they read and what they add."""
    from dataselect.report import stageview

    _print(stageview.describe(), as_json, stageview.render)


@app.command()
def dedup_curve(
    threshold: Annotated[float, typer.Option(help="Jaccard similarity of duplicates")] = 0.8,
    num_perm: Annotated[int, typer.Option(help="hash functions in a signature")] = 128,
    bands: Annotated[str, typer.Option(help="auto, datasketch, or bands x rows such as 14x8")] = "auto",
    docs: Annotated[int, typer.Option(min=1, help="documents, for disk and memory")] = 1_000_000,
    as_json: JsonOption = False,
) -> None:
    """Show which pairs `minhash_dedup` finds with these parameters, and what it needs for them."""
    from dataselect.report import curve

    _print(curve.describe(threshold, num_perm, bands, docs), as_json, curve.render)


@app.command()
def sketch(
    shards: Annotated[list[str], typer.Argument(help="shards or glob patterns", show_default=False)],
    out: Annotated[Path, typer.Option(help="Parquet file to write")],
    text: Annotated[str, typer.Option(help="text column")] = "text",
    id_column: Annotated[str | None, typer.Option("--id", help="id column", show_default=False)] = None,
    scheme: Annotated[str, typer.Option(help="affine32 (datasketch 2) or legacy (1)")] = "affine32",
    shingle_hash: Annotated[
        str, typer.Option("--hash", help="of shingles: own, or sha1 as datasketch's default")
    ] = "own",
    ngram: Annotated[int, typer.Option(min=1, max=64, help="words in a shingle")] = 5,
    num_perm: Annotated[int, typer.Option(min=1, max=65_535, help="hash functions in a signature")] = 128,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="of the hash functions")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Write MinHash signatures of shards, as bytes of datasketch's LeanMinHash, to a Parquet file."""
    from dataselect.sketching import sketch_shards

    result = sketch_shards(
        shards,
        out,
        text=text,
        id_column=id_column,
        scheme=scheme,
        shingle_hash=shingle_hash,
        ngram=ngram,
        num_perm=num_perm,
        seed=seed,
    )
    _print(result, as_json, lambda r: f"{r['out']}: {r['docs']:,} signatures, {r['bad']:,} bad rows left out")


@app.command()
def schema(
    as_json: Annotated[bool, typer.Option("--json", help="the schema is JSON with or without it")] = True,
) -> None:
    """Print the JSON Schema of a recipe, for editors and CI."""
    from dataselect.planning.schema import recipe_schema

    print(json.dumps(recipe_schema(), indent=1))


mixture_app = typer.Typer(no_args_is_help=True, help="Find domain weights for a training mixture.")
app.add_typer(mixture_app, name="mixture")


@mixture_app.callback()
def _mixture() -> None:
    """Find domain weights for a training mixture."""


@mixture_app.command("fit")
def mixture_fit(
    runs: Annotated[
        Path,
        typer.Argument(
            help="CSV, one proxy run a row: shares of the domains, and losses", show_default=False
        ),
    ],
    losses: Annotated[
        list[str], typer.Option("--loss", metavar="COLUMN[=WEIGHT]", help="a loss to be low; repeat for more")
    ],
    supply: Annotated[
        list[str],
        typer.Option("--supply", metavar="DOMAIN=TOKENS", help="tokens there are, such as code=30G"),
    ] = [],
    tokens: Annotated[
        str | None,
        typer.Option(help="tokens of the training that is planned, such as 100G", show_default=False),
    ] = None,
    epochs: Annotated[float, typer.Option(min=0.001, help="most passes over a domain")] = 4.0,
    as_json: JsonOption = False,
) -> None:
    """Fit a data mixing law to proxy runs, and print the best shares under what there is of each domain."""
    from dataselect.mixing import fit_mixture
    from dataselect.report.mixture import fit_lines

    weights = {name: _size("--loss", name, text or "1", whole=False) for name, text in map(_pair, losses)}
    there = {name: _size("--supply", name, text) for name, text in map(_pair, supply)}
    total = None if tokens is None else _size("--tokens", "", tokens)
    found = fit_mixture(runs, weights, there, total, epochs)
    _print(found, as_json, lambda result: "\n".join(fit_lines(result)))


index_app = typer.Typer(no_args_is_help=True, help="Merge and edit saved indexes of a dedup.")
app.add_typer(index_app, name="index")


@index_app.callback()
def _index() -> None:
    """Merge and edit saved indexes of a dedup (`save_index: true`), for `against:` of later runs."""


@index_app.command("merge")
def index_merge(
    out: Annotated[str, typer.Argument(help="index to write, NAME.index", show_default=False)],
    sources: Annotated[
        list[str], typer.Argument(help="index files, and output folders that saved one", show_default=False)
    ],
    as_json: JsonOption = False,
) -> None:
    """Write one index of several. What is in it already is skipped, so a daily merge may be repeated."""
    from dataselect.indexing import merge_indexes

    _print(
        merge_indexes(out, sources),
        as_json,
        lambda r: f"{r['out']}: {r['docs']:,} documents of {r['parts']} parts, {r['skipped']} there already",
    )


@index_app.command("drop")
def index_drop(
    index: Annotated[str, typer.Argument(help="index to change, NAME.index", show_default=False)],
    ids: Annotated[
        str | None,
        typer.Option(
            help="take-downs: text file (.gz) with an id a line, or a table's id column", show_default=False
        ),
    ] = None,
    superseded: Annotated[
        str | None,
        typer.Option(help="output folder whose superseded/ lists the documents", show_default=False),
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="index to write instead of the old one", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Take documents out of an index, so that they no longer drop new ones."""
    from dataselect.indexing import drop_documents

    _print(
        drop_documents(index, out, ids=ids, superseded=superseded),
        as_json,
        lambda r: (
            f"{r['out']}: {r['dropped']:,} documents taken out ({r['listed']:,} were listed), "
            f"{r['docs']:,} left"
        ),
    )


@index_app.command("show")
def index_show(
    index: Annotated[str, typer.Argument(help="NAME.index", show_default=False)], as_json: JsonOption = False
) -> None:
    """Check an index whole, and show what it holds."""
    from dataselect.indexing import show_index

    def render(shown: dict[str, Any]) -> str:
        scheme = ", ".join(f"{name} {value}" for name, value in shown["scheme"].items())
        texts = f"{shown['texts']['there']:,} of {shown['texts']['files']:,} files with their texts are there"
        return f"{shown['index']}: {shown['docs']:,} documents; {texts}; {scheme}"

    _print(show_index(index), as_json, render)


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.rpartition("=") if "=" in text else (text, "", "")
    return name, value


def _size(option: str, name: str, text: str, *, whole: bool = True) -> float:
    """A number above 0, or where `whole` a size such as 30G."""
    from dataselect.core.sizes import parse_bytes

    try:
        value = float(parse_bytes(text) if whole else text)  # type: ignore[arg-type]
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        what = "a number of tokens such as 30G" if whole else "a weight above 0"
        raise RecipeError(f"{option} {name + '=' if name else ''}{text}: expected {what}")
    return value


def _print(result: Any, as_json: bool, render: Callable[[Any], str]) -> None:
    print(json.dumps(result, indent=1, ensure_ascii=False) if as_json else render(result))


def _share(option: str, text: str) -> float:
    from dataselect.core.sizes import parse_share

    try:
        share = parse_share(text)
    except ValueError as error:
        raise RecipeError(f"{option} {text}: {error}") from None
    assert isinstance(share, float)
    return share


def _sample_share(text: str) -> float:
    share = _share("--sample", text)
    if not 0 < share <= 1:
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
        after = stopped.args[1] if len(stopped.args) > 1 else "the same command goes on from here"
        print(f"dataselect: {word}; {after}", file=sys.stderr)
        sys.exit(128 + stopped.args[0])
