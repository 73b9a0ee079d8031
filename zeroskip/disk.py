"""Disk space, checked before long work starts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from zeroskip.compiler.errors import InputError

__all__ = ["require_space"]


def require_space(folder: Path, megabytes: int) -> None:
    """Make ``folder`` and check that it can be written and has ``megabytes`` free.

    Raises
    ------
    InputError
        Naming the folder, what is needed and what there is.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Folder '{folder}' cannot be made: {error.strerror}; name another folder") from error
    if not os.access(folder, os.W_OK):
        raise InputError(f"Folder '{folder}' is not writable; name another folder")
    free = shutil.disk_usage(folder).free // 1_000_000
    if free < megabytes:
        raise InputError(
            f"Folder '{folder}' has {free} MB free, but {megabytes} MB are needed; "
            f"free some, or name a folder on another disk"
        )
