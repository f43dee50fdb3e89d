"""Compiled kernels: operators and a task's terminals written into `cpu_template.py`, cached on disk by content.

The name of the cache folder is a hash of everything the code depends on (template, operators, terminals, versions
of numba and Python), because numba itself would find an old kernel again after an imported file has changed. A
user's own operator therefore costs one compilation, and nothing stale is ever run.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import sys
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import Final, Literal

import numba
import pooch

import gploss.compute.announce  # noqa: F401 (announces what is compiled)
from gploss.compute import wide
from gploss.compute.kernel_files import FromSource, KernelError, check_kernels, private_folder
from gploss.compute.tables import Tables
from gploss.compute.wide import Code
from gploss.language.formula import Formula
from gploss.language.operators import CLAMP_HIGH, CLAMP_LOW, Operator
from gploss.language.reductions import Reduction

Precision = Literal["float32", "float64"]

_TEMPLATE: Final = Path(__file__).with_name("cpu_template.py")


def cache_folder() -> Path:
    """Return the folder for compiled kernels and downloads: ``$GPLOSS_CACHE``, or the user's cache folder."""
    return Path(os.environ.get("GPLOSS_CACHE") or pooch.os_cache("gploss"))


@lru_cache(maxsize=8)
def load_kernels(precision: Precision, tables: Tables) -> ModuleType:
    """Return the interpreter of programs with these tables, compiled on first use.

    Args:
        precision: "float32" for training, "float64" for screening and fingerprints.
        tables: of the programs.

    Raises:
        KernelError: the cache folder cannot be written.
    """
    versions = json.dumps({"numba": numba.__version__, "python": platform.python_version()})
    return import_source("gploss_kernels", _generate(precision, tables), versions)


def import_source(kind: str, source: str, depends_on: str) -> ModuleType:
    """Store generated code in the cache folder, where it is not there yet, and import it.

    Args:
        kind: first part of the module's name.
        source: the code.
        depends_on: everything else that what is compiled from it depends on, as text.

    Raises:
        KernelError: the cache folder cannot be written, or others can write to it.
    """
    name = f"{kind}_{blake2b((source + depends_on).encode(), digest_size=12).hexdigest()}"
    folder = private_folder(private_folder(cache_folder() / "kernels") / name)
    path = folder / f"{name}.py"
    if not _holds(path, source):
        _write(path, source)
    spec = importlib.util.spec_from_file_location(name, path, loader=FromSource(name, str(path)))
    if spec is None or spec.loader is None:
        raise KernelError(f"{path} cannot be imported; delete its folder and try again")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    check_kernels(module, folder)
    return module


def _holds(path: Path, source: str) -> bool:
    try:
        return path.read_bytes() == source.encode()
    except FileNotFoundError:
        return False


def _write(path: Path, source: str) -> None:
    """Write atomically: another process sees the whole file or none."""
    try:
        with tempfile.NamedTemporaryFile("wb", dir=path.parent, suffix=".tmp", delete=False) as file:
            file.write(source.encode())
        Path(file.name).replace(path)
    except OSError as error:
        raise KernelError(
            f"compiled kernels cannot be stored in {path.parent} ({error}); "
            "set the environment variable GPLOSS_CACHE to a folder that can be written"
        ) from error


def _generate(precision: Precision, tables: Tables) -> str:
    """Write the tables into the template."""
    numbers: dict[str, str] = {}

    def number(value: float) -> str:
        name = f"NUMBER_{len(numbers)}"
        return numbers.setdefault(repr(value), name)

    def code(formula: Formula, variables: Mapping[str, str]) -> str:
        return formula.render(variables, number=number, indicator="(ONE if {} else ZERO)".format)

    sections = {
        "forward": _forward(code, tables),
        "backward": _backward(code, tables),
        "terminals": _terminals(code, tables),
        "chain": _chain(code, tables),
        "real": [f"REAL = np.{precision}"],
        "input_count": [f"INPUT_COUNT = {len(tables.inputs)}"],
        "gradient_count": [f"GRADIENT_COUNT = {len(tables.differentiable)}"],
        "terminal_count": [f"TERMINAL_COUNT = {len(tables.terminals)}"],
        "clamp_low": [f"CLAMP_LOW = REAL({CLAMP_LOW!r})"],
        "clamp_high": [f"CLAMP_HIGH = REAL({CLAMP_HIGH!r})"],
    }
    for name in ("exp", "log", "tanh"):
        sections[name] = [f"return {name}_single(x)" if precision == "float32" else f"return np.{name}(x)"]
    template = _TEMPLATE.read_text()
    if tables.wide:
        sections |= wide.sections(code, tables)
        template += wide.second_half()
    sections["numbers"] = [f"{name} = REAL({value})" for value, name in numbers.items()]
    return fill_template(template, sections)


