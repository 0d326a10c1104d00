"""Where the time of a run went, as a table: seconds of the workers by phase and part."""

from __future__ import annotations

from collections import Counter
from typing import Any

from dataselect.report.cells import table


def render(report: dict[str, Any]) -> str:
    """Lines for people; the same figures are in the report's `phases`.

    Parts of a read: read (from the store, decompressed, digested, cut into lines; Parquet: decoded), parse
    (JSON), base (hashes, masks), each stage, commit (columns and keys to the work folder).
    """
    by_phase: dict[str, Counter[str]] = {}
    for phase in report["phases"]:
        by_phase.setdefault(phase["phase"], Counter()).update(phase["seconds"])
    busy_s = sum(parts.total() for parts in by_phase.values())
    rows = [["phase", "part", "seconds", "share"]]
    for name, parts in by_phase.items():
        rows += [[name, part, f"{s:.2f}", f"{s / busy_s:.1%}"] for part, s in parts.most_common()]
    phases_s = sum(phase["wall_s"] for phase in report["phases"])
    workers = report["workers"]
    lines = table(rows, left=2)
    lines.append(
        f"workers: {busy_s:.2f} s of {workers} x {phases_s:.2f} s in phases; "
        f"before and after (start, listing, publishing): {report['wall_s'] - phases_s:.2f} s"
    )
    return "\n".join(lines)
