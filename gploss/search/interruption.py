"""Ctrl-C that ends a run cleanly: the first one asks, the second one insists."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self


class Interruption:
    """Holds the first Ctrl-C back until it can do no harm.

    Inside ``with interruption.allowed():`` (training, where nothing is half done that matters) a Ctrl-C raises
    KeyboardInterrupt at once. Elsewhere (telling a searcher, saving) the first one only sets `requested`,
    which the run looks at between its steps, and the second raises at once wherever it comes.

    Outside of the main thread, or where the program has its own handler for the signal, nothing is installed.

    Example:
        >>> with Interruption() as interruption:
        ...     interruption.requested
        False
    """

    def __init__(self) -> None:
        self.requested = False
        self._allowed = False
        self._installed = False

    def __enter__(self) -> Self:
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._handle)
            self._installed = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._installed = False

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Let a Ctrl-C raise KeyboardInterrupt at once within this block."""
        self._allowed = True
        try:
            yield
        finally:
            self._allowed = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        at_once = self.requested or self._allowed
        self.requested = True
        if at_once:
            raise KeyboardInterrupt
