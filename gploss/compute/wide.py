"""Losses with inputs of m values an example: their second half of the kernel template, and how it is run.

Values that are not there, such as negatives that turned out to be positives, are said by `present`: neither loss
nor derivative depends on what stands in their place. What is left wide at the root of a formula is averaged over
the m values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from gploss.compute.tables import Tables
from gploss.language.expression import Expression
from gploss.language.formula import Formula
from gploss.language.reductions import Reduction

_TEMPLATE: Final = Path(__file__).with_name("wide_template.py")

#: Bits of an instruction's shape, as the template has them.
WIDE, SPREAD_LEFT, SPREAD_RIGHT, REDUCES = 1, 2, 4, 8

#: Computes losses (M, N) and gradients (M, N, m or 1) from an array (M or 1, N, m or 1) for each input of a task,
#: in the task's order, and from which values are there, (N, m) bool.
WideRun: TypeAlias = Callable[
    [Sequence[npt.NDArray[Any]], npt.NDArray[np.bool_]], tuple[npt.NDArray[Any], tuple[npt.NDArray[Any], ...]]
]

#: Writes a formula as code, with what to write for each variable.
Code = Callable[[Formula, Mapping[str, str]], str]


def second_half() -> str:
    """Return the part of the template that follows `cpu_template.py`."""
    text = _TEMPLATE.read_text()
    return text[text.index("INPUT_IS_WIDE = ") :]


def sections(code: Code, tables: Tables) -> dict[str, list[str]]:
    """Return what the tables give for the marked lines of the second half."""
    flags = [name in tables.wide for name in tables.inputs]
    gradients = [name in tables.wide for name in tables.differentiable]
    return {
        "input_is_wide": [f"INPUT_IS_WIDE = {tuple(flags)}"],
        "gradient_is_wide": [f"GRADIENT_IS_WIDE = {tuple(gradients)}"],
        "reductions": _reductions(code, tables),
        "reductions_backward": _reductions_backward(code, tables),
        "terminals_wide": _terminals(code, tables),
        "chain_wide": _chain(code, tables),
    }


_PLACE: Final = "values[left, r * m + q]"


def _added_up(code: Code, row: Reduction) -> list[str]:
    return [
        "    for q in range(m):",
        "        if present[first + r, q]:",
        f"            x = {_PLACE}",
        f"            total += {code(row.term, {'x': 'x', 'peak': 'peak'})}",
    ]


def _numbered_reductions(tables: Tables) -> list[tuple[int, Reduction]]:
    return [(number, row) for number, row in enumerate(tables.operators) if isinstance(row, Reduction)]


def _reductions(code: Code, tables: Tables) -> list[str]:
    lines = []
    for number, row in _numbered_reductions(tables):
        named = {name: name for name in row.value.variables}
        lines += [f"elif opcode == {number}:  # {row.name}", *_added_up(code, row)]
        lines.append(f"    value = {code(row.value, named)}")
    return lines


def _reductions_backward(code: Code, tables: Tables) -> list[str]:
    lines = []
    for number, row in _numbered_reductions(tables):
        (derivative,) = row.derivatives
        named = {name: name for name in derivative.variables}
        lines += [
            f"elif opcode == {number}:  # {row.name}",
            *_added_up(code, row),
            "    for q in range(m):",
            "        if present[first + r, q]:",
            f"            x = {_PLACE}",
            f"            adjoints[left, r * m + q] += adjoint * {code(derivative, named)}",
        ]
    return lines


def terminal_is_wide(tables: Tables, slot: int) -> bool:
    """Tell whether an example has several values of a terminal: it is made of an input of several."""
    return not set(tables.terminals[slot].value.variables).isdisjoint(tables.wide)


def _samples(tables: Tables, slot: int) -> dict[str, str]:
    """Return where a terminal finds each input; one that is wide finds the narrow ones at its example's place."""
    narrow = "j // m" if terminal_is_wide(tables, slot) else "j"
    return {
        name: f"samples[{row}, {'j' if name in tables.wide else narrow}]" for row, name in enumerate(tables.inputs)
    }


