"""The funnel of a run as a table: rows, bytes and words in and out of every stage."""

from __future__ import annotations

from typing import Any

from dataselect.report.cells import table
from dataselect.report.mixture import selection_lines

_CLUSTERS = 5  # of a dedup that are named
_DROPPED = 2  # documents of each, besides the one that stays
_NAME = 24  # characters


def render(report: dict[str, Any]) -> str:
    """Lines for people; the same figures are in the report's JSON."""
    rows = [["stage", "docs in", "docs out", "kept", "MB in", "MB out", "words out", "seconds", "MB/s"]]
    rows += [_row(stage) for stage in report["funnel"]]
    lines = [*table(rows), ""]
    lines += [f"  {rule}" for rule in _rules(report)]
    lines += [f"  {line}" for stage in report["funnel"] for line in _lengths(stage)]
    lines += [f"  {note}" for note in report["notes"]]
    lines += [f"  {text}" for dedup in report["dedups"] for text in _clusters(dedup)]
    lines += [f"  {line}" for stage in report["funnel"] for line in selection_lines(stage)]
    lines += [f"  {stage['stage']}: {text}" for stage in report["funnel"] for text in stage["warnings"]]
    counts = report["rows"]
    kept = f"{counts['kept']:,} kept + {counts['dropped']:,} dropped + {counts['quarantined']:,} quarantined"
    unsampled = f" + {counts['unsampled']:,} outside the sample" if counts["unsampled"] else ""
    lines.append(f"rows in {counts['in']:,} = {kept}{unsampled}")
    if counts["written"] != counts["kept"]:
        lines.append(f"rows out {counts['written']:,}: kept rows as often as they were chosen")
    for name, phase in report["phases_of_training"].items():
        what = f"{phase['docs']:,} rows, {phase['copies']:,} with copies, {phase['n_words']:,} words"
        lines.append(f"phase {name}: {what}")
    if counts.get("heldout"):
        lines.append(f"rows held out {counts['heldout']:,}: kept, but in heldout/")
    lines += [f"bad shard: {message}" for message in report["bad_shards"].values()]
    memory = report["max_rss_bytes"]
    tasks = report["tasks"]
    lines.append(
        f"{report['wall_s']:.1f} s, {report['workers']} worker{'s' * (report['workers'] != 1)}, "
        f"{tasks['run']} tasks run, {tasks['reused']} reused, "
        f"text read at most {report['reads_of_text']} times, "
        f"peak memory {_mb(memory['worker'])} a worker, {_mb(memory['coordinator'])} coordinator"
    )
    return "\n".join(lines + _outcome(report))


def _outcome(report: dict[str, Any]) -> list[str]:
    if report["up_to_date"]:
        return [f"nothing changed: generation {report['generation']} is up to date"]
    if report["generation"] is None:
        return ["sample run: nothing was published"]
    return [f"published generation {report['generation']}, digest {report['digest']}"]


def _row(stage: dict[str, Any]) -> list[str]:
    before, after = stage["in"], stage["out"]
    share = after["docs"] / before["docs"] if before["docs"] else 1.0
    seconds = f"{stage['seconds']:.2f}" if stage["seconds"] else "-"
    rate = f"{stage['mb_per_s']:.0f}" if stage["mb_per_s"] else "-"
    return [
        stage["stage"],
        f"{before['docs']:,}",
        f"{after['docs']:,}",
        f"{share:.1%}",
        f"{before['n_bytes'] / 1e6:,.1f}",
        f"{after['n_bytes'] / 1e6:,.1f}",
        f"{after['n_words']:,}",
        seconds,
        rate,
    ]


def _rules(report: dict[str, Any]) -> list[str]:
    rules = [f"quarantined: {reason}: {n:,}" for reason, n in report["quarantined"].items()]
    for name, n_misfits in report["field_misfits"].items():
        if n_misfits:
            rules.append(f"field {name}: {n_misfits:,} values of another type, read as null")
    for stage in report["funnel"]:
        rules += [
            f"{stage['stage']}: {rule}: {n['docs']:,}" for rule, n in stage["dropped"].items() if n["docs"]
        ]
    return rules


def _lengths(stage: dict[str, Any]) -> list[str]:
    """How a selection changed the lengths, in words."""
    if not stage.get("lengths") or not stage["out"]["docs"]:
        return []
    before, after = (stage["lengths"][side]["n_words"] for side in ("in", "out"))
    names = {"mean": "mean", "p10": "10 %", "p50": "median", "p90": "90 %"}
    parts = [f"{name} {before[key]:,.0f} -> {after[key]:,.0f}" for key, name in names.items()]
    return [f"{stage['stage']}: words of a document, before -> kept: {', '.join(parts)}"]


def _clusters(dedup: dict[str, Any]) -> list[str]:
    """How many clusters a dedup found, and a line for each of the largest."""
    clusters = dedup["clusters"]
    if not clusters["n"]:
        return []
    compared = f", {dedup['n_candidates']:,} pairs compared" if dedup["n_candidates"] else ""
    compared += f", {dedup['n_exact']:,} of them exactly" if dedup["n_exact"] else ""
    compared += f", {dedup['n_matched_old']:,} documents match old ones" if "n_matched_old" in dedup else ""
    largest = clusters["largest"][:_CLUSTERS]
    width = len(f"{largest[0]['size']:,}")
    found = f"{dedup['stage'].split(':', 1)[1]}: {clusters['n']:,} clusters{compared}; the largest:"
    return [found, *(f"  {_cluster(cluster, width)}" for cluster in largest)]


def _cluster(cluster: dict[str, Any], width: int) -> str:
    kept, *dropped = (
        _shortened(row["id"] or f"{row['shard']}:{row['row']}")
        for row in (cluster["kept"], *cluster["dropped"][:_DROPPED])
    )
    dots = ", ..." if cluster["size"] > 1 + len(dropped) else ""
    least = cluster["least_similarity"]
    similar = "" if least in (None, 1) else f", J >= {least:.2f}"
    return f"{cluster['size']:>{width},} documents{similar}: {kept} stays for {', '.join(dropped)}{dots}"


def _shortened(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME // 2 - 2]}...{name[-_NAME // 2 + 1 :]}"


def _mb(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.0f} MB"
