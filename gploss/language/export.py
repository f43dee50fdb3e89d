"""Losses outside of gploss: as a torch function, and as source code to paste.

Guards, scale and mean are written out: what is exported is the function that was trained.
"""

from __future__ import annotations

import keyword
import textwrap
from collections.abc import Mapping, Sequence
from typing import Final

import torch

from gploss.arguments import instance
from gploss.language.expression import Expression
from gploss.language.formula import TORCH, Formula
from gploss.language.operators import CLAMP_HIGH, CLAMP_LOW, OPERATORS
from gploss.language.terminals import Terminal
from gploss.tasks import Task
from gploss.tasks.pointwise import POINTWISE

#: Bytes of a number in single precision; what has fewer is computed in that, as it was trained.
_SINGLE: Final = 4

_CHECKS: Final = """\
if not {score}.is_floating_point():
    raise TypeError(f"{score} must be of real numbers, got {{{score}.dtype}}")
for _given in ({others},):
    if _given.shape not in ({score}.shape, ()):
        raise ValueError(f"one shape is needed, got {{tuple({score}.shape)}}, {{tuple(_given.shape)}}")
{score} = {score}.float() if {score}.dtype.itemsize < 4 else {score}"""


def torch_values(expression: Expression, inputs: Mapping[str, torch.Tensor], task: Task) -> torch.Tensor:
    """Compute a loss for each sample with torch, on any device, differentiable.

    Args:
        expression: the loss.
        inputs: (...) of one shape, or single numbers: what the task's losses are given, by name; `Task.arguments`
            says of what.
        task: of the loss.

    Returns:
        Losses in the shape of what comes from the model; in float32 where that has half precision.

    Raises:
        TypeError: an input is no tensor, or what comes from the model is not made of real numbers.
        ValueError: the inputs differ in shape.
    """
    for name, column in inputs.items():
        instance(name, column, torch.Tensor, "a tensor")
    score = inputs[task.differentiable[0]]
    if not score.is_floating_point():
        raise TypeError(f"{task.differentiable[0]} must be of real numbers, got {score.dtype}")
    for name, column in inputs.items():
        if column.shape not in (score.shape, ()):
            raise ValueError(
                f"{name} has the shape {tuple(column.shape)}, {task.differentiable[0]} {tuple(score.shape)}: give "
                "them in one shape, for nothing is broadcast"
            )
    score = score.float() if score.dtype.itemsize < _SINGLE else score
    given = {name: column.to(score).expand_as(score) for name, column in inputs.items()}
    terminals = {row.name: row for row in task.rows()}
    values: dict[Expression, torch.Tensor] = {}
    for node in expression.canonical().nodes():
        if node.constant is not None:
            values[node] = torch.full_like(score, node.constant)
        elif not node.operands:
            values[node] = terminals[node.head].value.compute(TORCH, **given)
        else:
            operator = OPERATORS[node.head]
            operands = [values[operand] for operand in node.operands]
            named = dict(zip(operator.operand_names, operands, strict=True))
            value: torch.Tensor = operator.value.compute(TORCH, **named)
            values[node] = value.clamp(CLAMP_LOW, CLAMP_HIGH) if node.semantics == "clamped" else value
    return values[expression.canonical()]


def torch_source(expression: Expression, scale: float = 1.0, name: str = "loss", task: Task = POINTWISE) -> str:
    """Return source code of a torch function that is the mean loss of a batch.

    Its parameters are `Task.arguments` of the loss; of pointwise losses ``name(score, label)``. It refuses what
    `torch_values` refuses.

    Args:
        expression: the loss.
        scale: s; the loss is divided by it, as in training.
        name: of the function.
        task: of the loss.

    Raises:
        ValueError: the name is no name of a Python function, or the loss uses what the task does not have.

    Example:
        >>> print(torch_source(Expression.parse("square(label - pred)"), scale=0.25))
        import torch
        <BLANKLINE>
        <BLANKLINE>
        def loss(score: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            \"\"\"Mean of square(add(label, neg(pred))), divided by 0.25.\"\"\"
            if not score.is_floating_point():
                raise TypeError(f"score must be of real numbers, got {score.dtype}")
            for _given in (label,):
                if _given.shape not in (score.shape, ()):
                    raise ValueError(f"one shape is needed, got {tuple(score.shape)}, {tuple(_given.shape)}")
            score = score.float() if score.dtype.itemsize < 4 else score
            label = label.to(score)
            pred = torch.sigmoid(score)
            v2 = -pred
            v3 = label + v2
            v4 = v3 * v3
            return v4.mean() / 0.25
        <BLANKLINE>
    """
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError(f"{name!r} is no name of a Python function")
    root = expression.canonical()
    parameters = task.arguments(root)
    score = task.differentiable[0]
    terminals = {row.name: row for row in task.rows()}
    lines = [f"{given} = {given}.to({score})" for given in parameters if given != score]
    names: dict[Expression, str] = {}
    for node in root.nodes():
        value = _source_of(node, names, terminals, score)
        if value in parameters:
            names[node] = value
        else:
            is_free = node.head in terminals and node.head not in parameters
            names[node] = node.head if is_free else _unused(len(lines), parameters)
            lines.append(f"{names[node]} = {value}")
    divided = "" if scale == 1.0 else f", divided by {scale!r}"
    summary = "\n".join(textwrap.wrap(f"Mean of {root}{divided}.", 100))
    result = f"return {names[root]}.mean()" + ("" if scale == 1.0 else f" / {scale!r}")
    checks = _CHECKS.format(score=score, others=", ".join(given for given in parameters if given != score))
    body = textwrap.indent("\n".join([f'"""{summary}"""', checks, *lines, result]), "    ")
    head = f"def {name}({', '.join(f'{given}: torch.Tensor' for given in parameters)}) -> torch.Tensor:"
    return f"import torch\n\n\n{head}\n{body}\n"


def _unused(number: int, parameters: Sequence[str]) -> str:
    return f"v{number}_" if f"v{number}" in parameters else f"v{number}"


def _source_of(
    node: Expression, names: Mapping[Expression, str], terminals: Mapping[str, Terminal], score: str
) -> str:
    """Return the right-hand side that computes a node, or the parameter that it is."""
    if node.constant is not None:
        return f"torch.full_like({score}, {node.constant!r})"
    if not node.operands:
        formula = terminals[node.head].value
        return _render(formula, {given: given for given in formula.variables}, score)
    operator = OPERATORS[node.head]
    operands = [names[operand] for operand in node.operands]
    value = _render(operator.value, dict(zip(operator.operand_names, operands, strict=True)), score)
    return f"torch.clamp({value}, {CLAMP_LOW!r}, {CLAMP_HIGH!r})" if node.semantics == "clamped" else value


def _render(formula: Formula, variables: Mapping[str, str], score: str) -> str:
    text = formula.render(variables, function="torch.{}".format, indicator=f"({{}}).to({score}.dtype)".format)
    return text[1:-1] if text.startswith("(") and _closes_at_end(text) else text


def _closes_at_end(text: str) -> bool:
    """Whether the first bracket is closed by the last character."""
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return position == len(text) - 1
    return False
