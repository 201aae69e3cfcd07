"""Every error ScalSelect raises on purpose.

    ScalSelectError
    ├── InputError            the user's to mend; the message names the file, row or key, and the fix  (exit 2)
    │   ├── ParamsError       params.yaml or --set: unknown key, wrong type, values that contradict each other
    │   ├── DatasetError      the dataset cannot be opened, recognised or read any further
    │   ├── ModelError        the checkpoint is missing, unsafe, or of a family we cannot read rightly
    │   ├── FeatureError      features that cannot be scored: NaN, wrong width, a missing signal
    │   ├── GateError         validation finished and a table gate failed; the report says where
    │   ├── BudgetError       the budget cannot be met exactly, and why
    │   └── LineageError      trace or verify found a file that is not the one recorded
    ├── BusyError             someone else holds the workspace; trying again later is right          (exit 1)
    ├── StorageError          a disk that is full or forbidden, object storage that refuses          (exit 1)
    │   └── AwayError         object storage that cannot be reached; trying again later is right
    └── EngineError           workers died or made no progress; finished shards are kept             (exit 1)

A single bad row is never an exception: it becomes a line in rejects.jsonl and the run goes on.
"""

from __future__ import annotations


class ScalSelectError(Exception):
    """The root: catch this to catch everything raised on purpose."""

    exit_code = 1


class InputError(ScalSelectError):
    """Something the user gave us is wrong; the message says what and how to mend it."""

    exit_code = 2


class ParamsError(InputError):
    """A setting is unknown, of the wrong type, or contradicts another."""


class DatasetError(InputError):
    """The dataset cannot be opened, recognised, or read any further."""


class ModelError(InputError):
    """The checkpoint is missing, unsafe to load, or of a family we cannot read rightly."""


class FeatureError(InputError):
    """Features that cannot be scored: not finite, wrong width, or a signal that was not extracted."""


class GateError(InputError):
    """Validation finished, but the table as a whole fails a gate of params.yaml."""


class BudgetError(InputError):
    """The budget cannot be met exactly under the given constraints."""


class LineageError(InputError):
    """A recorded digest and the file it names do not agree, or a record is missing."""


class BusyError(ScalSelectError):
    """Another process holds the workspace; the same call may succeed later."""


class StorageError(ScalSelectError):
    """The disk is full, read-only or forbidden, or object storage refuses or is away; what was finished is kept."""


class AwayError(StorageError):
    """Object storage cannot be reached just now; nothing done so far is lost."""


class EngineError(ScalSelectError):
    """Workers died or made no progress; finished shards are in the store and will be reused."""
