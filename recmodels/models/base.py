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

import contextlib
import functools
import inspect
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np
import torch
from torch.nn.parameter import is_lazy

from gploss.registry import Registry
from recmodels.data.rows import Schema


class Batch(Mapping[str, torch.Tensor]):
    """What a model sees of B examples: ids by column, as ``batch["user"]`` or ``batch.user``.

    Args:
        user: (B,) int64 ids from 0.
        item: (B,) int64 ids from 0.
        **columns: (B,) int64 ids each; a problem of other columns names its own.
    """

    def __init__(
        self, user: torch.Tensor | None = None, item: torch.Tensor | None = None, **columns: torch.Tensor
    ) -> None:
        usual = {"user": user, "item": item}
        self._columns = {name: ids for name, ids in usual.items() if ids is not None} | columns

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._columns:
            raise LookupError(f"a batch has no column {name!r}; it has {', '.join(self._columns)}")
        return self._columns[name]

    def __getattr__(self, name: str) -> torch.Tensor:
        # A name with an underscore is none of a column's: copies ask for some before there is anything.
        if name.startswith("_") or name not in self._columns:
            raise AttributeError(f"a batch has no column {name!r}")
        return self._columns[name]

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


#: Makes a model, with weights drawn from torch's global generator of the CPU. It is called with the numbers of
#: users and of items, or, where it takes one argument alone, with the `recmodels.data.rows.Schema`.
ModelFactory = Callable[..., torch.nn.Module]

#: Models by name: classes that take (n_users, n_items, ...) or (schema, ...).
MODELS: Final[Registry[type[torch.nn.Module]]] = Registry("model", module=__name__)


def build_model(factory: ModelFactory, schema: Schema, seed: int) -> torch.nn.Module:
    """Make a model whose initial weights depend on the seed alone; global generators are left as they were.

    The seed is given to those of torch, numpy and Python.

    Args:
        factory: called with the numbers of users and items, or with the schema.
        schema: the columns that the model will see.
        seed: of the initial weights.

    Raises:
        TypeError: the factory does not return a module.
        LookupError: the factory takes numbers of users and items, which the schema does not have.
    """
    arguments = (schema,) if _takes_schema(factory) else (schema["user"], schema["item"])
    with torch.random.fork_rng(devices=[]), _others_seeded(seed):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also reseed CUDA's
        model = factory(*arguments)
        if not isinstance(model, torch.nn.Module):
            raise TypeError(f"the model factory returned {type(model).__name__}, not a torch.nn.Module")
        _give_shapes(model, schema)
    return model


@contextlib.contextmanager
def _others_seeded(seed: int) -> Iterator[None]:
    """Lend models a seed for the generators that numpy and Python have for everybody."""
    numpys, pythons = np.random.get_state(), random.getstate()  # noqa: NPY002
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(numpys)  # noqa: NPY002
        random.setstate(pythons)


def _give_shapes(model: torch.nn.Module, schema: Schema) -> None:
    """Let lazy parts of a model find out their shapes, and draw their weights, in a first call on two examples.

    What is wrong with the call, training will tell.
    """
    if any(map(is_lazy, (*model.parameters(), *model.buffers()))):
        modes = {part: part.training for part in model.modules()}
        with torch.no_grad(), contextlib.suppress(Exception):
            model.eval()(Batch(**{name: torch.arange(2) % size for name, size in schema.items()}))
        for part in model.modules():
            part.training = modes.get(part, True)


def _takes_schema(factory: ModelFactory) -> bool:
    """Tell whether a factory has to be given one argument, not two."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(factory).parameters.values()
    return sum(one.kind in kinds and one.default is inspect.Parameter.empty for one in parameters) == 1


def initialised(factory: ModelFactory, initialization: str) -> ModelFactory:
    """Return a factory of models that are initialised as a protocol has it, where they have a choice.

    A model that takes no argument `initialization` initialises itself; where another one than "standard" is asked
    for, a warning says so.

    Args:
        factory: of the model.
        initialization: the protocol's.
    """
    if "initialization" in inspect.signature(factory).parameters:
        return functools.partial(factory, initialization=initialization)
    if initialization != "standard":
        name = getattr(factory, "__name__", type(factory).__name__)
        warnings.warn(
            f"the model {name} takes no argument 'initialization': it initialises its weights itself, not as "
            f"{initialization!r} has it",
            stacklevel=2,
        )
    return factory
