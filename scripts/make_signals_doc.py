"""Write dataselect/SIGNALS.md, the table of quality signals and presets, from their definitions.

python scripts/make_signals_doc.py
"""

from __future__ import annotations

from pathlib import Path

from dataselect.stages import registry
from dataselect.stages.preset import Preset
from dataselect.stages.quality_signals import signals

PATH = Path(__file__).parents[1] / "dataselect" / "SIGNALS.md"
HEAD = """# Quality signals and presets

Written by `scripts/make_signals_doc.py` from the code; a test keeps it up to date.

`{use: signals, columns: [rpv2., n_lines], keep: {n_lines: {min: 3}}}` adds columns (names or prefixes of
names; all by default) and drops what is outside the limits. Presets have the rules of one source, with its
thresholds as parameters (null turns a rule off); their columns are `<preset>.<signal>`, and `as:` names
another prefix. Columns stay in the work store: another threshold recomputes none. All stages of a read
that see the same text share one pass over it. A fraction or ratio is 0 where there is nothing to divide by.

## Words

| definition | what it is |
|---|---|
| datatrove | tokens of spaCy 3.8's blank English pipeline, by its own rules; white space is no token |
| dolma | `str.split()` |
| dclm | `str.split()`; for n-grams words of UAX #29 that start with a letter or digit |
| rpv2, normalized | `str.split()` of lower-cased text without ASCII punctuation |
| rpv2, raw | runs of word characters, and runs of other characters |

Runs of more than 16,384 bytes without white space are cut. Repetition is measured on the first 4,194,304
words and 1,048,576 lines of a document.

## Signals
"""


def table(rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def document() -> str:
    """The whole file."""
    rows = [["name", "unit", "definition", "source"], ["---"] * 4]
    rows += [[f"`{s.name}`", s.unit, s.definition, s.source] for s in signals().values()]
    rows.append(
        [
            "`compression_ratio`",
            "ratio",
            "bytes / bytes after zlib at level 6 (`signals` stage only)",
            "RFC 1950",
        ]
    )
    parts = [HEAD, table(rows), "\n## Presets\n"]
    for use, cls in registry().items():
        if issubclass(cls, Preset):
            fields = cls.model_fields
            summary = (cls.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
            parts.append(f"### `{use}`\n\n{summary}\n")
            if cls.rules:
                rules = [["parameter", "default", "drops documents where"], ["---"] * 3]
                for rule in cls.rules:
                    sign = "<" if rule.below else ">"
                    default = f"{fields[rule.parameter].default:g}"
                    rules.append([f"`{rule.parameter}`", default, f"`{rule.signal}` {sign} it"])
                parts.append(table(rules) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PATH.write_text(document(), "utf-8")
