"""Every error a user can meet, and the exit code that goes with it.

DataselectError (1)
├── RecipeError (2)      the recipe or the command line is wrong; nothing was run
├── BadShard (1)         a shard can't be read to its end
├── BadModel (1)         a model or target file is not what its name promises
├── StoreError (1)       a store refused, or kept failing after several tries
├── TornArtifact (1)     a work file is gone or damaged; the run deletes it and makes it again
├── TaskFailed (1)       a task failed in a way we did not foresee
├── ExpectFailed (3)     an `expect:` guard failed; nothing was published
└── Locked (4)           another run holds the output's lock
"""

from __future__ import annotations


class DataselectError(Exception):
    """A failure with one clear sentence for the user; printed without a traceback."""

    exit_code = 1


class RecipeError(DataselectError):
    """The recipe, its files or the command line are wrong; found before any work."""

    exit_code = 2


class BadShard(DataselectError):
    """A shard is truncated, corrupt, vanished or changed while it was read."""


class BadModel(DataselectError):
    """A model file is no model, is of an unsupported kind, or lacks the label asked for."""


class StoreError(DataselectError):
    """A store refused a request, or went on failing: never a fault of what is stored there."""


class TornArtifact(DataselectError):
    """An artifact is missing or not what was written: a power loss, a deleted file, a bad disk."""

    def __init__(self, place: str, name: str) -> None:
        super().__init__(place, name)
        self.name = name

    def __str__(self) -> str:
        return f"{self.args[0]}/{self.name}: a work file is damaged or missing"


class TaskFailed(DataselectError):
    """A task failed in a way we did not foresee: the text ends with its traceback, for a bug report."""


class ExpectFailed(DataselectError):
    """The result is outside what the recipe's `expect:` allows."""

    exit_code = 3


class Locked(DataselectError):
    """Another run holds the lock of this output folder."""

    exit_code = 4
