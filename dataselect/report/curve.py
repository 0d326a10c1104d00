"""What a choice of bands finds, and what it costs: `dataselect dedup-curve`."""

from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError

from dataselect.core.errors import RecipeError
from dataselect.core.lsh import candidate_probability
from dataselect.engine.join import JOIN_BYTES
from dataselect.planning.mistakes import explain
from dataselect.stages.minhash_dedup import MinhashDedup

_BAR = 30


def describe(threshold: float, num_perm: int, bands: str, n_docs: int) -> dict[str, Any]:
    """The S-curve of these parameters of `minhash_dedup`, and disk and memory for n_docs documents.

    bands: auto, datasketch, or bands x rows as 14x8. RecipeError where a value is impossible.
    """
    match = re.fullmatch(r"(\d+)x(\d+)", bands)
    chosen = (int(match[1]), int(match[2])) if match else bands
    try:
        stage = MinhashDedup.model_validate({"threshold": threshold, "num_perm": num_perm, "bands": chosen})
    except ValidationError as error:
        first = error.errors()[0]
        name = "bands" if "bands" in first["loc"] else ".".join(str(step) for step in first["loc"])
        raise RecipeError(": ".join(filter(None, [name, explain(first, MinhashDedup)]))) from None
    n_bands, n_rows = stage.bands_rows()
    return {
        "threshold": threshold,
        "num_perm": num_perm,
        "bands": n_bands,
        "rows": n_rows,
        "found_at_threshold": candidate_probability(threshold, n_bands, n_rows),
        "half_found_at": (1 - 0.5 ** (1 / n_bands)) ** (1 / n_rows),
        "curve": [
            {"jaccard": k / 20, "candidate": candidate_probability(k / 20, n_bands, n_rows)}
            for k in range(21)
        ],
        "docs": n_docs,
        "disk_bytes": n_docs * stage.bytes_per_doc(),
        "memory_bytes": n_docs * JOIN_BYTES,
    }


def render(curve: dict[str, Any]) -> str:
    """Lines for people."""
    at_threshold = f"{curve['threshold']:g}, {curve['found_at_threshold']:.1%} become candidates"
    lines = [
        f"{curve['bands']} bands of {curve['rows']} rows, of {curve['num_perm']} hash functions",
        f"of pairs at the threshold, {at_threshold}; half of those at {curve['half_found_at']:.3f}",
        "",
        "Jaccard  candidates",
    ]
    for point in curve["curve"]:
        bar = "#" * round(_BAR * point["candidate"])
        mark = "  <- threshold" if abs(point["jaccard"] - curve["threshold"]) < 1e-9 else ""
        line = f"   {point['jaccard']:.2f}    {point['candidate']:8.3%}  {bar.ljust(_BAR)}{mark}"
        lines.append(line.rstrip())
    disk, memory = f"{curve['disk_bytes'] / 1e9:,.1f} GB", f"{curve['memory_bytes'] / 1e9:,.1f} GB"
    needs = f"about {disk} in the work folder, and {memory} of memory in the last task"
    return "\n".join([*lines, "", f"{curve['docs']:,} documents: {needs}"])
