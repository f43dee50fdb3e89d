"""A limit on a batch's time: modules that hang are stopped and named, others never notice."""

from __future__ import annotations

import contextlib
import functools
import signal
import threading
import time
import warnings
from collections.abc import Callable
from types import FrameType

import pytest
import torch

from gploss.search.searcher import SEARCHERS
from gploss.tasks.pointwise import LOSSES
from recmodels.evaluators.evaluator import LossEvaluator
from recmodels.models.base import Batch
from recmodels.models.time_limit import ModuleTooSlow, time_limit
from recmodels.training.protocol import STANDARD
from recmodels.training.stacked.trainer import StackedTrainer
from tests.gploss.search.runs import STANDARD as GRAMMAR
from tests.recmodels.training.cases import PROBLEM


def endless() -> None:
    while True:
        time.sleep(0.001)


class Hangs(torch.nn.Module):
    """Multiplies vectors, and hangs after some calls.

    Args:
        after: calls that come back.
        hang: what it does then.
    """

    def __init__(self, users: int, items: int, after: int = 10**9, hang: Callable[[], None] = endless) -> None:
        super().__init__()
        self.users, self.items = torch.nn.Embedding(users, 4), torch.nn.Embedding(items, 4)
        self.left = [after]
        self.hang = hang

    def forward(self, batch: Batch) -> torch.Tensor:
        self.left[0] -= 1
        if self.left[0] < 0:
            self.hang()
        return (self.users(batch.user) * self.items(batch.item)).sum(-1)


def search(after: int, hang: Callable[[], None] = endless) -> None:
    trainer = StackedTrainer(functools.partial(Hangs, after=after, hang=hang), STANDARD, device="cpu")
    searcher = SEARCHERS["random"](GRAMMAR, LossEvaluator(PROBLEM, trainer, epochs=1), seed=0)
    searcher.run(4, progress=False)


NAMED = r"test_time_limit\.Hangs took longer than 0\.3 s for a batch: its forward may hang"


@pytest.mark.parametrize("after", [0, 1, 3])
@pytest.mark.parametrize("hang", [endless, functools.partial(time.sleep, 60)])
def test_a_module_that_hangs_is_stopped_and_named(after: int, hang: Callable[[], None]) -> None:
    with pytest.raises(ModuleTooSlow, match=NAMED) as caught, time_limit(0.3):
        search(after, hang)
    assert not after or caught.value.search_result.stopped == "failed"  # type: ignore[attr-defined]
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_it_is_stopped_in_a_thread_too() -> None:
    caught: list[BaseException] = []

    def work() -> None:
        try:
            with time_limit(0.3):
                Hangs(3, 3, 0)(None)
        except ModuleTooSlow as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    with pytest.raises(ModuleTooSlow, match=NAMED):
        raise caught[0]


def test_nothing_takes_it_for_a_fault_of_its_own() -> None:
    with pytest.raises(ModuleTooSlow, match=NAMED), time_limit(0.3), contextlib.suppress(Exception):
        Hangs(3, 3, 0)(None)


def test_an_alarm_of_the_programs_own_is_left_alone() -> None:
    def own(number: int, frame: FrameType | None) -> None:
        pass

    signal.signal(signal.SIGALRM, own)
    try:
        with pytest.raises(ModuleTooSlow, match=NAMED), time_limit(0.3):
            Hangs(3, 3, 0)(None)
        assert signal.getsignal(signal.SIGALRM) is own
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def test_the_clock_runs_for_one_call_at_a_time() -> None:
    """Neither many quick batches nor what is done between them adds up, and an error ends its call."""
    nap = functools.partial(time.sleep, 0.1)
    module = Hangs(3, 3, 0, nap)
    batch = Batch(torch.tensor([0]), torch.tensor([1]))
    with time_limit(0.3):
        for _ in range(5):
            module(batch)
        time.sleep(0.4)
        for _ in range(3):
            with pytest.raises(AttributeError):
                module(None)
        time.sleep(0.4)
    time.sleep(0.4)
    assert module(batch).shape == (1,)


def test_without_a_limit_nothing_is_watched() -> None:
    with time_limit(0.1):
        pass
    Hangs(3, 3, 0, functools.partial(time.sleep, 0.3))(Batch(torch.tensor([0]), torch.tensor([1])))


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf"), "1", None, True])
def test_a_limit_is_a_positive_number(seconds: object) -> None:
    with pytest.raises((TypeError, ValueError), match="seconds must be"), time_limit(seconds):  # type: ignore[arg-type]
        pass


def test_results_and_keys_are_the_same_with_a_limit() -> None:
    trainer = StackedTrainer(Hangs, STANDARD, device="cpu")

    def outcome() -> tuple[object, object]:
        evaluator = LossEvaluator(PROBLEM, trainer, epochs=1)
        (evaluation,) = evaluator.evaluate([LOSSES["bce"].expression], {}, 1)
        return evaluator.describe(), (evaluation.metrics, evaluation.fingerprint)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = outcome()
        with time_limit(60.0):
            assert outcome() == plain
