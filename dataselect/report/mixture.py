"""What a selection did, group by group: quotas, epochs, what repeats are worth, and what is short."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dataselect.report.cells import table

_MOST_LISTED = 20


def selection_lines(stage: dict[str, Any], *, always: bool = False) -> Iterator[str]:
    """Lines for people about one entry of the funnel; none where there is nothing to say.

    always: a table also where there are no groups and no copies.
    """
    selection = stage.get("selection")
    if not selection or "groups" not in selection:
        return
    unit, groups = selection["unit"], selection["groups"]
    repeated = any((group["copies"] or 0) > (group["kept"] or 0) for group in groups)
    if always or selection["per"] is not None or repeated:
        phase = f", for the phase {selection['as']}" if selection["as"] else ""
        per = f" per {selection['per']}" if selection["per"] is not None else ""
        yield f"{stage['stage']}: {selection['method']}{per}{phase}"
        yield from _table(unit, groups)
    lacking = selection["lacking"]
    if lacking:
        yield f"{stage['stage']}: {lacking:,} {unit} short of {selection['budget']:,}"
    unusable = sum(group["unusable"] for group in groups)
    if unusable:
        yield f"{stage['stage']}: {unusable:,} documents have no usable score, weight or size: never kept"
    if selection.get("repeated_keys"):
        yield (
            f"{stage['stage']}: {selection['repeated_keys']:,} documents have the key of another "
            "and share its draw"
        )


def _table(unit: str, groups: list[dict[str, Any]]) -> Iterator[str]:
    listed = sorted(groups, key=lambda group: -group["size"])[:_MOST_LISTED]
    rows = [["", "docs", "kept", "copies", f"{unit} there", "asked", "kept", "epochs", "unique", "worth"]]
    for group in listed:
        counts = (group[key] for key in ("docs", "kept", "copies", "supply", "asked", "size"))
        cells = ["-" if n is None else f"{n:,}" for n in counts]
        name = "(not seen before)" if group["name"] is None else group["name"] or "(no value)"
        epochs = f"{group['epochs']:.2f}"
        rows.append([name, *cells, epochs, f"{group['unique']:,}", f"{group['effective']:,}"])
    yield from (f"  {line}" for line in table(rows))
    if len(groups) > len(listed):
        yield f"  and {len(groups) - len(listed):,} more (report.json)"


def fit_lines(found: dict[str, Any]) -> Iterator[str]:
    """A fitted mixing law and its optimum."""
    yield f"{found['runs']} runs, L = floor + exp(sum of slope x share)"
    domains = list(found["shares"])
    rows = [["loss", "floor", *domains, "error", "best run", "predicted"]]
    for name, law in found["laws"].items():
        slopes = [f"{law['slopes'][domain]:.4f}" for domain in domains]
        ends = [f"{law[key]:.4f}" for key in ("error", "best_run", "predicted")]
        rows.append([name, f"{law['floor']:.4f}", *slopes, *ends])
    yield from table(rows)
    yield ""
    shares = [[name, f"{share:.4f}", f"{found['most'][name]:.4f}"] for name, share in found["shares"].items()]
    yield from table([["domain", "share", "at most"], *shares])
    yield ""
    weights = ", ".join(
        f"{name}: {share:g}" if share else f"{name}: 0.0" for name, share in found["shares"].items()
    )
    yield f"mixture: {{weights: {{{weights}}}}}"
