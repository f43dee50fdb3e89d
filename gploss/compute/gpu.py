"""GPU kernels: the operator table written into `gpu_template.py`, cached on disk by content.

Triton compiles functions from source files, so that the generated code is stored, and imported from there, as
`gploss.compute.cpu` does for the CPU. Triton comes with PyTorch for CUDA. With ``TRITON_INTERPRET=1`` in the
environment the same kernels run on the CPU, slowly: for tests.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import platform
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Final

from gploss.compute.cpu import fill_template, import_source
from gploss.compute.kernel_files import KernelError
from gploss.compute.tables import Tables
from gploss.language.formula import Formula
from gploss.language.operators import CLAMP_HIGH, CLAMP_LOW

_TEMPLATE: Final = Path(__file__).with_name("gpu_template.py")


def why_no_triton() -> str | None:
    """Return why Triton cannot be used here, or None if it can."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed; it comes with PyTorch for CUDA"
    return None


def interpreted() -> bool:
    """Whether Triton runs kernels in its interpreter on the CPU."""
    return os.environ.get("TRITON_INTERPRET", "0") in ("1", "true", "on")


@lru_cache(maxsize=8)
def load_triton_kernels(tables: Tables, sources: tuple[Path, ...] = ()) -> ModuleType:
    """Return the interpreter of programs with these tables for GPUs, with the kernels of files that use it.

    Args:
        tables: of the programs.
        sources: files that import Triton, the template, and earlier ones of these files, and nothing else: all of
            it becomes one module.

    Raises:
        KernelError: Triton is not there, or the cache folder cannot be written.
    """
    reason = why_no_triton()
    if reason is not None:
        raise KernelError(f"there are no GPU kernels: {reason}")
    text = _generate(tables) + "".join(_without_imports(source.read_text()) for source in sources)
    versions = {"triton": version("triton"), "python": platform.python_version(), "interpreted": interpreted()}
    return import_source("gploss_triton", text, json.dumps(versions))


def _without_imports(text: str) -> str:
    """Leave out the lines of a file that import something: what they name stands above it."""
    lines = text.splitlines()
    for node in reversed(ast.parse(text).body):
        if isinstance(node, ast.Import | ast.ImportFrom):
            del lines[node.lineno - 1 : node.end_lineno]
    return "\n".join(lines) + "\n"


def _code(formula: Formula, variables: Mapping[str, str]) -> str:
    return formula.render(variables, function="op_{}".format, indicator="tl.where({}, 1.0, 0.0)".format)


def _generate(tables: Tables) -> str:
    """Write the tables into the template."""
    if len(tables.differentiable) > 1:
        raise KernelError(f"GPU kernels know one input from a model, and not {', '.join(tables.differentiable)}")
    sections = {
        "terminal_count": [f"TERMINAL_COUNT: tl.constexpr = tl.constexpr({len(tables.terminals)})"],
        "clamp_low": [f"CLAMP_LOW: tl.constexpr = tl.constexpr({CLAMP_LOW!r})"],
        "clamp_high": [f"CLAMP_HIGH: tl.constexpr = tl.constexpr({CLAMP_HIGH!r})"],
        "inputs": _inputs(tables),
        "terminals": _terminals(tables),
        "forward": _forward(tables),
        "backward": _backward(tables),
        "chain": _chain(tables),
    }
    return fill_template(_TEMPLATE.read_text(), sections)


def _inputs(tables: Tables) -> list[str]:
    lines = []
    others = [name for name in tables.inputs if name not in tables.differentiable]
    for name in tables.differentiable:
        lines.append(f"input_{name} = score")
    for number, name in enumerate(others):
        lines += [
            f"row_of_{name} = tl.load(given + {number}).to(tl.int64)",
            f"input_{name} = tl.load(",
            f"    inputs + row_of_{name} * stride + place, mask=inside & (row_of_{name} >= 0), other=0.0",
            ")",
        ]
    return lines


def _variables(tables: Tables) -> dict[str, str]:
    """Return where the interpreter finds each input."""
    return {name: f"input_{name}" for name in tables.inputs}


def _terminals(tables: Tables) -> list[str]:
    lines = []
    for slot, terminal in enumerate(tables.terminals):
        lines += [
            f"if (terminals_used & {1 << slot}) != 0:  # {terminal.name}",
            f"    tl.store(slots + {slot} * BLOCK + place, {_code(terminal.value, _variables(tables))})",
        ]
    return lines


def _forward(tables: Tables) -> list[str]:
    lines = []
    for number, operator in enumerate(tables.operators):
        operands = dict(zip(operator.operand_names, ("a", "b"), strict=False))
        lines += [
            f"elif opcode == {number}:  # {operator.name}",
            f"    value = {_code(operator.value, operands)}",
        ]
    return lines


def _backward(tables: Tables) -> list[str]:
    lines = []
    for number, operator in enumerate(tables.operators):
        variables = dict(zip(operator.operand_names, ("a", "b"), strict=False)) | {"value": "value"}
        lines.append(f"elif opcode == {number}:  # {operator.name}")
        lines += [
            f"    {side} = adjoint * {_code(formula, variables)}"
            for formula, side in zip(operator.derivatives, ("to_left", "to_right"), strict=False)
        ]
    return lines


def _chain(tables: Tables) -> list[str]:
    lines = []
    variables = _variables(tables) | {"value": "value"}
    (score,) = tables.differentiable
    for slot, terminal in enumerate(tables.terminals):
        if score in terminal.derivatives:
            lines += [
                f"if (terminals_used & {1 << slot}) != 0:  # {terminal.name}",
                f"    value = tl.load(slots + {slot} * BLOCK + place)",
                f"    gradient += tl.load(adjoints + {slot} * BLOCK + place) * "
                f"{_code(terminal.derivatives[score], variables)}",
            ]
    return lines
