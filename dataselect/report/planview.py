"""A plan as lines for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from dataselect.report.mixture import selection_lines


def render(plan: dict[str, Any]) -> str:
    """Stages, reads and why, verdicts by phase with their reasons, and the space they need."""
    lines = [
        f"{plan['shards']:,} shards, {plan['pieces']:,} pieces, {plan['input_bytes'] / 1e6:,.1f} MB",
        "",
        "stages",
    ]
    for i, stage in enumerate(plan["stages"]):
        params = ", ".join(
            f"{k}={v}" for k, v in stage.items() if k not in ("use", "optional") and v is not None
        )
        lines.append(f"  {i}:{stage['use']}  {params}")
    lines += [f"  {text}" for text in plan["left_out"]]
    lines += ["", f"reads of the text: {len(plan['reads'])}"]
    for read in plan["reads"]:
        lines.append(
            f"  {read['read']}. {read['why']}" + (f": {', '.join(read['stages'])}" if read["stages"] else "")
        )
        if read["hoisted"]:
            lines.append(
                f"     early, also on rows that a stage before it drops: {', '.join(read['hoisted'])}"
            )
    if plan["selections"]:
        lines += ["", "selections"]
    for selection in plan["selections"]:
        lines += [f"  {line}" for line in _selection(selection)]
    lines += ["", "tasks"]
    groups = Counter(
        (d["phase"], d["verdict"], d["reason"]) for d in plan["decisions"] if d["verdict"] != "waits"
    )
    lines += [f"  {phase}: {n:,} {verdict}: {reason}" for (phase, verdict, reason), n in groups.items()]
    lines += [
        f"  {d['phase']}: {d['task']}, {d['reason']}" for d in plan["decisions"] if d["verdict"] == "waits"
    ]
    if plan["checked_shards"]:
        lines.append(f"  checked {plan['checked_shards']:,} pieces whose size or time had changed")
    free = f", {plan['free_bytes'] / 1e6:,.0f} MB free" if plan["free_bytes"] is not None else ""
    lines += ["", f"scratch: about {plan['scratch_bytes'] / 1e6:,.0f} MB{free}"]
    if plan["free_bytes"] is not None and plan["scratch_bytes"] > plan["free_bytes"]:
        lines.append("the work folder's disk is too small; name another with `work:`")
    return "\n".join(lines)


def _selection(entry: dict[str, Any]) -> Iterator[str]:
    """What a selection will keep of every group, as far as that is known."""
    yield f"{entry['stage']}: known {entry['known']}" + (f": {entry['error']}" if "error" in entry else "")
    if entry.get("estimate"):
        unit, budget, about = (entry["estimate"][key] for key in ("unit", "budget", "about"))
        yield f"  asks for {budget:,} {unit}; the input has about {about:,}, before anything is dropped"
    if entry.get("selection"):
        yield from selection_lines(entry, always=True)
