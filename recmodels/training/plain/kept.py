"""What of a module goes into a state, and comes back from there.

That is parameters and buffers, and what training changes in plain attributes: tensors, arrays and numbers, such as
a counter of batches. All else comes from the seed that the module was made with.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch


def copies(module: torch.nn.Module, carried: Collection[str] = ()) -> dict[str, torch.Tensor]:
    """Return copies of parameters, buffers and some attributes, with a dimension of 1 for members, on the CPU.

    Buffers that are not dense, such as the graph of a graph network, are left out: they stay as the seed makes
    them.

    Args:
        module: whose.
        carried: the attributes, by dotted names.
    """
    kept = _tensors(module) | {name: torch.as_tensor(_attribute(module, name)) for name in carried}
    return {name: own.detach().cpu().clone().unsqueeze(0) for name, own in kept.items()}


def restore(
    module: torch.nn.Module, weights: Mapping[str, torch.Tensor], k: int, carried: Collection[str] = ()
) -> None:
    """Give a module the weights of member k of a state.

    Args:
        module: changed in place.
        weights: (M, ...) by name.
        k: which member's.
        carried: attributes that may be among them; those that are not stay as they are.

    Raises:
        ValueError: names or shapes are those of another model.
    """
    own = _tensors(module)
    attributes = weights.keys() & set(carried)
    if own.keys() != weights.keys() - attributes:
        raise ValueError(f"these states belong to another model: they hold {sorted(weights)}, not {sorted(own)}")
    with torch.no_grad():
        for name, tensor in own.items():
            source = weights[name][k]
            if source.shape != tensor.shape:
                raise ValueError(
                    f"these states belong to another model: {name} has the shape {tuple(source.shape)} there, "
                    f"and {tuple(tensor.shape)} here"
                )
            tensor.copy_(source)
    for name in attributes:
        path, _, leaf = name.rpartition(".")
        before, value = _attribute(module, name), weights[name][k]
        setattr(module.get_submodule(path), leaf, _like(before, value.clone()))


def _like(before: Any, value: torch.Tensor) -> Any:
    """Return a value as what it was."""
    if isinstance(before, torch.Tensor):
        return value.to(before.device)
    return value.numpy() if isinstance(before, np.ndarray) else type(before)(value.item())


def changed(module: torch.nn.Module, fresh: torch.nn.Module) -> set[str]:
    """Return the attributes of a module, by dotted names, that are not as in a fresh one."""
    before, after = dict(_attributes(fresh)), dict(_attributes(module))
    return {name for name, own in after.items() if name not in before or not _same(own, before[name])}


def _attributes(module: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield tensors, arrays and numbers in plain attributes."""
    for path, part in module.named_modules():
        for leaf, value in vars(part).items():
            is_array = isinstance(value, np.ndarray) and value.dtype.kind in "biufc"
            is_kept = is_array or isinstance(value, torch.Tensor | int | float)
            if is_kept and leaf != "training" and not leaf.startswith("_"):
                yield f"{path}.{leaf}" if path else leaf, value


def alike(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Whether two modules have the same parameters and buffers."""
    first, second = _tensors(one), _tensors(other)
    return first.keys() == second.keys() and all(_same(own, second[name]) for name, own in first.items())


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return type(one) is type(other) and bool(one == other)


def _attribute(module: torch.nn.Module, name: str) -> Any:
    path, _, leaf = name.rpartition(".")
    return getattr(module.get_submodule(path), leaf)


def _tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    both = dict(module.named_parameters()) | dict(module.named_buffers())
    return {name: own for name, own in both.items() if own.layout is torch.strided}
