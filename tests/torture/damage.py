"""Files damaged in every way that disks, cables and people know."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

#: What readers of text fall over.
_PIECES: Final = [
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r",
    b"\n\n",
    b'"',
    b"'",
    b"\\",
    b"{",
    b"[" * 3000,
    b"(" * 3000,
    b"9" * 5000,
    b"1e400",
    b"-inf",
    b"NaN",
    b"null",
    b"\xed\xa0\x80",
    b"\xf0\x9f\x98\x80",
    b"../../../../etc/passwd",
    b"\t\t",
    b";",
    b"a." * 900,
    b"\x80\x04c__builtin__\nexit\n",
    b"__import__('os').system('id')",
    b"PK\x03\x04",
    b"\x1f\x8b\x08",
    b"PAR1",
    b"ARROW1\0\0",
]


def damaged(content: bytes, seed: int) -> bytes:
    """Return a file's content with damage: the same one for the same seed."""
    rng = random.Random(seed)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        content = rng.choice(_WAYS)(content, rng)
    return content


def _flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        if changed:
            bit = rng.randrange(8 * len(changed))
            changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _flipped_at_an_end(content: bytes, rng: random.Random) -> bytes:
    """Heads and tails hold what tells where all the rest is."""
    size = min(len(content), 200)
    if rng.random() < 0.5:
        return _flipped(content[:size], rng) + content[size:]
    return content[: len(content) - size] + _flipped(content[len(content) - size :], rng)


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _without(content: bytes, rng: random.Random) -> bytes:
    begin, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    return content[:begin] + content[min(end, begin + 5000) :]


def _spliced(content: bytes, rng: random.Random) -> bytes:
    """A piece of the file in another place of it."""
    at, begin, end = rng.randrange(len(content) + 1), *sorted(rng.randrange(len(content) + 1) for _ in range(2))
    piece = content[begin : min(end, begin + 5000)]
    return content[:at] + piece + content[at + rng.choice([0, len(piece)]) :]


def _overwritten(content: bytes, rng: random.Random) -> bytes:
    at, size = rng.randrange(len(content) + 1), rng.choice([1, 4, 100, 4096])
    piece = rng.choice([bytes(size), b"\xff" * size, rng.randbytes(size)])
    return content[:at] + piece + content[at + size :]


def _with_piece(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content) + 1)
    return content[:at] + rng.choice(_PIECES) + content[at:]


def _twice(content: bytes, rng: random.Random) -> bytes:
    return content + content


def _random(content: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice([0, 1, 16, 1000, 9000]))


def _random_after_head(content: bytes, rng: random.Random) -> bytes:
    head = rng.choice([4, 16, 100])
    return content[:head] + rng.randbytes(max(len(content) - head, 0))


_WAYS: Final[list[Callable[[bytes, random.Random], bytes]]] = [
    *[_flipped] * 5,
    *[_flipped_at_an_end] * 3,
    _cut,
    _cut,
    _without,
    *[_spliced] * 2,
    *[_overwritten] * 2,
    *[_with_piece] * 3,
    _twice,
    _random,
    _random_after_head,
]
