"""Small text files that people write: read whole, and only where they are what they should be."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final

MOST_BYTES: Final = 1 << 24
"""No text that people write is larger."""


def read_text(path: str | Path, *, most: int = MOST_BYTES) -> str:
    """Return the text of a regular file in UTF-8; a mark of the order of bytes is left out.

    Args:
        path: the file.
        most: how many bytes it may have.

    Raises:
        OSError: there is no such file, or it may not be read.
        ValueError: it is a folder, a pipe or a device, too large, or written in another encoding.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is no name of a file ({error}): give another") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device; save what it holds to a file"
        raise ValueError(f"{path}: a regular file is needed, and this is {kind}")
    with path.open("rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{path}: is larger than {most >> 10} KiB, which no such text is: give another file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path}, line {line}: is not in UTF-8 ({error.reason}): save it in that encoding"
        ) from error
