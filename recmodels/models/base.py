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
import warnings
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from typing import Final

import numpy as np
import torch

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
MODELS: Final[Registry[type[torch.nn.Module]]] = Registry("model")


def build_model(factory: ModelFactory, schema: Schema, seed: int) -> torch.nn.Module:
    """Make a model whose initial weights depend on the seed alone; torch's global generator is left as it was.

    Args:
        factory: called with the numbers of users and items, or with the schema.
        schema: the columns that the model will see.
        seed: of the initial weights.

    Raises:
        TypeError: the factory does not return a module.
        LookupError: the factory takes numbers of users and items, which the schema does not have.
    """
    arguments = (schema,) if _takes_schema(factory) else (schema["user"], schema["item"])
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also reseed CUDA's
        model = factory(*arguments)
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"the model factory returned {type(model).__name__}, not a torch.nn.Module")
    return model


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


def describe_model(factory: ModelFactory, schema: Schema) -> dict[str, str]:
    """Return what a model's behaviour depends on, for keys: class, source, structure, settings and weights."""
    model = build_model(factory, schema, seed=0)
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
