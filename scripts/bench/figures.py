"""From what was measured to the figures, every one with all its rounds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bench.cases import ON_RAY, ON_STORE, WORKERS, Case
from bench.rounds import Pair, Runs
from bench.texts import SIZES, Text

WORKERS_BAR = 1.85
BARS = {ON_STORE: 0.7, ON_RAY: 0.8}
PACKAGE, KERNEL = "fastText package", "fastText score"


def marginal(pair: Pair | None, what: str, text: Text) -> float | None:
    """MB per second of 2x minus 1x by `cpu_s` or `wall_s`; None where noise is larger than the difference."""
    if pair is None:
        return None
    seconds = getattr(pair.usages["2x"], what) - getattr(pair.usages["1x"], what)
    return text.more_mb / seconds if seconds > 0 else None


def startup(pair: Pair | None, rate: float | None, text: Text) -> float | None:
    """CPU seconds of 1x that its text doesn't explain."""
    return pair.usages["1x"].cpu_s - text.mb("1x") / rate if pair and rate else None


def median(values: Sequence[float | None]) -> float | None:
    """Of those that there are."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def spread(values: Sequence[float | None]) -> dict[str, Any]:
    """A figure with what it is the median of."""
    return {"median": median(values), "rounds": list(values)}


def ratios(above: Sequence[float | None], below: Sequence[float | None]) -> list[float | None]:
    """Round by round, as far as both have come."""
    return [a / b if a and b else None for a, b in zip(above, below, strict=False)]


def case_figures(case: Case, pairs: Sequence[Pair | None]) -> dict[str, Any]:
    """Rates, start-up, memory, and the runs they come from."""
    by_cpu = [marginal(pair, "cpu_s", case.text) for pair in pairs]
    found = [pair for pair in pairs if pair]
    figures = {
        "text": case.text.kind,
        "mb": {size: case.text.mb(size) for size in SIZES},
        "peer": case.is_peer,
        "by_wall": case.by_wall,
        "mb_per_cpu_s": spread(by_cpu),
        "mb_per_wall_s": spread([marginal(pair, "wall_s", case.text) for pair in pairs]),
        "startup_cpu_s": spread(
            [startup(pair, rate, case.text) for pair, rate in zip(pairs, by_cpu, strict=True)]
        ),
        "max_rss_bytes": max((u.max_rss_bytes for p in found for u in p.usages.values()), default=None),
        "runs": [pair and {size: asdict(pair.usages[size]) for size in SIZES} for pair in pairs],
        "n_read": None,
        "n_kept": None,
        "seconds": {},
    }
    if found:
        last = found[-1].outcomes["2x"]
        figures |= {"n_read": last.n_read, "n_kept": last.n_kept, "seconds": dict(last.seconds)}
        alone = [pair and pair.outcomes["2x"].alone_cpu_s for pair in pairs]
        if any(alone):
            rates = [case.text.mb("2x") / seconds if seconds else None for seconds in alone]
            figures["alone_mb_per_cpu_s"] = spread(rates)
    return figures


def all_ratios(
    cases: Sequence[Case], figures: Mapping[str, dict[str, Any]], kernels: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Our cases to the floor and to each peer, two workers to one, our fastText kernel to the package."""

    def ratio(a: str, b: str, what: str = "mb_per_cpu_s") -> dict[str, Any]:
        return {"of": a, "to": b, **spread(ratios(figures[a][what]["rounds"], figures[b][what]["rounds"]))}

    found = [
        ratio(case.name, case.floor)
        for case in cases
        if case.floor and case.floor in figures and not case.by_wall
    ]
    for case in cases:
        if case.name in BARS and case.floor and case.floor in figures:
            wall = ratio(case.name, case.floor, "mb_per_wall_s")
            wall |= {"of": f"{case.name}, wall", "to": f"{case.floor}, wall"}
            found.append(wall)
            (wall if case.by_wall else next(r for r in found if r["of"] == case.name))["bar"] = BARS[
                case.name
            ]
    for peer in cases:
        found += [ratio(ours, peer.name) for ours in peer.against if ours in figures]
    package = figures.get(PACKAGE, {}).get("alone_mb_per_cpu_s")
    kernel = kernels.get("bare", {}).get(KERNEL)
    if package and kernel:
        both = ratios(kernel["rounds"], package["rounds"])
        found.append({"of": f"kernel {KERNEL}", "to": f"{PACKAGE}, predict alone", **spread(both)})
    if all(name in figures for name in WORKERS):
        found.append({**ratio(WORKERS[1], WORKERS[0], "mb_per_wall_s"), "bar": WORKERS_BAR})
    return found


def summarise(cases: Sequence[Case], runs: Runs) -> dict[str, Any]:
    """{"cases", "ratios", "kernels", "failures"}."""
    figures = {case.name: case_figures(case, runs.pairs[case.name]) for case in cases}
    kernels = {
        text: {name: spread([rates[text][name] for rates in runs.kernels]) for name in names}
        for text, names in (runs.kernels[0].items() if runs.kernels else ())
    }
    return {
        "cases": figures,
        "ratios": all_ratios(cases, figures, kernels),
        "kernels": kernels,
        "failures": {name: list(messages) for name, messages in runs.failures.items() if messages},
    }
