"""What a recommender model is: any `torch.nn.Module` that maps a batch to scores.

Example:
    >>> class DotProduct(torch.nn.Module):
    ...     def __init__(self, n_users: int, n_items: int) -> None:
    ...         super().__init__()
    ...         self.user = torch.nn.Embedding(n_users, 8)
    ...         self.item = torch.nn.Embedding(n_items, 8)
    ...
    ...     def forward(self, batch: Batch) -> torch.Tensor:
    ...         return (self.user(batch.user) * self.item(batch.item)).sum(-1)
    >>> DotProduct(3, 4)(Batch(torch.tensor([0, 2]), torch.tensor([3, 1]))).shape
    torch.Size([2])
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from hashlib import blake2b
from typing import Final, NamedTuple

import numpy as np
import torch

from gploss.registry import Registry


class Batch(NamedTuple):
    """What a model sees of a batch of B interactions.

    Attributes:
        user: (B,) int64 user ids from 0.
        item: (B,) int64 item ids from 0.
    """

    user: torch.Tensor
    item: torch.Tensor


#: Makes a model for a number of users and of items, with weights drawn from torch's global generator of the CPU.
ModelFactory = Callable[[int, int], torch.nn.Module]

#: Models by name: classes that take (n_users, n_items, ...).
MODELS: Final[Registry[type[torch.nn.Module]]] = Registry("model")


def build_model(factory: ModelFactory, n_users: int, n_items: int, seed: int) -> torch.nn.Module:
    """Make a model whose initial weights depend on the seed alone; torch's global generator is left as it was.

    Args:
        factory: called with the numbers of users and items.
        n_users: number of users.
        n_items: number of items.
        seed: of the initial weights.

    Raises:
        TypeError: the factory does not return a module.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also reseed CUDA's
        model = factory(n_users, n_items)
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"the model factory returned {type(model).__name__}, not a torch.nn.Module")
    return model


def describe_model(factory: ModelFactory, n_users: int, n_items: int) -> dict[str, str]:
    """Return what a model's behaviour depends on, for keys: class, source, structure, settings and weights."""
    model = build_model(factory, n_users, n_items, seed=0)
    digest = blake2b(digest_size=16)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        digest.update(f"{name} {tensor.requires_grad} {_fingerprint(tensor)}".encode())
    return {
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "arguments": _arguments(factory),
        "structure": str(model),
        "settings": _settings(model),
        "source": blake2b(_sources(model).encode(), digest_size=16).hexdigest(),
        "initial_weights": digest.hexdigest(),
    }


def _arguments(factory: ModelFactory) -> str:
    if isinstance(factory, functools.partial):
        return repr((factory.args, sorted(factory.keywords.items())))
    return "()"


def _settings(model: torch.nn.Module) -> str:
    """A hash of what the user's modules keep beside parameters, buffers and submodules."""
    usual = vars(torch.nn.Module()).keys()
    lines = [
        f"{path}.{name} {_fingerprint(value)}"
        for path, part in model.named_modules()
        for name, value in sorted(vars(part).items())
        if name not in usual
    ]
    return blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def _fingerprint(value: object) -> str:
    """A text that differs where values differ; that of an unknown kind of object may differ between equal ones."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        content = blake2b(np.ascontiguousarray(value).tobytes(), digest_size=16).hexdigest()
        return f"{value.dtype} {value.shape} {content}"
    if inspect.isroutine(value) or inspect.isclass(value):
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value)


def _sources(model: torch.nn.Module) -> str:
    """The text of every module class of the user's own, bases too, so that editing one makes a new key."""
    texts = []
    for kind in {kind for module in model.modules() for kind in type(module).__mro__}:
        if kind is object or kind.__module__.startswith("torch."):
            continue
        try:
            texts.append(inspect.getsource(kind))
        except (OSError, TypeError):  # typed at a prompt: structure and weights must do
            texts.append(kind.__qualname__)
    return "\n".join(sorted(texts))
