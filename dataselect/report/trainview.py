"""A model card as tables for people; all its figures are in its JSON."""

from __future__ import annotations

from typing import Any

from dataselect.report.cells import table

_MAX_LABELS = 30


def render(card: dict[str, Any]) -> str:
    """Lines for people."""
    parts = [
        _data(card),
        _labels(card),
        _cleaning(card.get("cleaning")),
        _kept(card["held_out"]),
        _calibration(card["held_out"].get("calibration")),
        _curve(card.get("learning_curve")),
        _outcome(card),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _data(card: dict[str, Any]) -> list[str]:
    rows, rule = card["rows"], card.get("score_rule")
    left = [f"{n:,} bad ({reason})" for reason, n in rows["bad"].items()]
    left += [f"{rows['empty']:,} without a word"] if rows["empty"] else []
    missing = "number" if rule else "label"
    left += [f"{rows['unlabelled']:,} without a {missing}"] if rows["unlabelled"] else []
    lines = [f"{rows['read']:,} rows in {len(card['inputs'])} shards: {rows['used']:,} documents"]
    lines[0] += f"; left out: {', '.join(left)}" if left else ""
    if rule:
        lines.append(
            f"{rule['column']}: positive from {rule['positive_min']:g} up ({rule['n_positive']:,}), "
            f"negative up to {rule['negative_max']:g} ({rule['n_negative']:,}), "
            f"{rule['n_between']:,} between are left out"
        )
    if card["n_texts_of_several_labels"]:
        lines.append(f"{card['n_texts_of_several_labels']:,} texts stand under more than one label")
    return lines


def _labels(card: dict[str, Any]) -> list[str]:
    held = card["held_out"].get("by_label", {})
    rows = [["label", "train docs", "train lines", "held out", "precision", "recall", "F1", "AUC"]]
    by_size = sorted(card["labels"].items(), key=lambda item: (-item[1]["train_docs"], item[0]))
    for name, counts in by_size[:_MAX_LABELS] if len(by_size) > _MAX_LABELS else card["labels"].items():
        figures = held.get(name, {})
        numbers = [f"{counts[key]:,}" for key in ("train_docs", "train_lines", "held_out_docs")]
        rows.append(
            [name, *numbers, *(_number(figures.get(k)) for k in ("precision", "recall", "f1", "auc"))]
        )
    more = len(card["labels"]) - _MAX_LABELS
    return [*table(rows), *([f"and {more} rarer labels, in the card"] if more > 0 else [])]


def _cleaning(cleaning: dict[str, Any] | None) -> list[str]:
    if cleaning is None:
        return []
    left_out = ", ".join(f"{n:,} {name}" for name, n in cleaning["n_left_out"].items() if n) or "none"
    return [f"labels that look wrong, left out of training: {left_out} (listed in {cleaning['file']})"]


def _kept(held: dict[str, Any]) -> list[str]:
    if "kept" not in held:
        if not held["n_docs"]:
            return ["nothing was held out: how well the model does is not known"]
        return [f"held out: accuracy {_number(held['accuracy'])}, mean AUC {_number(held['mean_auc'])}"]
    rows = [["kept", "threshold", "precision", "recall"]]
    for row in held["kept"]:
        threshold = f"{row['threshold']:.9g}"
        rows.append([f"{row['kept']:.0%}", threshold, _number(row["precision"]), _number(row["recall"])])
    head = (
        f"held out: P({held['positive_label']}) has AUC {_number(held['auc'])}, average precision "
        f"{_number(held['average_precision'])} (random: {_number(held['share_positive'])})"
    )
    return [head, *table(rows)]


def _calibration(fit: dict[str, Any] | None) -> list[str]:
    if fit is None:
        return []
    a_and_b = f"a = {fit['a']:.4f} and b = {fit['b']:.4f}"
    errors = f"{fit['ece_before']:.3f}, with {a_and_b} {fit['ece_after']:.3f}"
    return [f"calibration: expected error {errors} (the card has the formula)"]


def _curve(curve: list[dict[str, Any]] | None) -> list[str]:
    if curve is None:
        return []
    rows = [["lines", "AUC", "accuracy"]]
    rows += [[f"{row['n_lines']:,}", _number(row["auc"]), _number(row["accuracy"])] for row in curve]
    return ["learning curve", *table(rows)]


def _outcome(card: dict[str, Any]) -> list[str]:
    params, n_bytes = card["fasttext"], card["model_bytes"]
    how = f"{n_bytes / 1e6:,.1f} MB, {params['epoch']} epochs, lr {params['lr']}, {card['seconds']:.1f} s"
    return [f"{card['model']}: {how}; all figures are in {card['model']}.json"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
