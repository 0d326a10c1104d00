"""What to train on and how; checked before anything is read."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from dataselect.core.errors import DataselectError, RecipeError
from dataselect.training.lines import label_name

Balance = Literal["none", "downsample", "upsample"]

INSTALL_HINT = (
    "training needs the fastText package (scoring does not): install `fasttext-numpy2-wheel` on Python "
    "3.10-3.12, or `fasttext`, which needs a C++ compiler"
)
_BASE_LR, _MAX_LR = 0.1, 1.0
_BASE_EPOCH, _MAX_EPOCH = 5, 50
_MANY_STEPS, _ENOUGH_STEPS = 500_000, 50_000


@dataclass(frozen=True)
class TrainSpec:
    """Where documents and labels come from, and how the model is trained.

    Either `positive` and `negative` name shards (glob patterns), or `shards` does, with the label in
    `label_column` or with a number in `score_column` that the limits below turn into a label.
    """

    out: Path
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    shards: tuple[str, ...] = ()
    text: tuple[str, ...] = ("text",)
    label_column: str | None = None
    score_column: str | None = None
    positive_min: float | None = None
    """Scores from this up are positive; likewise below."""
    negative_max: float | None = None
    positive_top: float | None = None
    """Share of the scored documents; likewise below."""
    negative_bottom: float | None = None
    positive_label: str | None = None
    """None: "hq"; with a label column, "hq" where there is such a label, else no label is special."""
    negative_label: str = "lq"
    max_bad_rows: float | str = 0.001

    balance: str = "none"
    """One of Balance."""
    holdout: float = 0.1
    clean_labels: bool = False
    learning_curve: bool = False
    seed: int = 0

    dim: int = 100
    word_ngrams: int = 2
    minn: int = 0
    maxn: int = 0
    bucket: int = 2_000_000
    min_count: int = 1
    epoch: int | None = None
    """None: see `usual_epoch`."""
    lr: float | None = None
    """None: see `usual_lr`."""
    threads: int = 1
    quantize: bool = False
    cutoff: int = 0
    retrain: bool = False
    force: bool = False

    def fasttext_params(self, n_lines: int, n_labels: int) -> dict[str, int | float | str]:
        """Arguments of the package's train_supervised, for this many training lines and labels."""
        epoch = usual_epoch(n_lines, n_labels) if self.epoch is None else self.epoch
        return {
            "dim": self.dim, "wordNgrams": self.word_ngrams, "minn": self.minn, "maxn": self.maxn,
            "bucket": self.bucket, "minCount": self.min_count, "epoch": epoch,
            "lr": usual_lr(n_lines * epoch, n_labels) if self.lr is None else self.lr,
            "loss": "softmax", "thread": self.threads, "seed": self.seed,
        }  # fmt: skip


