"""Whether a device can be used on this machine, asked before a model is read for it."""

from __future__ import annotations

import torch

from tasks.errors import ParamsError


def check_device(name: str) -> None:
    """Raises ParamsError for a device that torch does not know or that is not here."""
    try:
        torch.empty(1, device=name)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ParamsError(f"run.device: `{name}` cannot be used here: {reason}") from None
