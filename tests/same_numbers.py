"""Trains twenty losses here and in another commit, and compares all numbers bit for bit.

`python tests/same_numbers.py COMMIT` runs `tests/golden.py metrics` of each tree, on that tree's own packages and
with kernels compiled anew. It prints what differs, and exits with 1 where anything does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

# Before tests/, where a program finds folders of tests that have the packages' names.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.bench.worktree import PROJECT, worktree

#: Differences printed at most.
MOST_LINES: Final = 40

#: By trainer, loss, and what it is: a text or a hexadecimal number; of metrics also the epoch.
Values = dict[tuple[str, ...], str]


def numbers(tree: Path) -> Values:
    """What a tree's own program finds with the tree's own packages."""
    program = tree / "tests" / "golden.py"
    if not program.exists():
        sys.exit(f"{tree} has no tests/golden.py; name a later commit")
    with TemporaryDirectory(prefix="gploss-") as folder:
        out = Path(folder) / "metrics.json"
        done = subprocess.run(
            [sys.executable, str(program), "metrics", str(out)],
            cwd=tree,
            env=os.environ | {"PYTHONPATH": str(tree), "GPLOSS_CACHE": folder},
            stderr=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            sys.exit(f"{program} failed:\n{done.stderr}")
        origin = next(line for line in done.stderr.splitlines() if line.startswith("gploss: "))
        package = Path(origin.removeprefix("gploss: "))
        assert package.is_relative_to(tree), f"{program} imported {package}, of another tree"
        return dict(values(json.loads(out.read_text())))


def values(content: object, where: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every leaf of a JSON value with the way to it."""
    if isinstance(content, dict | list):
        pairs = content.items() if isinstance(content, dict) else enumerate(content, 1)
        for name, value in pairs:
            yield from values(value, (*where, str(name)))
    else:
        yield where, str(content)


def main() -> int:
    """Compare, print, and return the exit status."""
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} COMMIT")
    commit = sys.argv[1]
    with worktree(commit) as tree:
        old = numbers(tree)
    new = numbers(PROJECT)
    ways = sorted(old.keys() | new.keys())
    different = [way for way in ways if old.get(way) != new.get(way)]
    losses, trainers = {way[1] for way in ways}, {way[0] for way in ways}
    counts = f"{len(losses)} losses x {len(trainers)} trainers, {len(ways)} values"
    if not different:
        print(f"same numbers: {counts}")
        return 0
    print(f"{len(different)} differ of {counts}; {commit} -> here:")
    for way in different[:MOST_LINES]:
        print(f"  {' / '.join(way)}: {old.get(way, 'nothing')} -> {new.get(way, 'nothing')}")
    if len(different) > MOST_LINES:
        print(f"  and {len(different) - MOST_LINES} more")
    return 1


if __name__ == "__main__":
    sys.exit(main())
