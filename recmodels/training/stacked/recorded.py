"""Batches recorded as a CUDA graph: launched by one call instead of a hundred."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

import torch

from recmodels.training.stacked.feed import Feed

Work: TypeAlias = Callable[[Feed], None]

#: Runs work once, on tensors that stay, and returns what runs it again.
Record: TypeAlias = Callable[[Callable[[], None]], Callable[[], None]]

#: Batches launched one by one first, in which libraries allocate and compile what they need.
WARM_UP: Final = 3


class RecordedBatches:
    """Does the same work for each batch of an epoch, from the fourth on as a replay of a recording.

    A batch of another size than the first (an epoch's last) is launched as usual. So are all batches where the work
    cannot be recorded, after a warning: a module that looks at its values, for one.

    Args:
        work: what is done for a batch. It must leave all that it changes in tensors which stay where they are, and
            take nothing from the host that changes from batch to batch.
        generator: of the random numbers that work draws.
        device: a CUDA device.
        record: how work is recorded; as a CUDA graph.

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
    """

    def __init__(
        self, work: Work, generator: torch.Generator, device: torch.device, record: Record | None = None
    ) -> None:
        self._work = work
        self._generator = generator
        self._record = partial(_graph, device) if record is None else record
        self._seen = 0
        self._size = 0
        self._static: Feed | None = None
        self._replay: Callable[[], None] | None = None
        self._given_up = False

    def run(self, feed: Feed, seed: int) -> None:
        """Do the work for a batch, random numbers from this seed."""
        size = len(next(iter(feed.batch.values())))
        self._size = self._size or size
        if size != self._size or self._given_up or self._seen < WARM_UP:
            self._seen += 1
            self._launch(feed, seed)
            return
        if self._static is None:
            self._static = feed.copied()
            if not self._recorded(self._static):
                self._launch(feed, seed)
                return
        assert self._replay is not None
        for kept, new in zip(self._static.tensors(), feed.tensors(), strict=True):
            kept.copy_(new)
        self._generator.manual_seed(seed)
        self._replay()

    def _launch(self, feed: Feed, seed: int) -> None:
        self._generator.manual_seed(seed)
        self._work(feed)

    def _recorded(self, static: Feed) -> bool:
        """Record the work on tensors that stay; say whether that was possible."""
        try:
            self._replay = self._record(lambda: self._work(static))
        except torch.OutOfMemoryError:
            raise  # fewer members at a time may do
        except RuntimeError as error:
            self._given_up = True
            warnings.warn(
                f"batches cannot be recorded as a CUDA graph ({error}); they are launched one by one, "
                "which is slower",
                RuntimeWarning,
                stacklevel=2,
            )
        return not self._given_up


def _graph(device: torch.device, work: Callable[[], None]) -> Callable[[], None]:
    """Record work as a CUDA graph; recording does not do it."""
    with torch.cuda.device(device):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()

    def replay() -> None:
        with torch.cuda.device(device):
            graph.replay()

    return replay