_OPERANDS: Final = ("values[left, j]", "values[right, j]")  # a view of each row would cost more than the arithmetic


def _elementwise(tables: Tables) -> list[tuple[int, Operator]]:
    """Return the operators of one value an example, with their opcodes."""
    return [(code, row) for code, row in enumerate(tables.operators) if not isinstance(row, Reduction)]


def _forward(code: Code, tables: Tables) -> list[str]:
    lines = []
    for number, operator in _elementwise(tables):
        operands = dict(zip(operator.operand_names, _OPERANDS, strict=False))
        lines += [
            f"elif opcode == {number}:  # {operator.name}",
            "    for j in range(n):",
            f"        values[slot, j] = {code(operator.value, operands)}",
        ]
    return lines


def _backward(code: Code, tables: Tables) -> list[str]:
    lines = []
    for number, operator in _elementwise(tables):
        variables = dict(zip(operator.operand_names, _OPERANDS, strict=False)) | {"value": "values[slot, j]"}
        lines.append(f"elif opcode == {number}:  # {operator.name}")
        for bit, (formula, side) in enumerate(zip(operator.derivatives, ("left", "right"), strict=False)):
            lines += [
                f"    if needs & {1 << bit}:",
                "        for j in range(n):",
                f"            adjoints[{side}, j] += adjoints[slot, j] * {code(formula, variables)}",
            ]
    return lines


def _terminals(code: Code, tables: Tables) -> list[str]:
    lines = []
    for slot, terminal in enumerate(tables.terminals):
        lines += [
            f"if used & {1 << slot}:  # {terminal.name}",
            "    for j in range(n):",
            f"        values[{slot}, j] = {code(terminal.value, _samples(tables))}",
        ]
    return lines


def _chain(code: Code, tables: Tables) -> list[str]:
    lines = []
    for slot, terminal in enumerate(tables.terminals):
        variables = _samples(tables) | {"value": f"values[{slot}, j]"}
        for row, given in enumerate(tables.differentiable, start=len(tables.inputs) + 1):
            if given in terminal.derivatives:
                lines += [
                    f"if used & {1 << slot}:  # {terminal.name}, by {given}",
                    "    for j in range(n):",
                    f"        samples[{row}, at(start, j)] += "
                    f"adjoints[{slot}, j] * {code(terminal.derivatives[given], variables)}",
                ]
    return lines


def _samples(tables: Tables) -> dict[str, str]:
    """Return where the interpreter finds each input."""
    return {given: f"samples[{row}, at(start, j)]" for row, given in enumerate(tables.inputs)}


def fill_template(template: str, sections: dict[str, list[str]]) -> str:
    """Replace each marked line, and the lines indented below it, by a section's lines at its indentation."""
    result: list[str] = []
    skip_deeper_than: int | None = None
    for line in template.splitlines():
        indentation = len(line) - len(line.lstrip())
        if skip_deeper_than is not None:
            if line.strip() and indentation > skip_deeper_than:
                continue
            skip_deeper_than = None
        marker = re.search(r"  # @(\w+)$", line)
        if marker is None:
            result.append(line)
            continue
        result += [" " * indentation + filled for filled in sections.pop(marker[1])]
        skip_deeper_than = indentation
    if sections:
        raise AssertionError(f"the kernel template has no place for {sorted(sections)}")
    return "\n".join(result) + "\n"
