"""What holds for all tests: they run side by side, so that each keeps to one core, and signals mean what they do.

A shell that starts tests in the background has them, and all that they start, ignore Ctrl-C; `nohup` does so with
SIGHUP.
"""

from __future__ import annotations

import signal
import threading

import torch

torch.set_num_threads(1)

if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in ("SIGHUP", "SIGQUIT"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
