"""Plants single-line faults in modules and counts how many of them the tests notice.

`python tests/mutants.py 40 gploss/tasks recmodels/training/problem.py ...` copies the project, draws that many
places from the modules named (a fixed seed draws the same ones), changes one at a time, and runs the tests of its
folder, then those that name the module. It prints what became of each fault, and exits with 1 where fewer than nine
in ten were noticed. A fault that makes a run ten times as long as the sound one counts as noticed.
"""

from __future__ import annotations

import ast
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

PROJECT: Final = Path(__file__).resolve().parents[1]
COPIED: Final = ("gploss", "rl", "recmodels", "experiments", "tests")
FILES: Final = (
    "pyproject.toml",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "constraints.txt",
    "requirements.lock",
    "Makefile",
)

#: Share of the faults that the tests have to notice.
ENOUGH: Final = 0.9

COMPARISONS: Final = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
ARITHMETIC: Final = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.BitOr: ast.BitAnd,
}


@dataclass(frozen=True)
class Fault:
    """One changed place.

    Attributes:
        module: path of the file, from the project's folder.
        line: where, from 1.
        old: source of the place.
        new: what stands there instead.
        span: (first line, first column, last line, last column) of the place.
    """

    module: Path
    line: int
    old: str
    new: str
    span: tuple[int, int, int, int]

    def planted(self, text: str) -> str:
        """Return a module's text with the fault in it."""
        lines = text.splitlines(keepends=True)
        first, begin, last, end = self.span
        before, after = lines[first - 1].encode()[:begin].decode(), lines[last - 1].encode()[end:].decode()
        return "".join([*lines[: first - 1], before, self.new, after, *lines[last:]])


def faults(module: Path) -> Iterator[Fault]:
    """Every fault that can be planted in a module: one operator, constant, condition or result changed."""
    tree = ast.parse((PROJECT / module).read_text())
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    left_alone = {id(part) for node in ast.walk(tree) for own in unplaced(node) for part in ast.walk(own)}
    for node in ast.walk(tree):
        if id(node) in documentation or id(node) in left_alone:
            continue
        new = changed(node)
        if new is not None and isinstance(node, ast.expr):
            old = ast.unparse(node)
            place = (node.lineno, node.col_offset, node.end_lineno or node.lineno, node.end_col_offset or 0)
            yield Fault(module, node.lineno, old, f"({new})", place)


def unplaced(node: ast.AST) -> Iterator[ast.AST]:
    """Annotations, in which a fault is none, and texts with values in them, since Python 3.11 misplaces those."""
    if isinstance(node, ast.JoinedStr):
        yield node
    for name in ("annotation", "returns"):
        own = getattr(node, name, None)
        if own is not None:
            yield own


def changed(node: ast.AST) -> str | None:
    """Return the source of a place with a fault in it, or None where there is none to be made."""
    match node:
        case ast.Compare(left=left, ops=[operator], comparators=[right]) if type(operator) in COMPARISONS:
            return ast.unparse(ast.Compare(left, [COMPARISONS[type(operator)]()], [right]))
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in ARITHMETIC:
            return ast.unparse(ast.BinOp(left, ARITHMETIC[type(operator)](), right))
        case ast.BoolOp(op=operator, values=values):
            return ast.unparse(ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return ast.unparse(operand)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return ast.unparse(ast.IfExp(test, orelse, body))
        case ast.Constant(value=bool(value)):
            return repr(not value)
        case ast.Constant(value=int(value) | float(value)):
            return repr(value + 1)
        case ast.Call(func=ast.Name(id="min" | "max" as name), args=arguments, keywords=keywords):
            other = ast.Name("max" if name == "min" else "min")
            return ast.unparse(ast.Call(other, arguments, keywords))
    return None


def tests_of(module: Path) -> str:
    """Return the tests of a module: those of its folder, or of the nearest one above that has some."""
    parts = module.parent.parts
    folders = [Path("tests", *parts[:depth]) for depth in range(len(parts), -1, -1)]
    return str(next(folder for folder in folders if (PROJECT / folder).is_dir()))


def tests_that_name(module: Path) -> list[str]:
    """Return the files of tests, those of its folder aside, in which a module's dotted name occurs."""
    name = ".".join(module.with_suffix("").parts)
    own = PROJECT / tests_of(module)
    paths = sorted((PROJECT / "tests").rglob("test_*.py"))
    return [
        str(path.relative_to(PROJECT)) for path in paths if own not in path.parents and name in path.read_text()
    ]


def passes(copy: Path, tests: Sequence[str], limit: float | None) -> bool:
    """Return whether tests pass in a copy of the project within so many seconds."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-n", "2", *tests]
    environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def noticed(copy: Path, fault: Fault, seconds: float) -> bool:
    """Plant a fault in a copy, run the tests, which take so many seconds without it, and mend it again."""
    path = copy / fault.module
    sound = path.read_text()
    path.write_text(fault.planted(sound))
    try:
        if not passes(copy, [tests_of(fault.module)], 10 * seconds + 30):
            return True
        return not passes(copy, [*tests_that_name(fault.module), "tests/test_architecture.py"], None)
    finally:
        path.write_text(sound)


def main() -> int:
    """Plant, count, print, and return the exit status."""
    if len(sys.argv) < 3 or not sys.argv[1].isdigit():
        sys.exit(f"usage: {sys.argv[0]} COUNT MODULE_OR_FOLDER...")
    named = [PROJECT / name for name in sys.argv[2:]]
    modules = sorted({path for name in named for path in (name.rglob("*.py") if name.is_dir() else [name])})
    possible = [fault for path in modules for fault in faults(path.relative_to(PROJECT))]
    drawn = random.Random(0).sample(possible, min(int(sys.argv[1]), len(possible)))
    with TemporaryDirectory(prefix="gploss-") as folder:
        copy = Path(folder).resolve()
        for name in COPIED:
            shutil.copytree(PROJECT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in FILES:
            shutil.copy(PROJECT / name, copy)
        seconds: dict[str, float] = {}
        for tests in sorted({tests_of(fault.module) for fault in drawn}):
            begun = time.monotonic()
            if not passes(copy, [tests], None):
                sys.exit(f"{tests} fails without a fault")
            seconds[tests] = time.monotonic() - begun
        count = 0
        for number, fault in enumerate(drawn, 1):
            found = noticed(copy, fault, seconds[tests_of(fault.module)])
            count += found
            mark = "noticed " if found else "SURVIVED"
            print(f"{number:3} {mark} {fault.module}:{fault.line}: {fault.old} -> {fault.new}", flush=True)
    print(f"{count} of {len(drawn)} faults noticed, of {len(possible)} that can be planted")
    return 0 if count >= ENOUGH * len(drawn) else 1


if __name__ == "__main__":
    sys.exit(main())
