"""README.md of a generation: a dataset card that Hugging Face `datasets` and its Hub read, and people.

Its front matter names the shards, so that `load_dataset` on the folder gives the kept rows and no other
file (Hub docs, "Manual configuration"). It is a function of the manifest: no times, hosts or folders.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from dataselect.core.pieces import SUFFIXES, Format, suffix_of

_MAX_LISTED = 50
_BUILDERS: dict[Format, str] = {"jsonl": "json", "parquet": "parquet", "arrow": "arrow"}
_SIZES = ["n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B",
          "10B<n<100B", "100B<n<1T", "n>1T"]  # fmt: skip
"""The Hub's names: below 1,000 rows, and then one for each power of ten."""


def render(manifest: Mapping[str, Any]) -> str:
    """The card of a manifest with its digest, versions and pieces with their `input`."""
    patterns = _patterns([*manifest["pieces"], *manifest.get("shuffled", [])])
    n_rows = manifest["ledger"]["rows_written"]
    front = {
        "tags": ["dataselect"],
        "size_categories": [_SIZES[min(max(len(str(n_rows)) - 3, 0), len(_SIZES) - 1)]],
        "configs": [{"config_name": "default", "data_files": _data_files(patterns, manifest["ledger"])}],
    }
    parts = [
        f"---\n{_yaml(front)}---\n",
        "# A selection by dataselect\n",
        *_summary(manifest),
        "## Load it\n",
        *_loading(patterns),
        "## What became of the input\n",
        *_funnel(manifest),
        "## Recipe\n",
        f"```yaml\n{_yaml(_recipe(manifest))}```\n",
        "## Input\n",
        *_inputs(manifest["pieces"]),
        "## To make it again\n",
        *_reproduction(manifest),
    ]
    return "\n".join(parts)


def _patterns(pieces: Sequence[Mapping[str, Any]]) -> dict[Format, list[str]]:
    """Glob patterns of the shards, by format."""
    names = [piece["files"]["shards"]["name"] for piece in pieces if "shards" in piece["files"]]
    endings = sorted({suffix_of(name) or "" for name in names})
    patterns: dict[Format, list[str]] = {}
    for ending in endings:
        patterns.setdefault(SUFFIXES[ending][0], []).append(f"shards/**/*{ending}")
    return patterns


