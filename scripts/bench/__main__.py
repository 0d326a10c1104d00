"""Command line of the benchmark."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import bench
from bench.measure import CommandFailed
from bench.prepare import SAMPLE, Bench
from bench.table import render

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dataselect" / "bench"
CORPUS_VARIABLE = "DATASELECT_BENCH_CORPUS"


def pattern(text: str) -> re.Pattern[str]:
    """A regular expression, upper or lower case alike."""
    try:
        return re.compile(text, re.IGNORECASE)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from error


def options_from(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """SystemExit with a message where they make no sense."""
    parser = argparse.ArgumentParser(
        prog="bench", description=bench.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rounds", type=int, default=5)
    add(
        "--only",
        type=pattern,
        metavar="PATTERN",
        help="cases whose name has this regular expression, beside their floors",
    )
    add("--peers", action="store_true", help="also other tools, installed from PyPI")
    add("--quick", action="store_true", help="a smoke test: one round of small texts")
    add("--json", type=Path, metavar="OUT", help="write all figures, after every case")
    corpus = Path(os.environ.get(CORPUS_VARIABLE, SAMPLE / "raw"))
    add("--corpus", type=Path, default=corpus, help=f"folder of real shards (or ${CORPUS_VARIABLE})")
    add("--field", default="text", help="the field that holds the text")
    add("--mb", type=float, default=512, help="10^6 bytes of text in 1x; half of it in bare text")
    add("--peer-scale", type=float, default=1, help="times the usual size of the peers' texts")
    add("--kernel-mb", type=float, default=32, help="text for the kernels; 0: none")
    add("--model", type=Path, help="fastText .bin with the label hq; default: one of usual size is trained")
    add("--out", type=Path, default=SAMPLE / "bench", help="folder for texts and runs")
    add("--cache", type=Path, default=CACHE, help="folder for the peers' environments and the trained model")
    options = parser.parse_args(arguments)
    if options.model and not options.model.exists():
        parser.error(f"--model: there is no {options.model}")
    if options.quick:
        options.mb, options.rounds, options.kernel_mb = min(options.mb, 32), 1, min(options.kernel_mb, 8)
        options.peer_scale = min(options.peer_scale, 0.25)
        options.model = options.model or SAMPLE / "quality.bin"
    if options.rounds < 1 or options.mb <= 0 or options.peer_scale <= 0:
        parser.error("--rounds, --mb and --peer-scale must be positive")
    return options


def main() -> None:
    options = options_from()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds: command and scratch go too
    if not sys.platform.startswith("linux"):
        sys.exit("the benchmark needs Linux: it pins processes and collects those that a run leaves")
    result = None
    try:
        with contextlib.ExitStack() as stack:
            for result in Bench(options, stack).rounds():
                if options.json:
                    options.json.write_text(json.dumps(result, indent=1) + "\n")
    except CommandFailed as failed:
        sys.exit(str(failed))
    except subprocess.CalledProcessError as failed:  # it has said why
        sys.exit(failed.returncode)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:  # a run that fails or is stopped still shows what it has
        if result:
            with contextlib.suppress(BrokenPipeError):
                print(render(result))


if __name__ == "__main__":
    main()
