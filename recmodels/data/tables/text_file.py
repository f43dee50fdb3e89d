"""The text of a file, decoded; what is no text is refused, with its line."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recmodels.data.interactions import DataError
from recmodels.data.tables.packed import Unpacked, open_unpacked

LONGEST_LINE = 1 << 19
PIECE = 1 << 18  # bytes decoded at once


@contextmanager
def open_text(path: Path, encoding: str) -> Iterator[TextFile]:
    """Open a text file, packed or not.

    Args:
        path: a regular file.
        encoding: any that Python knows.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is no such encoding.
        DataError: not to be unpacked, or no text in its first lines; reading on raises it where others are not.
    """
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    except (LookupError, TypeError) as error:
        raise ValueError(f"encoding is {encoding!r}; it must name one, such as 'utf-8' or 'latin-1'") from error
    with open_unpacked(path) as unpacked:
        # A mark at the beginning says that this is UTF-8; it is no part of the first name.
        marked = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
        yield TextFile(path.name, unpacked, marked)


class TextFile(io.RawIOBase):
    r"""A file's lines as a parser wants them: in UTF-8, all ending in \n, the last one too; the first is not empty.

    Attributes:
        name: the file's name; in an archive, the name in there.
        head: the first lines, as they are still to be read.
        begin: the line in which ``head`` begins, counted from 1.
        lines: line ends so far, those of ``head`` included.
        quoted: whether there was a quotation mark so far.
    """

    def __init__(self, source: str, unpacked: Unpacked, encoding: str) -> None:
        self.name = unpacked.name
        self.begin = 1
        self.lines = 0
        self.quoted = False
        self._source = source
        self._unpacked = unpacked
        self._encoding = encoding
        self._instead: tuple[str, str] | None = None
        self._ready = bytearray()
        self._pieces = self._whole_lines()
        self.head = next(self._pieces, "")

    def replace(self, text: str, single: str) -> None:
        """Give a single character that occurs nowhere in place of a text, such as a separator of two characters."""
        self._instead = text, single
        self.head = self._replaced(self.head)

    def skip_lines(self, count: int) -> None:
        """Leave out some of the lines in ``head``."""
        for _ in range(count):
            self.head = self.head[self.head.index("\n") + 1 :]
        self.begin += count
        self.head = self.head or self._replaced(next(self._pieces, ""))

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return so many bytes, or fewer at the end.

        Raises:
            DataError: damaged, too much to unpack, or no text in the encoding.
        """
        while size < 0 or len(self._ready) < size:
            piece = self.head or self._replaced(next(self._pieces, ""))
            if not piece:
                break
            self.head = ""
            self._ready += piece.encode()
        taken = bytes(self._ready if size < 0 else self._ready[:size])
        del self._ready[: len(taken)]
        return taken

    def error(self, problem: str, line: int | None = None) -> DataError:
        """Return an error that names the file and a line, where None the one after those read."""
        return DataError(f"{self._source}, line {line or self.lines + 1}: {problem}")

    def _whole_lines(self) -> Iterator[str]:
        decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(self._encoding)(), translate=True)
        text, more = "", True
        while more:
            content = self._unpacked.read(PIECE)
            more = bool(content)
            text += self._decoded(decoder, content)
            if not more and text and not text.endswith("\n"):
                text += "\n"
            if self.lines == self.begin - 1:  # nothing but empty lines so far
                filled = text.lstrip("\n")
                self.lines += len(text) - len(filled)
                self.begin, text = self.lines + 1, filled
            end = text.rfind("\n") + 1
            if len(text) - end > LONGEST_LINE:
                raise self.error(f"is longer than {LONGEST_LINE:,} characters: this is no table")
            if end:
                piece, text = text[:end], text[end:]
                self.quoted |= '"' in piece
                self.lines += piece.count("\n")
                yield piece

    def _decoded(self, decoder: io.IncrementalNewlineDecoder, content: bytes) -> str:
        try:
            return decoder.decode(content, final=not content)
        except UnicodeDecodeError as error:
            before = error.object[: error.start].decode(self._encoding, errors="ignore")
            self.lines += before.replace("\r\n", "\n").replace("\r", "\n").count("\n")
            raise self.error(
                f"this is no text in {self._encoding.removesuffix('-sig').upper()}; say which encoding it has "
                "(encoding='latin-1', 'utf-16'?)"
            ) from error
        except UnicodeError as error:
            raise DataError(f"{self._source}: this is no text in {self._encoding} ({error})") from error

    def _replaced(self, piece: str) -> str:
        if self._instead is None:
            return piece
        text, single = self._instead
        if single in piece:
            line = self.lines - piece[piece.index(single) :].count("\n") + 1
            raise self.error(
                f"holds the control character {single!r}, so that {text!r} cannot separate columns", line
            )
        return piece.replace(text, single)
