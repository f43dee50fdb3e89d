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
from gploss.language.operators import CLAMP_HIGH, CLAMP_LOW, OPERATORS, Operator
from gploss.language.reductions import MEAN, Reduction
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

_WIDE_CHECKS: Final = """\
if not {score}.is_floating_point():
    raise TypeError(f"{score} must be of real numbers, got {{{score}.dtype}}")
for _given in ({wide},):
    if _given.ndim < 1 or _given.shape != {first}.shape:
        raise ValueError(f"one shape is needed, got {{tuple({first}.shape)}}, {{tuple(_given.shape)}}")
for _given in ({narrow}):
    if _given.shape not in ({first}.shape[:-1], ()):
        raise ValueError(f"{{tuple({first}.shape[:-1])}} is needed, got {{tuple(_given.shape)}}")
{score} = {score}.float() if {score}.dtype.itemsize < 4 else {score}"""


def torch_values(
    expression: Expression,
    inputs: Mapping[str, torch.Tensor],
    task: Task,
    present: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute a loss for each sample with torch, on any device, differentiable.

    Args:
        expression: the loss.
        inputs: (...) of one shape, or single numbers: what the task's losses are given, by name; `Task.arguments`
            says of what. Wide inputs have one dimension more, of m values.
        task: of the loss.
        present: (..., m) bool: which values of wide inputs are there, of each example at least one; all where None.

    Returns:
        Losses in the shape of what comes from the model (without the m values); in float32 where that has half
        precision.

    Raises:
        TypeError: an input is no tensor, or what comes from the model is not made of real numbers.
        ValueError: the inputs differ in shape.
    """
    for name, column in inputs.items():
        instance(name, column, torch.Tensor, "a tensor")
    score = inputs[task.differentiable[0]]
    if not score.is_floating_point():
        raise TypeError(f"{task.differentiable[0]} must be of real numbers, got {score.dtype}")
    shape = _shape_of(inputs, task, present)
    score = score.float() if score.dtype.itemsize < _SINGLE else score
    given = {
        name: column.to(score) if name in task.wide else column.to(score).expand(shape[:-1]).unsqueeze(-1)
        for name, column in inputs.items()
    }
    narrow = score.new_ones((*shape[:-1], 1))
    terminals = {row.name: row for row in task.rows()}
    values: dict[Expression, torch.Tensor] = {}
    for node in expression.canonical().nodes():
        if node.constant is not None:
            values[node] = torch.full_like(narrow, node.constant)
        elif not node.operands:
            values[node] = terminals[node.head].value.compute(TORCH, **given)
        elif isinstance(operator := OPERATORS[node.head], Reduction):
            reduced = operator.compute(values[node.operands[0]].expand(shape), present)
            values[node] = reduced.clamp(CLAMP_LOW, CLAMP_HIGH) if node.semantics == "clamped" else reduced
        else:
            operands = [values[operand] for operand in node.operands]
            named = dict(zip(operator.operand_names, operands, strict=True))
            value: torch.Tensor = operator.value.compute(TORCH, **named)
            values[node] = value.clamp(CLAMP_LOW, CLAMP_HIGH) if node.semantics == "clamped" else value
    root = values[expression.canonical()]
    return (MEAN.compute(root, present) if root.shape[-1] > 1 else root).squeeze(-1)


def _shape_of(inputs: Mapping[str, torch.Tensor], task: Task, present: torch.Tensor | None) -> torch.Size:
    """Return the shape of a wide value, (..., m), with an m of 1 where the task has none.

    Raises:
        ValueError: the inputs do not fit each other.
    """
    wide = next((name for name in inputs if name in task.wide), None)
    first = task.differentiable[0] if wide is None else wide
    shape = inputs[first].shape if wide is not None else torch.Size((*inputs[first].shape, 1))
    for name, column in inputs.items():
        wanted = shape if name in task.wide else shape[:-1]
        if column.shape != wanted and (name in task.wide or column.shape != ()):
            raise ValueError(
                f"{name} has the shape {tuple(column.shape)}, {first} {tuple(inputs[first].shape)}: give "
                f"{'them in one shape' if wide is None else tuple(wanted)}, for nothing is broadcast"
            )
    if present is not None and (present.shape != shape or present.dtype != torch.bool):
        raise ValueError(f"present is {present.dtype} of shape {tuple(present.shape)}; give bool of {tuple(shape)}")
    return shape


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
    if not instance("name", name, str, "a text").isidentifier() or keyword.iskeyword(name):
        raise ValueError(f"{name!r} is no name of a Python function")
    root = expression.canonical()
    parameters = task.arguments(root)
    score = task.differentiable[0]
    terminals = {row.name: row for row in task.rows()}
    lines = [f"{given} = {given}.to({score})" for given in parameters if given != score]
    if task.wide:
        lines += [f"{given} = {given}.unsqueeze(-1)" for given in parameters if given not in task.wide]
    wide = [given for given in parameters if given in task.wide]
    names: dict[Expression, str] = {}
    for node in root.nodes():
        if node.operands and isinstance(OPERATORS[node.head], Reduction):
            lines += _reduced(OPERATORS[node.head], names[node.operands[0]], score, wide)
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
    narrow = "".join(f"{given}, " for given in parameters if given not in task.wide)
    checks = (
        _WIDE_CHECKS.format(score=score, first=wide[0], wide=", ".join(wide), narrow=narrow)
        if wide
        else _CHECKS.format(score=score, others=", ".join(given for given in parameters if given != score))
    )
    body = textwrap.indent("\n".join([f'"""{summary}"""', checks, *lines, result]), "    ")
    head = f"def {name}({', '.join(f'{given}: torch.Tensor' for given in parameters)}) -> torch.Tensor:"
    return f"import torch\n\n\n{head}\n{body}\n"


def _reduced(operator: Operator, operand: str, score: str, wide: Sequence[str]) -> list[str]:
    """Return the lines that add up a reduction's terms."""
    assert isinstance(operator, Reduction)
    term = _render(operator.term, {"x": "_x", "peak": "_peak"}, score)
    return [
        f"_x = {operand}.expand({wide[0]}.shape)" if wide else f"_x = {operand}",
        "_peak = _x.amax(-1, keepdim=True)",
        f"_total = ({term}).sum(-1, keepdim=True)",
    ]


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
    if isinstance(operator, Reduction):
        value = _render(operator.value, {"total": "_total", "peak": "_peak", "count": "_x.shape[-1]"}, score)
        return f"torch.clamp({value}, {CLAMP_LOW!r}, {CLAMP_HIGH!r})" if node.semantics == "clamped" else value
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
