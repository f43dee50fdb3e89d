"""What a thing's behaviour depends on, as one hash: functions with all that they call, objects with what they hold.

Two things that behave alike have one hash, in this process and in others: a class that was typed in again, a file
with other comments. Code is looked at as Python runs it, so that it need not stand in a file; that of Python itself
and of installed packages is stood for by their versions. What cannot be looked into, such as an open file or a C
function of nobody knows where, is named.
"""

from __future__ import annotations

import copyreg
import functools
import importlib
import inspect
import sys
import threading
import types
import uuid
import warnings
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from importlib.util import resolve_name
from typing import Any, Final, TypeVar

import numpy as np
import torch

from gploss.files.code import global_names, imported_names, steps, used_names
from gploss.files.origins import name_of, release_of

_MOST_OBJECTS: Final = 200_000
"""So many are looked at; what reaches more is taken for something that cannot be known."""

_PLAIN: Final = (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented))

#: They hold nothing that a result could depend on.
_EMPTY: Final = (type(threading.Lock()), type(threading.RLock()), torch.utils.hooks.RemovableHandle, TypeVar)

_WITH_OWNER: Final = (
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
)

#: What Python and torch write into a class beside what its author wrote.
_NOT_THE_AUTHORS: Final = frozenset(
    (
        "__dict__",
        "__weakref__",
        "__doc__",
        "__module__",
        "__annotations__",
        "__annotate__",
        "__annotate_func__",
        "__annotations_cache__",
        "__dataclass_fields__",
        "__dataclass_params__",
        "__abstractmethods__",
        "_abc_impl",
        "__parameters__",
        "__orig_bases__",
        "__firstlineno__",
        "__static_attributes__",
        "__type_params__",
        "__slotnames__",
        "_backward_cls",
    )
)

#: Of a function's flags those that say how it is called.
_CALLS: Final = (
    inspect.CO_VARARGS
    | inspect.CO_VARKEYWORDS
    | inspect.CO_GENERATOR
    | inspect.CO_COROUTINE
    | inspect.CO_ASYNC_GENERATOR
)

#: Names by which a function reads attributes that its code does not name.
_READS_ANYTHING: Final = frozenset({"getattr", "vars", "__dict__", "attrgetter", "globals"})


@dataclass(frozen=True)
class Description:
    """What is known of a thing.

    Attributes:
        hash: the same for things that behave alike, as far as they can be known.
        unknown: what could not be looked into, and where it is.
    """

    hash: str
    unknown: tuple[str, ...]


def describe(thing: object, name: str) -> Description:
    """Look at a thing and all that it reaches.

    Args:
        thing: a function, a class, an object, or a tuple of these.
        name: what it is called, for what is said of its parts.

    Example:
        >>> describe(lambda x: x + 1, "first") == describe(lambda x: x + 1, "second")
        True
        >>> describe(lambda x: x + 1, "first") == describe(lambda x: x + 2, "second")
        False
    """
    look = _Look()
    look.at(thing, name)
    return Description(look.hash(), tuple(look.unknown))


def key_of(thing: object, name: str) -> str:
    """Return a thing's hash; where something in it cannot be known, one that no other has, and say so once.

    Args:
        thing: as for `describe`.
        name: what it is called, such as "the model Net".
    """
    description = describe(thing, name)
    if not description.unknown:
        return description.hash
    _say(
        f"{name} reaches what cannot be looked into: {'; '.join(description.unknown[:3])}. Its results are shared "
        "with no other run, neither by a cache nor by a checkpoint"
    )
    return f"{description.hash} {uuid.uuid4().hex}"


def own_code(kind: type, name: str) -> str:
    """Return the key of a class, as far as a user wrote it and those that it is made of; "" for gploss's own."""
    own = tuple(base for base in kind.__mro__ if name_of(base) is None and release_of(base.__module__) is None)
    return key_of(own, name) if own else ""


@functools.cache
def _say(text: str) -> None:
    warnings.warn(text, stacklevel=3)


