"""What the datatrove scripts share: reader and writer of .jsonl.zst, one task, and counts of rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter

counts = {"rows": 0, "kept": 0}


def reader(folder: str) -> Any:
    return JsonlReader(folder, glob_pattern="*.jsonl.zst")


def writer(folder: str) -> Any:
    return JsonlWriter(folder, compression="zstd")


def counting(what: str) -> Callable[..., Iterator[Any]]:
    """A step that lets all through."""

    def step(data: Iterator[Any], *_rank_and_tasks: int) -> Iterator[Any]:
        for document in data:
            counts[what] += 1
            yield document

    return step


def run(steps: list[Any], logs: str, tasks: int = 1) -> None:
    """In this process, one task after another."""
    LocalPipelineExecutor(steps, tasks=tasks, workers=1, logging_dir=logs).run()


def report() -> None:
    print(json.dumps(counts))
