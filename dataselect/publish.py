"""The output folder: who may write to it, generations, the manifest that names the live one.

OUT/000002-3f9c.../shards/...      never changes once published
                  /decisions/...   one Parquet row for every input row
                  /dropped/... /quarantine/... /fitted/... /README.md /report.json /manifest.json
OUT/current -> 000002-3f9c...      (local disks)
OUT/manifest.json                  the switch: what it names is live
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dataselect import __version__, card
from dataselect.core.errors import DataselectError, Locked, RecipeError, TornArtifact
from dataselect.core.fingerprint import fingerprint
from dataselect.core.versions import versions
from dataselect.engine.write import WRITTEN, record_name
from dataselect.io.object_lock import object_lock
from dataselect.io.store import LocalStore, Store, each, explained, is_far, temporary_name

MANIFEST = "manifest.json"
_LOCK = ".dataselect.lock"
_CURRENT = "current"
_GENERATION = re.compile(r"\d{6}-[0-9a-f]{12}$")
_OURS = {MANIFEST, _LOCK, _CURRENT}


def read_manifest(output: Store) -> dict[str, Any] | None:
    """The live manifest; None where nothing is published. RecipeError where the file is not ours."""
    try:
        manifest = json.loads(output.read(MANIFEST))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise RecipeError(f"{output.url}/{MANIFEST}: not a manifest of dataselect") from error
    if not isinstance(manifest, dict) or "dataselect" not in manifest:
        raise RecipeError(f"{output.url}/{MANIFEST}: not a manifest of dataselect")
    return manifest


def check_folder(output: Store) -> None:
    """RecipeError where the folder holds files that dataselect did not write."""
    if read_manifest(output) is not None:
        return
    if isinstance(output, LocalStore):
        if not output.root.exists():
            return
        if not output.root.is_dir():
            raise RecipeError(f"output.folder: {output.root} is a file, not a folder")
        names = {path.name for path in output.root.iterdir()}
    else:
        names = {entry.name.split("/")[0] for entry in output.list()}
    others = [name for name in sorted(names) if not _is_ours(name)]
    if others:
        raise RecipeError(
            f"output.folder: {output.url} holds files that dataselect did not write ({others[0]}"
            f"{', ...' if len(others) > 1 else ''}); name a new or an empty folder"
        )


def _is_ours(name: str) -> bool:
    return name in _OURS or name.startswith(".tmp-") or _GENERATION.match(name) is not None


@contextlib.contextmanager
def locked(output: Store) -> Iterator[Callable[[], None]]:
    """Keep two runs of one output apart. On a disk the lock goes with the process, however it ends; on an
    object store it expires (io.object_lock).

    Gives what raises Locked if it was lost. Raises Locked where another run has it.
    """
    if not isinstance(output, LocalStore):
        with object_lock(output, _LOCK) as check:
            yield check
        return
    with explained(str(output.root)):
        output.root.mkdir(parents=True, exist_ok=True)
        file = (output.root / _LOCK).open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Locked(f"{output.root}: another run is writing to this output folder") from None
        yield lambda: None


class Publisher:
    """Makes one generation from written pieces, reusing files of earlier ones."""

    def __init__(self, output: Store, work: Store, keys: list[str]) -> None:
        self._output, self._work = output, work
        self._live = read_manifest(output)
        self._entries = {entry["key"]: entry for entry in _entries(self._live or {"pieces": []})}
        number = int(self._live["generation"].split("-")[0]) + 1 if self._live else 1
        self.generation = f"{number:06d}-{fingerprint(keys)[:12]}"
        self._keys = keys
        self._sizes: dict[str, dict[str, int]] = {}
        self._records = {entry.name for entry in work.list(WRITTEN)}

    def up_to_date(self, bad_shards: Mapping[str, str]) -> dict[str, Any] | None:
        """The live manifest where it already is what this run would publish, and its files are there."""
        if self._live is None or [entry["key"] for entry in self._live["pieces"]] != self._keys:
            return None
        if self._live["bad_shards"] != bad_shards:
            return None
        live = self._live["generation"]
        return (
            self._live if all(self._present(entry["files"], live) for entry in _entries(self._live)) else None
        )

    def settle(self) -> str:
        """Finish what a publication that was killed after its switch left undone; the live digest."""
        assert self._live is not None
        self._point_and_forget(self._live["generation"], self._live["previous"])
        return str(self._live["digest"])

    def reusable(self, key: str) -> dict[str, Any] | None:
        """The record of a piece that is written already, here or in an earlier generation."""
        entry, generation = self._entries.get(key), None
        if entry is not None and self._live is not None:
            generation = self._live["generation"]
        else:
            if record_name(key) not in self._records:
                return None
            try:
                record = json.loads(self._work.read(record_name(key)))
            except (OSError, ValueError):
                return None
            generation = record["generation"]
            entry = record | {"key": key, "files": _without_folder(record["files"], generation)}
        if not self._present(entry["files"], generation):
            return None
        return {k: entry[k] for k in ("piece", "ledger", "files")} | {"key": key, "from": generation}

    def _present(self, files: dict[str, Any], generation: str) -> bool:
        """Whether the files are there with their sizes, by one listing of their generation."""
        if generation not in self._sizes:
            self._sizes[generation] = {entry.name: entry.size for entry in self._output.list(generation)}
        sizes = self._sizes[generation]
        return all(sizes.get(f"{generation}/{f['name']}") == f["n_bytes"] for f in files.values())

    def check_written(self, records: Iterable[dict[str, Any]]) -> None:
        """TornArtifact where files are not there that others said they wrote."""
        self._sizes.clear()
        for record in records:
            generation = record.get("from", self.generation)
            if not self._present(_without_folder(record["files"], generation), generation):
                raise TornArtifact(self._work.url, record_name(record["key"]))

    def assemble(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Manifest entries in this order; files of earlier generations are linked or copied."""
        pieces, copies = [], []
        for record in records:
            source = record.get("from")
            files = record["files"] if source else _without_folder(record["files"], self.generation)
            if source and source != self.generation:
                copies += [
                    (f"{source}/{f['name']}", f"{self.generation}/{f['name']}") for f in files.values()
                ]
            pieces.append({name: record[name] for name in ("piece", "key", "ledger")} | {"files": files})
        each(lambda names: self._output.copy(*names), copies, far=is_far(self._output))
        return pieces

    def publish(self, manifest: dict[str, Any], report: dict[str, Any], check: Callable[[], None]) -> str:
        """Write the manifest, switch to it, delete what is older than the generation before; the digest.

        check   of `locked`, asked just before the switch
        """
        previous = self._live["generation"] if self._live else None
        pieces = _entries(manifest)
        shards = [
            [f["name"], f["digest"]] for p in pieces for kind, f in p["files"].items() if kind == "shards"
        ]
        others = [
            [f["name"], f["digest"]] for p in pieces for kind, f in p["files"].items() if kind != "shards"
        ]
        manifest = {
            "dataselect": __version__,
            "generation": self.generation,
            "previous": previous,
            "digest": fingerprint(shards),
            "side_digest": fingerprint(others),
            "versions": versions(),
            **manifest,
        }
        with self._output.commit(f"{self.generation}/README.md") as file:
            file.write(card.render(manifest).encode())
        self._put(f"{self.generation}/report.json", report | {"digest": manifest["digest"]})
        self._put(f"{self.generation}/{MANIFEST}", manifest)
        check()
        self._put(MANIFEST, manifest)
        self._point_and_forget(self.generation, previous)
        return str(manifest["digest"])

    def _point_and_forget(self, live: str, previous: str | None) -> None:
        """Let `current` name the live generation (an object store has no links), and delete older ones."""
        if isinstance(self._output, LocalStore):
            _point(self._output.root, live)
            _forget(self._output.root, {live, previous})
            return
        names = [entry.name for entry in self._output.list()]
        old = [n for n in names if _GENERATION.match(g := n.split("/")[0]) and g not in (live, previous)]
        each(self._output.delete, old, far=True)

    def _put(self, name: str, value: dict[str, Any]) -> None:
        with self._output.commit(name) as file:
            file.write(json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n")


def _entries(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was written of every piece, and the output shards where their rows are shuffled."""
    return [*manifest["pieces"], *manifest.get("shuffled", [])]


def _without_folder(files: dict[str, Any], generation: str) -> dict[str, Any]:
    return {kind: f | {"name": f["name"].removeprefix(generation + "/")} for kind, f in files.items()}


def _point(root: Path, generation: str) -> None:
    """OUT/current, replaced in one step."""
    with explained(str(root / _CURRENT)):
        link = root / _CURRENT
        if link.is_symlink() and os.readlink(link) == generation:
            return
        temporary = root / temporary_name()
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(generation)
        os.replace(temporary, link)


def _forget(root: Path, keep: set[str | None]) -> None:
    for path in root.iterdir():
        if _GENERATION.match(path.name) and path.name not in keep and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def live_shards(output: Store, kind: str = "shards") -> list[str]:
    """Names of the live shards under the output folder, in order; DataselectError where nothing is published.

    kind   "shards", or "heldout"
    """
    manifest = read_manifest(output)
    if manifest is None:
        raise DataselectError(f"{output.url}: nothing is published here")
    files = [entry["files"].get(kind) for entry in _entries(manifest)]
    return [f"{manifest['generation']}/{f['name']}" for f in files if f]
