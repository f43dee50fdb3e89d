"""Which embedding tables of a module a batch looks up, and how."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from recmodels.models.base import Batch

#: Reading these does not read the weights.
_HARMLESS: Final = (torch.Tensor.device.__get__, torch.Tensor.dtype.__get__)  # type: ignore[attr-defined]


class _Uses(TorchFunctionMode):
    """Counts what some tensors are used for."""

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.counts = {id(tensor): 0 for tensor in tensors}

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        arguments: tuple[Any, ...] = (),
        named: Mapping[str, Any] | None = None,
    ) -> Any:
        named = named or {}
        if function not in _HARMLESS:
            for leaf in tree_leaves((arguments, dict(named))):
                if id(leaf) in self.counts:
                    self.counts[id(leaf)] += 1
        return function(*arguments, **named)


def row_wise_tables(module: torch.nn.Module, example: Batch) -> dict[str, str]:
    """Find embedding tables that a batch looks up exactly once, with its own ids, and uses for nothing else.

    Args:
        module: tried out in both modes, on a copy.
        example: a small batch.

    Returns:
        For the name of each such table's weight, the column of ids that it is looked up with.

    Raises:
        ValueError: the module does not map a batch to scores.
    """
    try:
        trial = copy.deepcopy(module)
    except Exception:  # whatever a module keeps that cannot be copied
        return {}
    shared = [id(parameter) for _, parameter in trial.named_parameters(remove_duplicate=False)]
    tables = {
        path: cast(torch.nn.Embedding, part)
        for path, part in trial.named_modules()
        if _is_plain(part) and shared.count(id(part.weight)) == 1
    }
    in_use, in_training = (_lookups(trial.train(training), tables, example) for training in (False, True))
    return {f"{path}.weight": field for path, field in in_use.items() if in_training.get(path) == field}


def _lookups(module: torch.nn.Module, tables: Mapping[str, torch.nn.Embedding], example: Batch) -> dict[str, str]:
    """Call the module; return which ids each table was looked up with, if that is all it was used for."""
    seen: dict[str, list[str | None]] = {path: [] for path in tables}

    def note(path: str, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        ids = arguments[0] if arguments else named["input"]
        seen[path].append(next((name for name, own in example.items() if ids is own), None))

    hooks = [
        part.register_forward_pre_hook(lambda _, *given, path=path: note(path, *given), with_kwargs=True)
        for path, part in tables.items()
    ]
    uses = _Uses(part.weight for part in tables.values())
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), uses:
            scores = module(example)
    finally:
        for hook in hooks:
            hook.remove()
    checked_scores(scores, module, example)
    return {
        path: fields[0]
        for path, fields in seen.items()
        if len(fields) == 1 and fields[0] is not None and uses.counts[id(tables[path].weight)] == 1
    }


def checked_scores(scores: object, module: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Return what a module made of a batch, if it is a number an example.

    Raises:
        ValueError: it is something else.
    """
    count = len(next(iter(batch.values())))
    if isinstance(scores, torch.Tensor) and scores.shape == (count,) and scores.is_floating_point():
        return scores
    found = (
        f"{scores.dtype} of shape {tuple(scores.shape)}"
        if isinstance(scores, torch.Tensor)
        else type(scores).__name__
    )
    raise ValueError(
        f"{type(module).__name__} must map a batch of {count} examples to scores of shape ({count},), real "
        f"numbers, but it returned {found}{_remedy(scores, count)}"
    )


def _remedy(scores: object, count: int) -> str:
    if isinstance(scores, torch.Tensor):
        if scores.shape == (count, 1):
            return ": return scores.squeeze(-1)"
        if scores.is_complex() and scores.shape == (count,):
            return ": return scores.real"
    return ""


def _is_plain(part: torch.nn.Module) -> bool:
    """Whether a module is a trainable table of torch's own, without anything done to its rows on the way."""
    return (
        type(part) is torch.nn.Embedding
        and part.weight.requires_grad
        and part.padding_idx is None
        and part.max_norm is None
        and not part.scale_grad_by_freq
        and not (part._forward_hooks or part._forward_pre_hooks or part._backward_hooks)
    )