class _Look:
    """One look: things get numbers in the order in which they are met, and are looked at one after the other."""

    def __init__(self) -> None:
        self.unknown: list[str] = []
        self._digest = blake2b(digest_size=16)
        self._numbers: dict[int, int] = {}
        self._kept: list[object] = []  # so that no two things have one id
        self._waiting: deque[tuple[object, str]] = deque()

    def hash(self) -> str:
        while self._waiting:
            if len(self._kept) > _MOST_OBJECTS:
                self.unknown.append(f"more than {_MOST_OBJECTS:,} objects")
                break
            thing, where = self._waiting.popleft()
            self._look_at(thing, where)
        return self._digest.hexdigest()

    def at(self, thing: object, where: str) -> None:
        """Write a plain value, or the number of what will be looked at in its turn."""
        if type(thing) in _PLAIN:
            self._write(type(thing).__name__, hex(thing) if type(thing) is int else repr(thing))
        elif type(thing) is tuple:
            self._each("tuple", thing, where)
        elif isinstance(thing, set | frozenset):
            self._write(type(thing).__name__, *sorted(self._apart(one, where) for one in thing))
        elif type(thing) is types.CodeType:
            self._code(thing, where)
        else:
            number = self._numbers.get(id(thing))
            if number is None:
                number = self._numbers[id(thing)] = len(self._numbers)
                self._kept.append(thing)
                self._waiting.append((thing, where))
            self._write("thing", str(number))

    def _write(self, *texts: str) -> None:
        for text in texts:
            self._digest.update(f"{len(text)}:{text};".encode("utf-8", "surrogatepass"))
        self._digest.update(b"\n")

    def _each(self, kind: str, things: Iterable[object], where: str) -> None:
        listed = list(things)
        self._write(kind, str(len(listed)))
        for one in listed:
            self.at(one, where)

    def _named(self, kind: str, things: Iterable[tuple[object, object]], where: str) -> None:
        listed = list(things)
        self._write(kind, str(len(listed)))
        for name, value in listed:
            self.at(name, where)
            self.at(value, f"{where}.{name}" if isinstance(name, str) else where)

    def _apart(self, thing: object, where: str) -> str:
        description = describe(thing, where)
        self.unknown += description.unknown
        return description.hash

    def _look_at(self, thing: object, where: str) -> None:
        try:
            self._look_into(thing, where)
        except Exception as error:  # whatever a user's own class does where it is looked into
            self._not_known(thing, where, error)

    def _not_known(self, thing: object, where: str, error: Exception | None = None) -> None:
        told = "" if error is None else f", {type(error).__name__}"
        self.unknown.append(f"{where} ({type(thing).__module__}.{type(thing).__qualname__}{told})")

    def _look_into(self, thing: object, where: str) -> None:
        name = name_of(thing)
        if name is not None:
            self._write("named", name)
        elif isinstance(thing, types.FunctionType):
            self._function(thing, where)
        elif isinstance(thing, type):
            self._class(thing, where)
        elif isinstance(thing, torch.nn.Module):
            self._module(thing, where)
        elif isinstance(thing, torch.Tensor):
            self._tensor(thing, where)
        elif type(thing) is np.ndarray:
            self._array(thing, where)
        elif type(thing) in (list, dict, types.MappingProxyType):
            self._collection(thing, where)
        elif isinstance(thing, types.ModuleType):
            own = ((name, value) for name, value in vars(thing).items() if not name.startswith("__"))
            self._named("module", own, where)
        else:
            self._part_of_python(thing, where)

    def _collection(self, thing: Any, where: str) -> None:
        if isinstance(thing, list):
            self._each("list", thing, where)
        else:
            self._named("dict", thing.items(), where)

    def _part_of_python(self, thing: Any, where: str) -> None:
        if isinstance(thing, _EMPTY):
            self._write("empty", type(thing).__qualname__)
        elif isinstance(thing, types.MethodType):
            self._each("method", (thing.__func__, thing.__self__), where)
        elif isinstance(thing, property):
            self._each("property", (thing.fget, thing.fset, thing.fdel), where)
        elif isinstance(thing, _WITH_OWNER):
            self._each("descriptor", (thing.__name__, thing.__objclass__), where)
        elif isinstance(thing, weakref.ref):
            self._each("weak", (thing(),), where)
        elif isinstance(thing, types.BuiltinFunctionType | types.MethodWrapperType):
            self._builtin(thing, where)
        elif hasattr(thing, "py_func"):  # numba's, whose other parts are new ones each time
            self._each("compiled", (thing.py_func, str(getattr(thing, "targetoptions", ""))), where)
        elif hasattr(type(thing), "what_counts"):  # gploss's own, which know of what nothing depends on
            self._each("what counts", (type(thing), thing.what_counts()), where)
        elif hasattr(type(thing), "__wrapped__") or hasattr(thing, "__wrapped__"):
            self._each("wrapper", (type(thing), thing.__wrapped__, getattr(thing, "__dict__", {})), where)
        else:
            self._object(thing, where)

    def _builtin(self, thing: Any, where: str) -> None:
        owner = thing.__self__
        if owner is None or isinstance(owner, types.ModuleType | type):
            module = getattr(owner, "__module__", None) if isinstance(owner, type) else thing.__module__
            release = release_of(module)
            if release is None:
                self._not_known(thing, where)
            self._write("built in", str(module), thing.__qualname__, str(release))
        else:
            self._each("bound", (thing.__name__, owner), where)

    def _function(self, function: types.FunctionType, where: str) -> None:
        names = function.__globals__
        release = release_of(names.get("__name__"))
        original = vars(function).get("_torchdynamo_orig_callable")
        if original is not None:  # torch.compile: what it keeps beside is about speed
            self.at(original, where)
            return
        cells = function.__closure__ or ()
        self._each("function", (function.__defaults__, function.__kwdefaults__), where)
        self._named("closure", zip(function.__code__.co_freevars, map(_content, cells), strict=True), where)
        self._named("attributes", _sorted(vars(function)), where)
        self.at(function.__code__, where)
        if release is not None:  # made by an installed package of what is in its cells
            self._write(str(function.__module__), function.__qualname__, release)
            return
        used = used_names(function.__code__)
        for name in global_names(function.__code__):
            self._write("global", name)
            self._global(names.get(name, vars(sys.modules["builtins"]).get(name)), used, name)
        for module, level in imported_names(function.__code__):
            dotted = resolve_name("." * level + module, names.get("__package__") or "") if level else module
            self._write("import", dotted)
            self._global(importlib.import_module(dotted), used, dotted)

    def _global(self, thing: object, used: frozenset[str], where: str) -> None:
        """Look at a global; of a module of the user's own at what the function can mean of it."""
        own_module = isinstance(thing, types.ModuleType) and release_of(thing.__name__) is None
        if not own_module or used & _READS_ANYTHING:
            self.at(thing, where)
            return
        own = {name: value for name, value in vars(thing).items() if name in used and not name.startswith("__")}
        self._write("part of module", *sorted(own))
        for name, value in _sorted(own):
            self._global(value, used - {name}, f"{where}.{name}")

    def _code(self, code: types.CodeType, where: str) -> None:
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & _CALLS)
        self._write("code", code.co_name, *map(str, counts), *code.co_varnames, *code.co_freevars)
        for step in steps(code):
            self._write(step.name)
            self.at(step.argument, where)

    def _class(self, kind: type, where: str) -> None:
        self._write("class", kind.__qualname__)
        self._each("bases", (*kind.__bases__, type(kind)), kind.__qualname__)
        own = {name: value for name, value in vars(kind).items() if name not in _NOT_THE_AUTHORS}
        self._named("attributes", _sorted(own), kind.__qualname__)

    def _module(self, module: torch.nn.Module, where: str) -> None:
        self.at(type(module), where)
        # Hooks are numbered through the whole process: their order alone matters.
        own = {
            name: list(value.values()) if name.endswith("hooks") and isinstance(value, dict) else value
            for name, value in vars(module).items()
        }
        self._named("torch module", _sorted(own), where)

    def _tensor(self, tensor: torch.Tensor, where: str) -> None:
        self.at(type(tensor), where)
        self._write(str(tensor.dtype), str(tensor.layout), str(tensor.requires_grad))
        hooks = [getattr(tensor, name, None) for name in ("_backward_hooks", "_post_accumulate_grad_hooks")]
        self._each("hooks", [list(own.values()) if own else [] for own in hooks], where)
        self._named("attributes", _sorted(vars(tensor)) if hasattr(tensor, "__dict__") else (), where)
        if torch.nn.parameter.is_lazy(tensor):
            return
        self._write(str(tuple(tensor.shape)))
        for part in _strided(tensor.detach()):
            flat = part.resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
            self._write(blake2b(flat.view(torch.uint8).numpy().tobytes(), digest_size=16).hexdigest())

    def _array(self, array: np.ndarray[Any, Any], where: str) -> None:
        self._write("array", str(array.dtype.descr), str(array.shape))
        if array.dtype.hasobject:
            self._each("objects", array.ravel().tolist(), where)
        else:
            self._write(blake2b(np.ascontiguousarray(array).tobytes(), digest_size=16).hexdigest())

    def _object(self, thing: object, where: str) -> None:
        """Look at what a copy of the object would be made of."""
        reduce = copyreg.dispatch_table.get(type(thing))
        parts_of_copy = thing.__reduce_ex__(4) if reduce is None else reduce(thing)
        self.at(type(thing), where)
        if isinstance(parts_of_copy, str):  # it stands for itself, wherever it has this name
            if not any(vars(own).get(parts_of_copy) is thing for own in list(sys.modules.values())):
                self._not_known(thing, where)
            self._write("itself", parts_of_copy)
            return
        make, arguments, state, items, pairs = (*parts_of_copy, None, None, None)[:5]
        self.at(make, where)
        self.at(arguments, where)
        if type(state) is dict and all(isinstance(name, str) for name in state):
            self._named("state", _sorted(state), where)
        else:
            self.at(state, where)
        self._each("items", items or (), where)
        self._named("pairs", pairs or (), where)


def _sorted(named: Any) -> list[tuple[str, object]]:
    return sorted(named.items(), key=lambda pair: str(pair[0]))


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # it has none yet
        return None


def _strided(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield what a tensor is made of, each with its numbers in memory."""
    if tensor.layout == torch.strided:
        yield tensor
    elif tensor.layout == torch.sparse_coo:
        yield from (tensor._indices(), tensor._values())
    elif tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        yield from (tensor.crow_indices(), tensor.col_indices(), tensor.values())
    else:
        yield from (tensor.ccol_indices(), tensor.row_indices(), tensor.values())
