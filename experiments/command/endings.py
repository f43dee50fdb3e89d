"""How a command ends when the system asks it to: in good order, like after Ctrl-C."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Final, Self

#: 128 and the number of the signal, as shells have it.
INTERRUPTED: Final = 128 + signal.SIGINT

#: What asks a process to end; SIGHUP, of a terminal that is closed, is not everywhere.
_REQUESTS: Final = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class OrderlyEnding:
    """Within its ``with`` statement SIGTERM and SIGHUP do what Ctrl-C does.

    A signal that is ignored, as by `nohup`, or that has a handler already, is left as it is; so are all outside of
    the main thread.

    Attributes:
        code: exit code of a process that was interrupted: 130, or 143 and 129 after those two.
        asked: whether one of the two came. What fails then fails for that reason: workers may have got it first.
    """

    def __init__(self) -> None:
        self.code: int = INTERRUPTED
        self.asked = False
        self._installed: list[signal.Signals] = []

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _REQUESTS:
                if signal.getsignal(number) is signal.SIG_DFL:
                    signal.signal(number, self._handle)
                    self._installed.append(number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in self._installed:
            signal.signal(number, signal.SIG_DFL)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.code, self.asked = 128 + number, True
        # A search has its own, which waits for the end of what may not be cut in two.
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler):
            handler(signal.SIGINT, frame)
        else:
            raise KeyboardInterrupt