def _data_files(patterns: Mapping[Format, list[str]], ledger: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One split, and one of what is held out; several formats are one split each.

    `datasets` refuses these instead of taking one of them.

    It picks one builder for all of a folder's configs (datasets 5.2, LocalDatasetModuleFactory), so
    a config for each format would not do.
    """
    if len(patterns) > 1:
        return [{"split": form, "path": paths} for form, paths in sorted(patterns.items())]
    train = {"split": "train", "path": next(iter(patterns.values()), ["shards/**"])}
    return [train, {"split": "heldout", "path": "heldout/**"}] if ledger["rows_heldout"] else [train]


def _summary(manifest: Mapping[str, Any]) -> Iterator[str]:
    ledger = manifest["ledger"]
    kept = f"{ledger['rows_kept']:,} rows of {ledger['rows_in']:,}"
    if ledger["rows_written"] != ledger["rows_kept"]:
        kept += f" ({ledger['rows_written']:,} with copies)"
    if ledger["rows_heldout"]:
        kept += f", {ledger['rows_heldout']:,} of them held out (`heldout/`)"
    if ledger["stages"]:
        last = ledger["stages"][-1]["out"]
        kept += f", {last['n_bytes']:,} bytes of text, {last['n_words']:,} words"
    yield f"{kept}, chosen by the recipe below with dataselect {manifest['dataselect']}.\n"


def _loading(patterns: Mapping[Format, list[str]]) -> Iterator[str]:
    if not patterns:
        yield "No row was kept: there is nothing to load.\n"
        return
    if len(patterns) == 1:
        calls = ['datasets.load_dataset("path/of/this/folder")["train"]']
    else:
        yield (
            f"The shards are of {len(patterns)} formats ({', '.join(sorted(patterns))}). A folder that "
            "`load_dataset` takes has one; load each. (Where all rows have the same fields, `output.format`\n"
            "in the recipe makes one of them.)\n"
        )
        calls = [
            f'datasets.load_dataset("{_BUILDERS[form]}", data_files={paths})["train"]'.replace("'", '"')
            for form, paths in sorted(patterns.items())
        ]
    yield "\n".join(["```python", "import datasets", "", *calls, "```", ""])
    yield (
        "Only `shards/` (and `heldout/`) hold kept rows. `decisions/` says of every input row what became of "
        "it and why; `dropped/` and `quarantine/` hold rows that are not part of the dataset.\n"
    )


def _funnel(manifest: Mapping[str, Any]) -> Iterator[str]:
    ledger, stages = manifest["ledger"], manifest["recipe"]["stages"]
    rows = []
    for stage, flow in zip(stages, ledger["stages"], strict=True):
        before, after = flow["in"], flow["out"]
        share = after["docs"] / before["docs"] if before["docs"] else 1.0
        counts = [before["docs"], after["docs"], after["n_bytes"], after["n_words"]]
        rows.append(
            [stage["use"], *(f"{n:,}" for n in counts[:2]), f"{share:.1%}", *(f"{n:,}" for n in counts[2:])]
        )
    yield _table(["stage", "rows in", "rows out", "kept", "bytes out", "words out"], rows)
    rules = [
        [stage["use"], rule, f"{n['docs']:,}"]
        for stage, flow in zip(stages, ledger["stages"], strict=True)
        for rule, n in flow["dropped"].items()
        if n["docs"]
    ]
    rules += [["unreadable", reason, f"{n:,}"] for reason, n in ledger["quarantined"].items()]
    yield _table(["dropped by", "why", "rows"], rules) if rules else "No row was dropped.\n"
    bad = list(manifest["bad_shards"].items())
    if bad:
        yield "Shards that were left out because they could not be read to their end:\n"
        yield _table(["shard", "why"], [list(item) for item in bad[:_MAX_LISTED]]) + _more(len(bad))


def _recipe(manifest: Mapping[str, Any]) -> dict[str, Any]:
    recipe = dict(manifest["recipe"])
    return recipe | {"output": {"folder": "out", **recipe["output"]}}


def _inputs(pieces: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield (
        "Parts of long shards and groups of small ones (`name+12`: that shard and the 12 after it), each\n"
        "with the digest of what it held. Names are relative to the input folder.\n"
    )
    rows = [
        [
            piece["piece"],
            f"{piece['input']['n_shards']:,}",
            f"{piece['input']['n_rows']:,}",
            f"`{piece['input']['digest']}`",
        ]
        for piece in pieces[:_MAX_LISTED]
    ]
    yield _table(["input", "shards", "rows", "digest"], rows) + _more(len(pieces))


def _reproduction(manifest: Mapping[str, Any]) -> Iterator[str]:
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    yield (
        "Put the recipe beside the same input and run `dataselect run recipe.yaml`. The digest of the rows\n"
        f"is `{manifest['row_digest']}` on any machine, whatever the cut of the input into shards;\n"
        f"that of the shards' bytes is `{manifest['digest']}` for dataselect {manifest['dataselect']}\n"
        f"and the same versions: {versions}.\n"
    )
    if manifest["fitted"]:
        yield "Models that were fitted on the way (`fitted/`, for `fit:`):\n"
        rows = [[name, f"`{model['digest']}`"] for name, model in sorted(manifest["fitted"].items())]
        yield _table(["stage", "digest"], rows)


def _more(n: int) -> str:
    return f"\n... and {n - _MAX_LISTED:,} more, in `manifest.json`.\n" if n > _MAX_LISTED else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _yaml(value: Any) -> str:
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000))
