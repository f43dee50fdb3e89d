"""Bytes of a file, unpacked; what is damaged, endless or made to fill a memory is refused."""

from __future__ import annotations

import bz2
import errno
import gzip
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from recmodels.data.interactions import DataError

#: Of the files in an archive, the one that holds the ratings, by the names that GroupLens gives it.
RATINGS_IN_ARCHIVE = ("u.data", "ratings.dat", "ratings.csv")

#: Tables pack to a third or a twentieth of their size, not to a two-hundredth; small ones may be anything.
MOST_TIMES, ALWAYS_BYTES = 200, 1 << 26

#: How files of other kinds begin, whatever they are called.
_BEGINNINGS = {
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"\x1f\x8b": "a gzip archive",
    b"BZh91AY&SY": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive",
    b"PAR1\x15": "a Parquet file",
    b"ARROW1\0\0": "an Arrow file",
    b"SQLite format 3": "a database",
    b"\x89HDF": "an HDF5 file",
    b"\x80\x04": "a pickle",
}

# What the standard library's readers raise when archives are damaged, the documented and the others.
_DAMAGE = (
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
)


class Unpacked:
    """The bytes of a file, or of the file in an archive.

    Attributes:
        name: the file's name; in a .zip archive, the name in there.
    """

    def __init__(self, path: Path, name: str, raw: IO[bytes]) -> None:
        self.name = name
        self._path = path
        self._raw = raw
        self._size = 0

    def read(self, size: int) -> bytes:
        """Return so many bytes, or fewer at the end.

        Raises:
            DataError: damaged, or made to fill a memory.
        """
        with _damage_named(self._path):
            content = self._raw.read(size)
        if not self._size:
            self._refuse_other_kinds(content)
        self._size += len(content)
        require_unpacked_size(self._path, self._size)
        return content

    def _refuse_other_kinds(self, content: bytes) -> None:
        for beginning, kind in _BEGINNINGS.items():
            if content.startswith(beginning):
                raise DataError(
                    f"{self._path.name}: is no text, and begins like {kind}; give it that ending (.gz, .bz2, "
                    ".zip, .parquet, .arrow), or save it as one of these or as text"
                )


@contextmanager
def open_unpacked(path: Path) -> Iterator[Unpacked]:
    """Open a file; .gz and .bz2 are unpacked, and of a .zip the ratings, or else its only file.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: no regular file, or a damaged archive.
    """
    require_file(path)
    ending = path.suffix.lower()
    if ending == ".zip":
        with _damage_named(path):
            archive = zipfile.ZipFile(path)
        with archive:
            member = _ratings_in(path.name, archive)
            with _damage_named(path):
                raw = archive.open(member)
            with raw:
                yield Unpacked(path, Path(member).name, raw)
        return
    unpack: Any = {".gz": gzip.open, ".bz2": bz2.open}.get(ending, open)
    with unpack(path, "rb") as raw:
        yield Unpacked(path, path.name, raw)


def require_file(path: Path) -> None:
    """Refuse folders, and pipes and devices, which may never end.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it is no regular file.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device; save what it holds to a file"
        raise DataError(f"{path}: a regular file is needed, and this is {kind}")


def require_unpacked_size(path: Path, size: int) -> None:
    """Refuse a file whose content is larger than that of any table that was packed.

    Raises:
        DataError: it is.
    """
    if size > MOST_TIMES * path.stat().st_size + ALWAYS_BYTES:
        raise DataError(
            f"{path.name}: unpacks to more than {MOST_TIMES} times its size; if that is right, unpack it"
        )


def _ratings_in(source: str, archive: zipfile.ZipFile) -> str:
    files = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    chosen = [name for name in files if Path(name).name in RATINGS_IN_ARCHIVE] or files
    if len(chosen) != 1:
        raise DataError(
            f"{source}: holds {len(files)} files, {', '.join(RATINGS_IN_ARCHIVE)} not among them or there twice; "
            "unpack the one to read"
        )
    return chosen[0]


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # a place before the file's beginning
            raise OSError(error.errno, error.strerror, str(path)) from error  # the disk's own trouble
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path.name}: the archive is damaged or locked ({error}); get it again, or unpack it by hand")