def usual_epoch(n_lines: int, n_labels: int = 2) -> int:
    """5, the package's own; more where less than 25,000 lines of a label would be seen.

    At most 50, and no more than 500,000 lines in all are seen for that.
    """
    wanted = -(-_ENOUGH_STEPS * n_labels // max(2 * n_lines, 1))
    affordable = max(_MANY_STEPS // max(n_lines, 1), _BASE_EPOCH)
    return min(max(_BASE_EPOCH, wanted), _MAX_EPOCH, affordable)


def usual_lr(n_steps: int, n_labels: int = 2) -> float:
    """0.1, the package's own, where 250,000 lines of a label are seen or more.

    With fewer it grows by their root, up to 1. fastText moves by one line at a time, from zero: on 300 web
    pages of two kinds 5 epochs at 0.1 hardly begin (held-out AUC 0.86; as chosen here 0.99), on 3,000 they
    give 0.94 (0.997).
    """
    steps_of_two = max(2 * n_steps / n_labels, 1)
    return round(min(max(_BASE_LR, _BASE_LR * (_MANY_STEPS / steps_of_two) ** 0.5), _MAX_LR), 3)


def check(spec: TrainSpec) -> None:
    """RecipeError in the words of the command line; DataselectError where the package is missing."""
    _check_sources(spec)
    _check_scores(spec)
    if spec.balance not in get_args(Balance):
        raise RecipeError(f"--balance: expected one of {', '.join(get_args(Balance))}; got {spec.balance!r}")
    _check_numbers(spec)
    _check_out(spec)
    if importlib.util.find_spec("fasttext") is None:
        raise DataselectError(INSTALL_HINT)


def _check_sources(spec: TrainSpec) -> None:
    columns = [name for name in (spec.label_column, spec.score_column) if name is not None]
    if spec.shards and (spec.positive or spec.negative):
        raise RecipeError("give either --positive and --negative, or --shards with a column; not both")
    if spec.shards and len(columns) != 1:
        raise RecipeError("--shards needs --label-column or --score-column, to tell what its documents are")
    if not spec.shards and columns:
        raise RecipeError("--label-column and --score-column need --shards: the label is not the file's then")
    if not spec.shards and not (spec.positive and spec.negative):
        missing = "--negative" if spec.positive else "--positive"
        raise RecipeError(f"{missing} is missing: name shards of both kinds, or --shards with --label-column")
    if columns and columns[0] in spec.text:
        raise RecipeError(f"'{columns[0]}' is the text; the label or score must be another column")
    names = [label_name("hq" if spec.positive_label is None else spec.positive_label)]
    if not spec.label_column:
        names.append(label_name(spec.negative_label))
    if "" in names or len(set(names)) < len(names):
        raise RecipeError(
            f"--positive-label and --negative-label must be two different words, got {' and '.join(names)}"
        )


def _check_scores(spec: TrainSpec) -> None:
    limits = {
        "--positive-min": spec.positive_min,
        "--positive-top": spec.positive_top,
        "--negative-max": spec.negative_max,
        "--negative-bottom": spec.negative_bottom,
    }
    given = [name for name, value in limits.items() if value is not None]
    if spec.score_column is None:
        if given:
            raise RecipeError(f"{given[0]} needs --score-column")
        return
    for one, other in (("--positive-min", "--positive-top"), ("--negative-max", "--negative-bottom")):
        if (one in given) == (other in given):
            raise RecipeError(f"--score-column needs one of {one} and {other}")
    for name in ("--positive-top", "--negative-bottom"):
        share = limits[name]
        if share is not None and not 0 < share < 1:
            raise RecipeError(f"{name}: expected a share between 0 and 1, such as 10%; got {share}")
    low, high = spec.negative_max, spec.positive_min
    if low is not None and high is not None and low >= high:
        raise RecipeError(f"--negative-max {low} must be below --positive-min {high}")


def _check_numbers(spec: TrainSpec) -> None:
    least = {"dim": 1, "word_ngrams": 1, "minn": 0, "maxn": 0, "bucket": 1, "min_count": 1, "threads": 1}
    for name, minimum in {**least, "cutoff": 0}.items():
        if getattr(spec, name) < minimum:
            raise RecipeError(f"--{name.replace('_', '-')}: expected {minimum} or more")
    if spec.maxn and spec.minn > spec.maxn:
        raise RecipeError(f"--minn {spec.minn} must not be above --maxn {spec.maxn}")
    if not 0 <= spec.holdout < 1:
        raise RecipeError(f"--holdout: expected a share in [0, 1), got {spec.holdout}")
    if (spec.epoch is not None and spec.epoch < 1) or (
        spec.lr is not None and not 0 < spec.lr < float("inf")
    ):
        raise RecipeError("--epoch must be 1 or more, and --lr above 0")


def _check_out(spec: TrainSpec) -> None:
    wanted = ".ftz" if spec.quantize else ".bin"
    if re.match(r"[a-z0-9+]+:/", str(spec.out)):  # a Path has lost one of two slashes
        raise RecipeError(
            f"--out: {spec.out}: a model is made on this machine's disk; name a file there, and copy it"
        )
    if spec.out.is_dir():
        raise RecipeError(f"--out: {spec.out} is a folder; name a file that ends with {wanted}")
    if spec.out.suffix != wanted:
        hint = "quantised models end with .ftz" if spec.quantize else "for .ftz add --quantize"
        raise RecipeError(f"--out: {spec.out} must end with {wanted} ({hint})")
    if (spec.cutoff or spec.retrain) and not spec.quantize:
        raise RecipeError("--cutoff and --retrain need --quantize")
    if spec.retrain and not spec.cutoff:
        raise RecipeError("--retrain needs --cutoff: it trains on with the words that the cutoff leaves")
    if spec.out.exists() and not spec.force:
        raise RecipeError(f"--out: {spec.out} exists; --force replaces it, and scores made with it change")
