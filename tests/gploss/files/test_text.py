"""Text files that people write: read whole, or refused in one line."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from gploss.files.text import read_text


def test_text_is_read_with_and_without_a_mark(tmp_path: Path) -> None:
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / "text").write_bytes("größer\n".encode(encoding))
        assert read_text(tmp_path / "text") == read_text(str(tmp_path / "text")) == "größer\n"


def test_another_encoding_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes("bce\ngrößer".encode("latin-1"))
    with pytest.raises(ValueError, match=r"text, line 2: is not in UTF-8 .*: save it in that encoding"):
        read_text(tmp_path / "text")


def test_what_may_never_end_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    (tmp_path / "link").symlink_to("/dev/zero")
    for name in ("pipe", "socket", "link"):
        with pytest.raises(ValueError, match=f"{name}: a regular file is needed, and this is a pipe or a device"):
            read_text(tmp_path / name)
    with pytest.raises(ValueError, match="a regular file is needed, and this is a folder"):
        read_text(tmp_path)
    with pytest.raises(ValueError, match=r"'a.x00b' is no name of a file"):
        read_text("a\0b")
    with pytest.raises(FileNotFoundError, match="absent"):
        read_text(tmp_path / "absent")


def test_sizes_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"x" * 2048)
    assert len(read_text(tmp_path / "text", most=2048)) == 2048
    with pytest.raises(ValueError, match="text: is larger than 1 KiB"):
        read_text(tmp_path / "text", most=1024)
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match="huge: is larger than 16384 KiB"):
        read_text(tmp_path / "huge")
