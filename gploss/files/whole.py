"""Files that are written whole or not at all, whenever the machine stops."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def write_bytes_atomic(path: str | Path, content: bytes) -> None:
    """Write a file so that, whenever the machine stops, it holds the old or the new content in full.

    The content goes to a hidden file beside it, is flushed to disk, and then takes the old one's name.

    Args:
        path: the file; its folder must exist. A symbolic link is followed.
        content: all of the file.

    Raises:
        OSError: it cannot be written (no such folder, no permission, disk full); the message names the
            file, and an earlier file is unchanged.
    """
    target = Path(path).resolve()
    if not target.parent.is_dir():
        raise FileNotFoundError(f"cannot write {target}: the folder {target.parent} does not exist; make it first")
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(6)}.tmp")
    try:
        try:
            with temporary.open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(target.parent)
    except OSError as error:
        fate = "an earlier file of that name is unchanged" if target.exists() else "nothing was written"
        reason = error.strerror or str(error)
        message = f"cannot write {target}: {reason}; {fate}. Free some space or choose another folder"
        raise OSError(error.errno or 0, message) from error


def _sync_folder(folder: Path) -> None:
    """Make the new name last through a power failure, where the system lets a folder be flushed."""
    if os.name != "posix":
        return
    # the file is complete by now; a file system that cannot flush folders is no reason to fail
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text_atomic(path: str | Path, text: str) -> None:
    """Write a text file (UTF-8) whole or not at all; see ``write_bytes_atomic``.

    Raises:
        OSError: it cannot be written; an earlier file is unchanged.
    """
    write_bytes_atomic(path, text.encode("utf-8"))


def write_csv_atomic(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a table as CSV, without its index, whole or not at all; see ``write_bytes_atomic``.

    Floats keep all their digits, missing values are empty, lines end in a plain newline.

    Raises:
        OSError: it cannot be written; an earlier file is unchanged.
    """
    write_text_atomic(path, frame.to_csv(index=False, lineterminator="\n"))
