"""Losses outside of gploss: as a torch function, and as source code to paste.

Guards, scale and mean are written out: what is exported is the function that was trained.
"""

from __future__ import annotations

import keyword
import textwrap

import torch

from gploss.language.expression import Expression
from gploss.language.formula import TORCH, Formula
from gploss.language.operators import CLAMP_HIGH, CLAMP_LOW, OPERATORS
from gploss.language.terminals import TERMINALS


def torch_values(expression: Expression, score: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Compute a loss for each sample with torch, on any device, differentiable.

    Args:
        expression: the loss.
        score: (...) model scores before the sigmoid.
        label: (...) labels, broadcast to the scores.

    Returns:
        Losses in the shape of the scores.
    """
    label = label.to(score).expand_as(score)
    values: dict[Expression, torch.Tensor] = {}
    for node in expression.canonical().nodes():
        if node.constant is not None:
            values[node] = torch.full_like(score, node.constant)
        elif not node.operands:
            values[node] = TERMINALS[node.head].value.compute(TORCH, score=score, label=label)
        else:
            operator = OPERATORS[node.head]
            operands = [values[operand] for operand in node.operands]
            named = dict(zip(operator.operand_names, operands, strict=True))
            value: torch.Tensor = operator.value.compute(TORCH, **named)
            values[node] = value.clamp(CLAMP_LOW, CLAMP_HIGH) if node.semantics == "clamped" else value
    return values[expression.canonical()]


def torch_source(expression: Expression, scale: float = 1.0, name: str = "loss") -> str:
    """Return source code of a torch function ``name(score, label)`` that is the mean loss of a batch.

    Args:
        expression: the loss.
        scale: s; the loss is divided by it, as in training.
        name: of the function.

    Raises:
        ValueError: the name is no name of a Python function.

    Example:
        >>> print(torch_source(Expression.parse("square(label - pred)"), scale=0.25))
        import torch
        <BLANKLINE>
        <BLANKLINE>
        def loss(score: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            \"\"\"Mean of square(add(label, neg(pred))), divided by 0.25.\"\"\"
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
    names: dict[Expression, str] = {}
    lines = ["label = label.to(score)"]
    for node in root.nodes():
        value = _source_of(node, names)
        if value.isidentifier():
            names[node] = value
        else:
            names[node] = node.head if node.head in TERMINALS else f"v{len(lines)}"
            lines.append(f"{names[node]} = {value}")
    divided = "" if scale == 1.0 else f", divided by {scale!r}"
    summary = "\n".join(textwrap.wrap(f"Mean of {root}{divided}.", 100))
    result = f"return {names[root]}.mean()" + ("" if scale == 1.0 else f" / {scale!r}")
    body = textwrap.indent("\n".join([f'"""{summary}"""', *lines, result]), "    ")
    head = f"def {name}(score: torch.Tensor, label: torch.Tensor) -> torch.Tensor:"
    return f"import torch\n\n\n{head}\n{body}\n"


def _source_of(node: Expression, names: dict[Expression, str]) -> str:
    """Return the right-hand side that computes a node, or the name that holds it already."""
    if node.constant is not None:
        return f"torch.full_like(score, {node.constant!r})"
    if node.head in ("label", "logit"):
        return {"label": "label", "logit": "score"}[node.head]
    if not node.operands:
        return _render(TERMINALS[node.head].value, {"score": "score", "label": "label"})
    operator = OPERATORS[node.head]
    operands = [names[operand] for operand in node.operands]
    value = _render(operator.value, dict(zip(operator.operand_names, operands, strict=True)))
    return f"torch.clamp({value}, {CLAMP_LOW!r}, {CLAMP_HIGH!r})" if node.semantics == "clamped" else value


def _render(formula: Formula, variables: dict[str, str]) -> str:
    text = formula.render(variables, function="torch.{}".format, indicator="({}).to(score.dtype)".format)
    return text[1:-1] if text.startswith("(") and _closes_at_end(text) else text


def _closes_at_end(text: str) -> bool:
    """Whether the first bracket is closed by the last character."""
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return position == len(text) - 1
    return False