def _terminals(code: Code, tables: Tables) -> list[str]:
    lines = []
    for slot, row in enumerate(tables.terminals):
        cells = "n * m" if terminal_is_wide(tables, slot) else "n"
        lines += [
            f"if used & {1 << slot}:  # {row.name}",
            f"    for j in range({cells}):",
            f"        values[{slot}, j] = {code(row.value, _samples(tables, slot))}",
        ]
    return lines


def _chain(code: Code, tables: Tables) -> list[str]:
    lines = []
    for slot, row in enumerate(tables.terminals):
        wide = terminal_is_wide(tables, slot)
        named = _samples(tables, slot) | {"value": f"values[{slot}, j]"}
        for number, given in enumerate(tables.differentiable, start=len(tables.inputs) + 1):
            if given not in row.derivatives:
                continue
            place = "j // m" if wide and given not in tables.wide else "j"
            slope = f"samples[{number}, {place}] += adjoints[{slot}, j] * {code(row.derivatives[given], named)}"
            lines += [f"if used & {1 << slot}:  # {row.name}, by {given}"]
            if wide:
                lines += [
                    "    for j in range(n * m):",
                    "        if present[first + j // m, j % m]:",
                    f"            {slope}",
                ]
            else:
                lines += ["    for j in range(n):", f"        {slope}"]
    return lines


def shapes_of(nodes: Sequence[Expression], tables: Tables) -> tuple[list[int], bool]:
    """Return the shape of each instruction of a loss, and whether its root is wide.

    Args:
        nodes: the loss's, operands first, the root last.
        tables: of the program.
    """
    terminals = {row.name: terminal_is_wide(tables, slot) for slot, row in enumerate(tables.terminals)}
    reductions = {row.name for _, row in _numbered_reductions(tables)}
    wide: dict[Expression, bool] = {}
    shapes = []
    for node in nodes:
        if not node.operands:
            wide[node] = terminals.get(node.head, False) and node.constant is None
            continue
        operands = [wide[operand] for operand in node.operands]
        reduces = node.head in reductions
        wide[node] = any(operands) and not reduces
        spreads = any(operands) or reduces
        shape = WIDE * wide[node] + REDUCES * reduces
        shape += SPREAD_LEFT * (spreads and not operands[0])
        shape += SPREAD_RIGHT * (spreads and len(operands) == 2 and not operands[1])
        shapes.append(shape)
    return shapes, wide[nodes[-1]]


def in_three(column: npt.NDArray[Any], wide: bool) -> npt.NDArray[Any]:
    """Return an input as (M or 1, N, m or 1): what all rows have in common has M = 1, what is narrow m = 1."""
    column = np.asarray(column) if wide else np.asarray(column)[..., None]
    return column[None] if column.ndim == 2 else column


def checked_present(
    columns: Mapping[str, npt.NDArray[Any]], tables: Tables, present: npt.NDArray[np.bool_] | None, count: int
) -> npt.NDArray[np.bool_]:
    """Return which values are there, (N, m), after a look at all shapes: compiled code checks no bounds.

    Args:
        columns: the inputs by name, (M or 1, N, m or 1).
        tables: of the program.
        present: (N, m) bool, or None where all are there.
        count: M.

    Raises:
        ValueError: shapes do not fit, or an example has no value at all.
    """
    example = next(column for name, column in columns.items() if name in tables.wide)
    if example.ndim != 3 or 0 in example.shape:
        raise ValueError(f"wide inputs are (N, m) or (M, N, m) with an m of at least 1, not {example.shape}")
    examples, m = example.shape[1:]
    for name, column in columns.items():
        wanted = (examples, m if name in tables.wide else 1)
        if column.ndim != 3 or column.shape[0] not in (1, count) or column.shape[1:] != wanted:
            raise ValueError(
                f"{name} of shape {column.shape} for {count} rows of {examples} examples with {m} values; give "
                f"{wanted} or ({count}, {examples}, {wanted[1]})"
            )
    if present is None:
        return np.ones((examples, m), np.bool_)
    if present.shape != (examples, m) or present.dtype != np.bool_:
        raise ValueError(f"present is {present.dtype} of shape {present.shape}; give bool of ({examples}, {m})")
    empty = np.flatnonzero(~present.any(axis=1))
    if len(empty):
        raise ValueError(f"example {empty[0]} has no value that is there; leave it out ({len(empty)} in all)")
    return np.ascontiguousarray(present)
