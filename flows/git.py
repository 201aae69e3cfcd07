"""The few git commands a workspace needs."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tasks.errors import InputError


def init(folder: Path) -> bool:
    """Make `folder` a git repository unless it lies in one; True when it was made."""
    if top(folder) is not None:
        return False
    call(folder, "init", "--quiet")
    return True


def top(folder: Path) -> Path | None:
    """The root of the repository that `folder` lies in, or None."""
    done = _run(folder, "rev-parse", "--show-toplevel")
    return Path(done.stdout.strip()) if done.returncode == 0 else None


def commit_without(folder: Path, recorded: Sequence[str]) -> str | None:
    """The last commit that changed anything but the `recorded` files; None outside git or before the first.

    A refresh commits its own record. Naming the commit before it keeps the record the same when nothing else changed.
    """
    done = _run(folder, "log", "-1", "--format=%H", "--", ":/", *(f":(exclude){one}" for one in recorded))
    return done.stdout.strip() or None if done.returncode == 0 else None


def commit(folder: Path, paths: Sequence[str], message: str) -> str | None:
    """Commit exactly `paths`, ignored or not; returns the commit, or None when none of them changed."""
    call(folder, "add", "--force", "--", *paths)
    if _run(folder, "diff", "--cached", "--quiet", "--", *paths).returncode == 0:
        return None
    call(folder, "commit", "--quiet", "--message", message, "--", *paths)
    return call(folder, "rev-parse", "HEAD")


def tag(folder: Path, name: str, message: str) -> bool:
    """Put an annotated tag on HEAD unless one of that name exists; True when it was made."""
    if _run(folder, "rev-parse", "--verify", "--quiet", f"refs/tags/{name}").returncode == 0:
        return False
    call(folder, "tag", "--annotate", name, "--message", message)
    return True


def call(folder: Path, *arguments: str) -> str:
    """Run git in `folder`; returns its output. Raises InputError with git's own words."""
    done = _run(folder, *arguments)
    if done.returncode != 0:
        raise InputError(f"git {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise InputError("git: not found; a workspace needs git (https://git-scm.com)") from None
