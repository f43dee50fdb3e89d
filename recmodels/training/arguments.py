"""What trainers are made with, looked at before a model is made: factory and protocol."""

from __future__ import annotations

import inspect

import torch

from gploss.arguments import instance, shown
from recmodels.models.base import ModelFactory
from recmodels.training.protocol import Protocol

_FACTORY = "a class or function that makes the module, called with the numbers of users and items"


def given_model(model: ModelFactory) -> ModelFactory:
    """Return a factory of models.

    Raises:
        TypeError: it is a module that was made already, something that cannot be called, or a function that needs
            other arguments than two numbers, or a schema.
    """
    if isinstance(model, torch.nn.Module):
        raise TypeError(
            f"model must be {_FACTORY}: a new one for each seed; got an instance of {type(model).__name__}: "
            "give the class itself, or a function that returns a new one"
        )
    if not callable(model):
        hint = f"; of a name give MODELS[{model!r}]" if isinstance(model, str) else ""
        raise TypeError(f"model must be {_FACTORY}, got {shown(model)}{hint}")
    try:
        signature = inspect.signature(model)
    except ValueError:
        raise TypeError(f"model must be {_FACTORY}; {shown(model)} does not tell what it is called with") from None
    if not _takes(signature, 1, 1) and not _takes(signature, 1):
        raise TypeError(
            f"model must be {_FACTORY}; {getattr(model, '__name__', shown(model))}{signature} cannot be called so: "
            "bind what it needs beside with functools.partial"
        )
    return model


def _takes(signature: inspect.Signature, *arguments: int) -> bool:
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def given_protocol(protocol: Protocol) -> Protocol:
    """Return a protocol.

    Raises:
        TypeError: it is none.
    """
    return instance("protocol", protocol, Protocol, "a Protocol, such as STANDARD or PAPER")
