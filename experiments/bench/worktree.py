"""A checkout of another commit, to be measured or compared with."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

PROJECT: Final = Path(__file__).resolve().parents[2]


@contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """A checkout of a commit, which is gone afterwards."""
    with TemporaryDirectory(prefix="gploss-") as folder:
        tree = Path(folder).resolve() / "tree"
        git = ["git", "-C", str(PROJECT), "worktree"]
        try:
            subprocess.run([*git, "add", "--quiet", "--detach", str(tree), commit], check=True)
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=tree.exists())
