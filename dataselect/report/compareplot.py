"""A comparison as a picture: one panel a measure, selections over their random controls. SVG, no library."""

from __future__ import annotations

from html import escape
from typing import Any

_PANELS = (
    ("kl_reduction", "KL reduction, nats (more is better)"),
    ("kl_reduction_2", "KL reduction, 3-grams (more is better)"),
    ("bits_per_byte", "bits per byte of the target (less is better)"),
)
_ROW, _PANEL, _NAMES, _GAP, _TOP = 20, 240, 230, 30, 40
_POINTS = {"selection": ("#c0392b", 5.0), "control": ("#7f8c8d", 2.5)}


def render(report: dict[str, Any]) -> str:
    """The SVG document."""
    rows = _rows(report)
    width = _NAMES + len(_PANELS) * (_PANEL + _GAP)
    height = _TOP + _ROW * len(rows) + 40
    size = f'width="{width}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
        f'<rect {size} fill="white"/>',
        _text(8, 18, f"{report['tokens']:,} tokens each; red: selection, grey: random draws from raw"),
    ]
    for i, (name, _) in enumerate(rows):
        parts.append(_text(8, _y(i) + 4, name))
    for number, (measure, title) in enumerate(_PANELS):
        parts += _panel(_NAMES + number * (_PANEL + _GAP), measure, title, rows)
    return "\n".join([*parts, "</svg>", ""])


def _rows(report: dict[str, Any]) -> list[tuple[str, dict[str, list[float]]]]:
    """(name, measure -> values); one value for a selection, one a seed for a control."""
    rows = []
    for selection in report["selections"]:
        measures = [measure for measure, _ in _PANELS]
        rows.append((selection["name"], {m: [selection["measures"][m]] for m in measures}))
        for kind, control in selection["controls"].items():
            rows.append((f"    {kind}", {m: control[m]["values"] for m in measures}))
    return rows


def _panel(left: int, measure: str, title: str, rows: list[tuple[str, dict[str, list[float]]]]) -> list[str]:
    values = [value for _, row in rows for value in row[measure]]
    low, high = min(values), max(values)
    width = (high - low) or 1.0
    bottom = _TOP + _ROW * len(rows)
    parts = [
        _text(left, _TOP - 6, title),
        f'<rect x="{left}" y="{_TOP}" width="{_PANEL}" height="{bottom - _TOP}" fill="none" stroke="#ccc"/>',
        _text(left, bottom + 16, f"{low:.4g}"),
        _text(left + _PANEL, bottom + 16, f"{high:.4g}", anchor="end"),
    ]
    for i, (name, row) in enumerate(rows):
        colour, radius = _POINTS["control" if name.startswith(" ") else "selection"]
        for value in row[measure]:
            x = left + 8 + (value - low) / width * (_PANEL - 16)
            parts.append(f'<circle cx="{x:.1f}" cy="{_y(i)}" r="{radius}" fill="{colour}" opacity="0.8"/>')
    return parts


def _y(row: int) -> int:
    return _TOP + _ROW * row + _ROW // 2


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    indent = 12 * text.startswith(" ")
    return f'<text x="{x + indent}" y="{y}" text-anchor="{anchor}">{escape(text.strip())}</text>'
