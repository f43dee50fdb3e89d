"""What a model's behaviour depends on, for keys: all code that it reaches, and all that it is made with."""

from __future__ import annotations

import inspect
from typing import Final

import torch
from torch.nn.modules import module as every_module

from gploss.files.described import key_of
from recmodels.data.rows import Schema
from recmodels.models.base import ModelFactory, build_model
from recmodels.models.time_limit import is_limit

#: Where torch keeps the hooks that are called for every module.
_HOOKS_OF_ALL: Final = tuple(
    name for name in vars(every_module) if name.startswith("_global_") and name.endswith("_hooks")
)


def describe_model(factory: ModelFactory, schema: Schema) -> dict[str, str]:
    """Return what tells a model from others that behave otherwise.

    Args:
        factory: makes the model; its own code counts, too.
        schema: the columns that the model will see.

    Returns:
        class, for people; and code: a hash of every function that factory and model reach, with globals, class
        attributes, arguments and hooks, and of the weights that seed 0 gives. Comments and docstrings are no part
        of it. Where something cannot be looked into, it is a new one each time, and a warning says so.

    Raises:
        TypeError: the model cannot be called with a batch.
    """
    model = build_model(factory, schema, seed=0)
    _check_forward(model)
    kind = type(model)
    hooks = [[hook for hook in vars(every_module)[name].values() if not is_limit(hook)] for name in _HOOKS_OF_ALL]
    return {
        "class": f"{kind.__module__}.{kind.__qualname__}",
        "code": key_of((factory, model, hooks), f"the model {kind.__qualname__}"),
    }


def _check_forward(model: torch.nn.Module) -> None:
    """Check that a model takes one argument, which is the commonest slip of all."""
    signature = inspect.signature(model.forward)
    try:
        signature.bind(None)
    except TypeError as error:
        raise TypeError(
            f"the model {type(model).__name__} is called with one Batch, which forward{signature} does not take "
            f"({error}): write forward(self, batch), with batch.user and batch.item"
        ) from None
