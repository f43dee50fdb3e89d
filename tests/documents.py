"""Reads the project's own documents: their code blocks, and what they name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1]

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of one language, in their order."""
    return [code for found, code in _BLOCK.findall(text) if found == language]


def sections(text: str) -> dict[str, str]:
    """What stands under each second-level heading."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def run_python(code: str, folder: Path, packages: Path = PROJECT) -> str:
    """Run code in a process of its own and return what it printed.

    Args:
        code: a program.
        folder: the working folder.
        packages: where gploss, rl and recmodels are imported from.

    Raises:
        AssertionError: it failed; the message holds what it said.
    """
    script = folder / "printed_example.py"
    script.write_text(code)
    environment = os.environ | {"PYTHONPATH": str(packages), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, script.name],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
