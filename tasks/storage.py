"""A disk that is full, read-only or forbidden is said in one line, not as a trace."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.errors import StorageError

_FAULTS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EROFS: "choose another folder",
    errno.EACCES: "see to the permissions",
    errno.EPERM: "see to the permissions",
    errno.EIO: "look after the disk",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


@contextmanager
def telling_storage_faults() -> Iterator[None]:
    """Raise StorageError, with the path and what to do, for an OSError that speaks of the disk; others pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FAULTS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        raise StorageError(
            f"{where}{os.strerror(error.errno)}; {_FAULTS[error.errno]} and run again: it goes on from what is done"
        ) from error
