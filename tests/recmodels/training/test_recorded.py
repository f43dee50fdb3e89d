"""Recorded batches: what a replay needs is in tensors, and it does what launching would have done.

A CUDA graph needs a GPU. Here torch's own calls are recorded and replayed one by one instead, with everything that
came from the host as it was at the recording: a batch that depended on more than its tensors would come out wrong.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gploss.compute.losses import LossKernel
from gploss.language.expression import Expression
from gploss.screening.screening import screen
from recmodels.models.base import Batch, ModelFactory
from recmodels.models.deep_model import DeepModel
from recmodels.models.mf import MF
from recmodels.training.protocol import PAPER, STANDARD, Protocol
from recmodels.training.stacked.feed import Feed, on_device
from recmodels.training.stacked.optimizers import Optimizer
from recmodels.training.stacked.recorded import WARM_UP, RecordedBatches
from recmodels.training.stacked.trainer import StackedTrainer
from recmodels.training.trainer import TrainReport
from tests.recmodels.training.cases import PROBLEM, SPLIT, member

CPU = torch.device("cpu")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
PROTOCOLS = {
    "sgd": dataclasses.replace(PAPER, batch_size=64),
    "adagrad": dataclasses.replace(STANDARD, batch_size=64),
}
MODELS: dict[str, Callable[[Protocol], ModelFactory]] = {
    "mf": lambda protocol: partial(MF, embedding_size=4, initialization=protocol.initialization),
    "deep": lambda protocol: partial(
        DeepModel, embedding_size=4, layers=(8,), initialization=protocol.initialization
    ),
}


class Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers torch's calls, and what their in-place changes overwrote."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self.overwritten: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                self.overwritten.append((value, value.clone()))
        result = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, result))
        return result


def record_calls(work: Callable[[], None]) -> Callable[[], None]:
    """Record without doing, as a CUDA graph is recorded: in the end all is as it was."""
    calls = Calls()
    with calls:
        work()
    with torch.no_grad():
        for tensor, before in reversed(calls.overwritten):
            tensor.copy_(before)

    def replay() -> None:
        with torch.no_grad():
            for func, args, kwargs, result in calls.calls:
                again = func(*args, **kwargs)
                for old, new in zip(_flat(result), _flat(again), strict=True):
                    if old is not new and old.data_ptr() != new.data_ptr():
                        old.copy_(new)

    return replay


def _flat(result: Any) -> list[torch.Tensor]:
    parts = result if isinstance(result, tuple | list) else [result]
    return [part for part in parts if isinstance(part, torch.Tensor)]


class TorchBCE(LossKernel):
    """Binary cross-entropy for all, in calls of torch."""

    def __init__(self, rows: Sequence[int], device: torch.device) -> None:
        self.count = len(rows)

    def slopes(
        self, scores: torch.Tensor, inputs: Mapping[str, torch.Tensor], weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        return (scores.detach().sigmoid() - inputs["label"]) / scores.shape[1]

    def diverged(self) -> npt.NDArray[np.bool_]:
        return np.zeros(self.count, np.bool_)


def train(model: str, protocol: Protocol, device: str = "cpu") -> TrainReport:
    program = screen([Expression.parse("square(label - pred)")], scale_free=protocol.scale_free).losses
    members = [member(0, 5, protocol.learning_rate * factor, protocol.weight_decay) for factor in (1, 2, 0.5)]
    trainer = StackedTrainer(MODELS[model](protocol), protocol, device=device)
    return trainer.fit(program, members, PROBLEM, 2, keep="last")


def check_same(one: TrainReport, other: TrainReport) -> None:
    assert one.states is not None and other.states is not None
    np.testing.assert_array_equal(one.metrics["auc"], other.metrics["auc"])
    for name, tensor in one.states.weights.items():
        assert torch.equal(tensor, other.states.weights[name]), name
    for name, tensor in one.states.optimizer.items():
        assert torch.equal(tensor, other.states.optimizer[name]), name


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
@pytest.mark.parametrize("model", MODELS)
def test_replayed_batches_train_as_launched_ones(
    model: str, protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout, batch norm, decay that catches up, rows that fill up, and a last batch of another size included."""
    monkeypatch.setattr("recmodels.training.stacked.trainer.CompiledOptimizer", Optimizer)
    monkeypatch.setattr("recmodels.training.stacked.trainer.feeds", on_device)
    monkeypatch.setattr("gploss.compute.program.Program.kernel", TorchBCE)
    monkeypatch.setattr("recmodels.training.stacked.steady._is_compiled", lambda *tensors: False)
    launched = train(model, protocol)
    replays = []

    def runner(work: Callable[[Feed], None], generator: torch.Generator, device: torch.device) -> Any:
        def record(work: Callable[[], None]) -> Callable[[], None]:
            replay = record_calls(work)
            return lambda: (replays.append(1), replay())[1]  # type: ignore[func-returns-value]

        return RecordedBatches(work, generator, device, record).run

    monkeypatch.setattr("recmodels.training.stacked.trainer._runner", runner)
    check_same(train(model, protocol), launched)
    batches = -(-len(SPLIT.train) // 64)
    assert len(replays) == 2 * (batches - WARM_UP - (len(SPLIT.train) % 64 > 0)) > 0


@needs_cuda
@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
@pytest.mark.parametrize("model", MODELS)
def test_cuda_graphs_train_as_launched_batches(
    model: str, protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = train(model, protocol, "cuda")
    monkeypatch.setattr("recmodels.training.stacked.recorded.WARM_UP", 10**9)
    check_same(recorded, train(model, protocol, "cuda"))


def feed(size: int) -> Feed:
    ids = torch.zeros(size, dtype=torch.int64)
    return Feed(Batch(ids, ids), {"label": torch.zeros(size)}, None, {})


def test_work_that_cannot_be_recorded_is_launched_after_a_warning() -> None:
    sizes: list[int] = []

    def refuse(work: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing")

    generator = torch.Generator()
    batches = RecordedBatches(lambda own: sizes.append(len(own.batch.user)), generator, CPU, refuse)
    for number in range(WARM_UP):
        batches.run(feed(4), number)
    with pytest.warns(RuntimeWarning, match="cannot be recorded as a CUDA graph .*one by one"):
        batches.run(feed(4), 9)
    assert generator.initial_seed() == 9
    batches.run(feed(4), 10)
    assert sizes == [4] * (WARM_UP + 2) and generator.initial_seed() == 10


def test_too_little_memory_is_not_hidden() -> None:
    def refuse(work: Callable[[], None]) -> Callable[[], None]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    batches = RecordedBatches(lambda own: None, torch.Generator(), CPU, refuse)
    for number in range(WARM_UP):
        batches.run(feed(4), number)
    with pytest.raises(torch.OutOfMemoryError):
        batches.run(feed(4), 9)
