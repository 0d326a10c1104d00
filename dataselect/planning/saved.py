"""Folders that Hugging Face `datasets` saved (`save_to_disk`): which of their files are shards."""

from __future__ import annotations

import json
import os
from typing import Any

from dataselect.core.errors import RecipeError
from dataselect.core.pieces import Shard
from dataselect.io.store import Store, store_at

_STATE, _INFO, _SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"


def saved_shards(folder: str, root: str, *, recursive: bool) -> list[Shard]:
    """The data files that a saved Dataset names; none for any other folder. Names are relative to `root`.

    folder     path or URL
    recursive  whether the pattern that matched it matches what is below, too: a DatasetDict's splits then
               come by themselves, and else it is a RecipeError that lists them
    RecipeError where a data file is missing, or rows are taken through an indices mapping.
    """
    store = store_at(folder)
    splits = _record(store, _SPLITS).get("splits")
    if splits is not None and not recursive:
        paths = ", ".join(f"{folder}/{split}" for split in splits)
        raise RecipeError(f"input.shards: {folder} holds several splits; name those you want: {paths}")
    state = _record(store, _STATE)
    if "_data_files" not in state or store.stat(_INFO) is None:
        return []
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise RecipeError(
            f"input.shards: {folder} was saved with an indices mapping, so its files hold other rows in "
            "another order; load it, call flatten_indices() and save it again"
        )
    shards = []
    for item in state["_data_files"]:
        entry = store.stat(item["filename"])
        if entry is None:
            raise RecipeError(
                f"input.shards: {folder}/{_STATE} names {item['filename']}, which is not there; copy the "
                "folder again, or save it again"
            )
        url = f"{folder}/{entry.name}"
        name = os.path.relpath(url, root).replace(os.sep, "/")
        shards.append(Shard(name, url, entry.size, entry.version))
    return shards


def is_beside(path: str) -> bool:
    """Whether a file of a shard's ending lies in a saved folder and is no shard of it.

    These are the files that say what it holds, and what `map` and `filter` computed there and kept.
    """
    folder, _, name = path.rpartition("/")
    if name == _SPLITS:
        return "splits" in _record(store_at(folder or "."), _SPLITS)
    is_cache = name.startswith("cache-") and name.endswith(".arrow")
    other = _STATE if is_cache else {_STATE: _INFO, _INFO: _STATE}.get(name)
    return other is not None and store_at(folder or ".").stat(other) is not None


def hint(folder: str) -> str:
    """What to write instead of a folder that is none of these."""
    if os.path.exists(f"{folder}/{_INFO}"):
        return f": the folder has {_INFO} but no {_STATE}; name its files: {folder}/*.arrow"
    return f": a folder, and none that `datasets` saved; name its files: {folder}/**/*.jsonl"


def _record(store: Store, name: str) -> dict[str, Any]:
    """A JSON file's object; empty where there is none."""
    try:
        record = json.loads(store.read(name))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
