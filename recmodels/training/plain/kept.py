"""What of a module goes into a state, and comes back from there."""

from __future__ import annotations

from collections.abc import Mapping

import torch


def copies(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return copies of parameters and buffers by name, with a dimension of 1 for members, on the CPU.

    Buffers that are not dense, such as the graph of a graph network, are left out: they stay as the seed makes
    them.
    """
    return {name: own.detach().cpu().clone().unsqueeze(0) for name, own in _tensors(module).items()}


def restore(module: torch.nn.Module, weights: Mapping[str, torch.Tensor], k: int) -> None:
    """Give a module the weights of member k of a state.

    Raises:
        ValueError: names or shapes are those of another model.
    """
    own = _tensors(module)
    if own.keys() != weights.keys():
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


def _tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    both = dict(module.named_parameters()) | dict(module.named_buffers())
    return {name: own for name, own in both.items() if own.layout is torch.strided}
