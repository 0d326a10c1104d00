"""The figures for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.texts import SIZES


def show(value: float | None, digits: int = 1) -> str:
    """A number, or - where there is none."""
    return "-" if value is None else f"{value:,.{digits}f}"


def adaptive(value: float | None) -> str:
    """Three digits or so."""
    size = abs(value or 0)
    return show(value, 2 if size < 10 else 1 if size < 100 else 0)


def all_rounds(figure: dict[str, Any], digits: int | None = None) -> str:
    """Every round's value."""
    return " ".join(adaptive(v) if digits is None else show(v, digits) for v in figure["rounds"])


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    ]


def case_row(name: str, case: dict[str, Any]) -> list[str]:
    rate = case["mb_per_wall_s" if case["by_wall"] else "mb_per_cpu_s"]
    memory = case["max_rss_bytes"]
    return [
        name,
        "/".join(f"{case['mb'][size]:.0f}" for size in SIZES),
        adaptive(rate["median"]),
        all_rounds(rate),
        show(case["startup_cpu_s"]["median"], 2),
        show(memory and memory / 1e6, 0),
        f"{case['n_kept'] / case['n_read']:.1%}" if case["n_read"] else "-",
    ]


def ratio_row(ratio: dict[str, Any]) -> list[str]:
    bar = f" (bar {ratio['bar']})" if "bar" in ratio else ""
    return [f"{ratio['of']} / {ratio['to']}{bar}", show(ratio["median"], 2), all_rounds(ratio, 2)]


def kernel_row(name: str, kernels: dict[str, Any]) -> list[str]:
    row = [name]
    for rates in kernels.values():
        row += [show(rates[name]["median"], 0), all_rounds(rates[name], 0)]
    return row


def by_seconds(item: tuple[str, float]) -> float:
    return -item[1]


def worker_seconds(seconds: dict[str, float]) -> list[str]:
    total = sum(seconds.values())
    rows = [[part, f"{s:.2f}", f"{s / total:.0%}"] for part, s in sorted(seconds.items(), key=by_seconds)]
    return columns([["recipe, 2x, last round: worker seconds", "s", "share"], *rows])


def head(result: dict[str, Any]) -> list[str]:
    where, base = result["machine"], result["base"]
    lines = [
        f"{where['cpu']}, {where['cpus']} CPUs, {where['memory_gb']} GB, {where['system']}",
        ", ".join(f"{name} {version}" for name, version in result["versions"].items() if version),
    ]
    peers = result["peers"]
    lines += [
        f"{name}: {', '.join(peer['requirements'])} (Python {peer['python']})" for name, peer in peers.items()
    ]
    lines.append(
        f"copies of {base['n_bytes'] / 1e6:,.0f} MB of real text in {base['n_docs']:,} docs, "
        f"{base['bytes_per_word']:.1f} bytes a word; a suffix of {result['suffix_bytes']} a word"
    )
    load = " ".join(f"{value:.1f}" for value in where["load_average"])
    return [*lines, f"load average at the end {load} (the benchmark itself is 1)", *result["notes"]]


def render(result: dict[str, Any]) -> str:
    """All tables."""
    header = [
        "MB of text per CPU second (wall)",
        "MB 1x/2x",
        "median",
        "rounds",
        "start-up s",
        "peak MB",
        "kept",
    ]
    lines = [*head(result), ""]
    lines += columns([header, *(case_row(name, case) for name, case in result["cases"].items())])
    for name, messages in result["failures"].items():
        lines.append(f"{name} failed {len(messages)} times: {messages[-1].splitlines()[-1]}")
    if result["ratios"]:
        rows = [ratio_row(ratio) for ratio in result["ratios"]]
        lines += ["", *columns([["ratio of the rates", "median", "rounds"], *rows])]
    if kernels := result["kernels"]:
        header = ["kernels alone", *(cell for text in kernels for cell in (f"{text} text", "rounds"))]
        names = next(iter(kernels.values()))
        lines += ["", *columns([header, *(kernel_row(name, kernels) for name in names)])]
    if seconds := result["cases"].get("recipe", {}).get("seconds"):
        lines += ["", *worker_seconds(seconds)]
    return "\n".join(lines)
