"""Modules that hang: a limit on the time that a user's module may take for one batch, for who asks for it."""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from gploss.arguments import real_number

_SIGNAL: Final = getattr(signal, "SIGALRM", None)  # not everywhere


class ModuleTooSlow(RuntimeError):  # noqa: N818 (says what happened)
    """A module took longer for a batch than it may; the message names it."""


class _Stop(BaseException):
    """The same within the block, where no `except Exception` of a trainer or a module shall take it for a fault."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Stop a module that takes longer for the scores of a batch, wherever one is called within the block.

    Training in other processes has no part in it. What is compiled at the first batch counts, so allow some
    seconds. Code in C that never comes back to Python cannot be stopped; in threads other than the main one neither
    can what sleeps or waits. Results and keys are the same with a limit and without.

    Args:
        seconds: that one call of a module may take, the modules within it included.

    Raises:
        TypeError: the limit is not a number.
        ValueError: it is not above 0.
        ModuleTooSlow: a module took longer. The block ends with it; a search's exception holds its `search_result`.

    Example:
        >>> with time_limit(30.0):
        ...     torch.nn.Linear(2, 1)(torch.zeros(3, 2)).shape
        torch.Size([3, 1])
    """
    clock = _Clock(real_number("seconds", seconds, above=0.0))
    hooks = [
        register_module_forward_pre_hook(clock.begin),
        register_module_forward_hook(clock.end, always_call=True),
    ]
    try:
        yield
    except _Stop as stop:
        error = ModuleTooSlow(*stop.args)
        vars(error).update(vars(stop))  # a search's result so far, and notes
        raise error from None
    finally:
        for hook in hooks:
            hook.remove()
        clock.stop()


def is_limit(hook: object) -> bool:
    """Return whether a hook of torch's is a limit's, which no result depends on."""
    return isinstance(getattr(hook, "__self__", None), _Clock)


class _Clock(threading.local):
    """Runs, in each thread of its own, while the outermost of the modules that are called works."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._depth = 0
        self._stop: Callable[[], None] = _nothing

    def begin(self, module: torch.nn.Module, inputs: object) -> None:
        self._depth += 1
        if self._depth == 1:
            name = f"{type(module).__module__}.{type(module).__qualname__}"
            message = (
                f"{name} took longer than {self._seconds:g} s for a batch: its forward may hang; mend it, or give "
                "it more time"
            )
            self._stop = _alarm(self._seconds, message) if _may_alarm() else _watchdog(self._seconds, message)

    def end(self, module: torch.nn.Module, inputs: object, output: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self.stop()

    def stop(self) -> None:
        self._stop()
        self._stop = _nothing


def _nothing() -> None:
    pass


def _may_alarm() -> bool:
    """Whether the signal is free: it interrupts what sleeps, too, but comes to the main thread alone."""
    return (
        _SIGNAL is not None
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(_SIGNAL) is signal.SIG_DFL
        and signal.getitimer(signal.ITIMER_REAL)[0] == 0
    )


def _alarm(seconds: float, message: str) -> Callable[[], None]:
    """Raise in this thread after some time; return how to take that back."""
    assert _SIGNAL is not None

    def ring(number: int, frame: FrameType | None) -> None:
        raise _Stop(message)

    def stop() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(_SIGNAL, signal.SIG_DFL)

    signal.signal(_SIGNAL, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    return stop


def _watchdog(seconds: float, message: str) -> Callable[[], None]:
    """The same from another thread, which sees to it that this one raises when it next runs code of Python's."""

    def make(self: _Stop, *_: Any) -> None:
        BaseException.__init__(self, message)

    # Python makes the exception itself, from its class alone.
    kind = type(_Stop.__name__, (_Stop,), {"__init__": make})
    thread = ctypes.c_ulong(threading.get_ident())
    raise_there = ctypes.pythonapi.PyThreadState_SetAsyncExc
    timer = threading.Timer(seconds, raise_there, (thread, ctypes.py_object(kind)))
    timer.daemon = True
    timer.start()
    return timer.cancel
