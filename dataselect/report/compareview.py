"""A comparison as tables for people; all its figures are in its JSON."""

from __future__ import annotations

from typing import Any

from dataselect.report.cells import table

_MAX_SHARES = 6
_MEASURES = ("kl_reduction", "kl_reduction_2", "bits_per_byte")


def render(report: dict[str, Any]) -> str:
    """Lines for people."""
    parts = [
        _header(report),
        _measures(report),
        _coverage(report),
        *(_shares(report, what) for what in ("sources", "languages")),
        _overlap(report),
        [f"warning: {warning}" for warning in report["warnings"]],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _header(report: dict[str, Any]) -> list[str]:
    target, raw, by = report["target"], report["raw"], report["tokens_set_by"]
    why = "--max-tokens" if by == "max_tokens" else f"the size of '{by}'"
    sizes = [f"{of['docs']:,} documents, {of['tokens']:,} tokens" for of in (target, raw)]
    cut = f"each cut to {report['tokens']:,} tokens ({why}) by hash order"
    controls = f"controls are drawn from raw, {report['seeds']} seeds: mean +- standard deviation"
    return [f"target {sizes[0]}; raw {sizes[1]}", cut, controls]


def _measures(report: dict[str, Any]) -> list[str]:
    beats = f"beats, of {report['seeds']} draws"
    rows = [["", "docs", "KL reduction", "KL red. (3-grams)", "bits per byte", beats]]
    for selection in report["selections"]:
        own, controls = selection["measures"], dict(selection["controls"])
        figures = [f"{own[measure]:.4f}" for measure in _MEASURES]
        rows.append([selection["name"], f"{own['docs']:,}", *figures, _beaten(controls.pop("random"), own)])
        rows += [[*_control(f"  {kind}", found), _beaten(found, own)] for kind, found in controls.items()]
    raw = report["raw"]["divergence"]
    random = _control("random", report["selections"][0]["controls"]["random"])
    most = f"at most {raw['kl_reduction']:.4f} and {raw['kl_reduction_2']:.4f}"
    return [
        *table([*rows, [*random, ""]]),
        f"KL reduction in nats: more is better, {most}; bits per byte: less is better",
        f"'{beats}': by each of the three measures, of 'random' or of the row's own control",
    ]


def _control(name: str, control: dict[str, Any]) -> list[str]:
    spreads = (control[measure] for measure in _MEASURES)
    figures = (f"{spread['mean']:.4f} +- {spread['sd']:.4f}" for spread in spreads)
    return [name, f"{control['docs']['mean']:,.0f}", *figures]


def _beaten(control: dict[str, Any], measured: dict[str, Any]) -> str:
    """How many draws the selection beats, by each measure."""
    beaten = []
    for measure in _MEASURES:
        sign = -1 if measure == "bits_per_byte" else 1
        beaten.append(sum(sign * measured[measure] > sign * value for value in control[measure]["values"]))
    return " ".join(map(str, beaten))


def _coverage(report: dict[str, Any]) -> list[str]:
    order = report["order"]
    head = ["coverage", "all docs", "all tokens", *(f"different {n}-grams" for n in range(1, order + 1))]
    rows = [[*head, "tokens a document: 10%", "50%", "90%"]]
    rows += [
        [
            selection["name"],
            f"{selection['docs']:,}",
            f"{selection['tokens']:,}",
            *(f"{selection['measures'][f'distinct_{n}']:,}" for n in range(1, order + 1)),
            *(f"{length:,}" for length in selection["lengths"].values()),
        ]
        for selection in report["selections"]
    ]
    control, raw = report["selections"][0]["controls"]["random"], report["raw"]
    distinct = [f"{control[f'distinct_{n}']['mean']:,.0f}" for n in range(1, order + 1)]
    lengths = [f"{length:,}" for length in raw["lengths"].values()]
    rows.append(["raw, drawn at random", f"{raw['docs']:,}", f"{raw['tokens']:,}", *distinct, *lengths])
    return table(rows)


def _shares(report: dict[str, Any], what: str) -> list[str]:
    """Share of the tokens by source or language: raw's largest, and where selections differ most."""
    if what not in report["raw"]:
        return []
    columns = {"raw": report["raw"][what]} | {s["name"]: s[what] for s in report["selections"]}
    top: dict[str, float] = {}
    for shares in columns.values():
        for name, share in shares.items():
            top[name] = max(share, top.get(name, 0.0))
    names = sorted(top, key=lambda name: (-top[name], name))[:_MAX_SHARES]
    if len(names) < 2:
        return []
    head = [f"share of tokens by {what[:-1]}", *columns]
    of_name = ([name or "(none)", *(f"{s.get(name, 0.0):.1%}" for s in columns.values())] for name in names)
    return table([head, *of_name])


def _overlap(report: dict[str, Any]) -> list[str]:
    overlap = report["overlap"]
    if len(overlap) < 2:
        return []
    rows = [["documents in common (Jaccard)", *overlap]]
    rows += [[name, *(f"{of[other]:.3f}" for other in overlap)] for name, of in overlap.items()]
    return table(rows)
