"""The fast trainer of matrix factorisation on the CPU: candidates one by one, on every core."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from gploss.arguments import whole_number
from gploss.compute.losses import TrainableLosses
from gploss.compute.program import Program
from gploss.compute.tables import Tables
from gploss.files.plain import JSON
from gploss.setting import complete
from gploss.tasks import Task
from gploss.tasks.pointwise import POINTWISE
from recmodels.data.rows import Batches, Rows, Schema
from recmodels.models.base import ModelFactory, build_model
from recmodels.models.description import describe_model
from recmodels.training.arguments import given_model, given_protocol
from recmodels.training.course import Course, Rules, report_on
from recmodels.training.fused.layout import Layout, OtherModelError, check_lookups, check_tensors, vector_size
from recmodels.training.fused.orders import MOST_ROWS, Orders, lay_out
from recmodels.training.fused.workspace import Workspace, inputs_beside_score
from recmodels.training.plain.proof import Proof
from recmodels.training.plain.pulls import formulas
from recmodels.training.population import chunks
from recmodels.training.problem import Judge, Problem, bounds_of
from recmodels.training.protocol import Protocol
from recmodels.training.trainer import (
    EpochsDone,
    Keep,
    Member,
    State,
    Trainer,
    TrainReport,
    formulas_only,
    prepared,
)

#: Validation scores that are gathered at most before they are measured.
_SCORES_AT_A_TIME: Final = 2**16


class FusedTrainer(Trainer):
    """Trains matrix factorisation in compiled code, a candidate at a time on each core.

    It does what `recmodels.training.stacked.trainer.StackedTrainer` does, with the same initial weights and
    batches, and agrees with it to rounding; states go from one to the other. A candidate goes through all of its
    epochs at once and its weights are gone afterwards, so that memory does not grow with the population.

    Beside "sgd" and "adagrad" it knows "adam": lazy Adam, which moves only the rows that a batch touches and counts
    the steps of each row, otherwise as `torch.optim.Adam` with its usual constants; weight decay as for Adagrad.

    A member with a gradient or score that is not finite ends at once. The state that is kept of it is of no use.

    Args:
        model: makes an `MF` for a number of users and items, or what is the same: before it is first trained, a few
            batches of the problem show whether it is.
        protocol: optimiser, batch size, clipping, patience.
        device: "auto" or "cpu".
        n_jobs: candidates that are trained at the same time; by default as many as there are cores.

    Raises:
        ValueError: the device is not the CPU.
    """

    name = "fused"

    def __init__(
        self, model: ModelFactory, protocol: Protocol, *, device: str = "auto", n_jobs: int | None = None
    ) -> None:
        if device not in ("auto", "cpu"):
            raise ValueError(f"the fused trainer runs on the CPU, not on {device!r}; use StackedTrainer for that")
        jobs = None if n_jobs is None else whole_number("n_jobs", n_jobs, least=1)
        self.model = given_model(model)
        self.protocol = given_protocol(protocol)
        self.n_jobs = jobs or _available_cores()
        self._last: _Shared | None = None
        self._layouts: dict[Schema, Layout] = {}

    def forget(self) -> None:
        """Prove the model anew; see `Trainer.forget`."""
        self._last, self._layouts = None, {}

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_last": None}

    def describe(self, schema: Schema) -> dict[str, JSON]:
        """Return what results depend on beside problem, losses and members."""
        return {
            "trainer": self.name,
            "device": "cpu",
            "protocol": self.protocol.describe(),
            "model": describe_model(self.model, schema),
        }

    def prove(self, batches: Batches, task: Task = POINTWISE) -> Layout:
        """Hold the kernel to the user's own module, on a few batches.

        Args:
            batches: of the problem, real ones.
            task: of the losses.

        Returns:
            Where the model's weights are.

        Raises:
            OtherModelError: the model is not matrix factorisation as the kernel computes it.
            ValueError: the model cannot be trained at all, or there are too many users and items.
        """
        schema = batches.rows.schema
        size = vector_size(build_model(self.model, schema, seed=0), schema)
        if schema["user"] + schema["item"] >= MOST_ROWS:
            raise ValueError(f"the fused trainer knows fewer than {MOST_ROWS} users and items; use StackedTrainer")
        layout = Layout(schema["user"], schema["item"], size)
        proof = Proof(self.model, self.protocol, batches, "cpu", formulas(task))
        check_lookups(self.name, proof)
        candidate = FusedTrainer(self.model, proof.protocol, n_jobs=1)
        candidate._layouts[schema] = layout
        reason = proof.why_not(candidate)
        if reason is not None:
            raise OtherModelError(self.name, reason)
        return layout

    def _layout(self, batches: Batches, task: Task = POINTWISE) -> Layout:
        """Return where the weights of the model are; once for all problems with the same columns."""
        schema = batches.rows.schema
        if schema not in self._layouts:
            self._layouts[schema] = self.prove(batches, task)
        return self._layouts[schema]

    def prepare(self, losses: Program, layout: Layout) -> None:
        """Compile what is not in the cache yet, which takes some seconds; `fit` does so first.

        Args:
            losses: at least one.
            layout: of the model.
        """
        nothing = np.zeros(1, np.int64)
        inputs = inputs_beside_score(losses)
        one_each = Schema({"user": 1, "item": 1})
        rows = Rows(one_each, {"user": nothing, "item": nothing}, dict.fromkeys(inputs, np.zeros(1, np.float32)))
        workspace = Workspace(
            replace(layout, n_users=1, n_items=1), self.protocol, losses.tables, losses.most_slots
        )
        workspace.begin({name: weight[0] for name, weight in workspace.weights().items()}, None)
        member = Member(0, 0, complete({}, self.protocol.settings()))
        workspace.train(losses, member, lay_out(Batches(rows, np.array([0, 1])), inputs))
        workspace.score(nothing, nothing, np.empty(1, np.float32))

    def fit(
        self,
        losses: TrainableLosses,
        members: Sequence[Member],
        problem: Problem,
        epochs: int,
        *,
        start: State | None = None,
        keep: Keep = "none",
        progress: EpochsDone | None = None,
    ) -> TrainReport:
        """Train every member; see `Trainer.fit`. Progress is reported when a member has ended.

        Raises:
            ValueError: losses that are no formulas, too many users and items, or what `prepared` refuses.
        """
        program = formulas_only(losses, self.name)
        members = prepared(self, program, members, problem, epochs, start)
        layout = self._layout(problem.batches(0, 0, complete({}, self.settings(problem))), problem.task)
        if members:
            self.prepare(program, layout)
        if start is not None:
            self._check_start(start, layout)
        rules = Rules(problem.metrics, epochs, self.protocol.patience, keep)
        rows, judge = problem.rows("validation"), problem.judge("validation")
        common = _Fit(self.protocol, program, layout, rows, judge, rules)
        courses: dict[int, Course] = {}
        seconds = np.zeros(len(members))
        jobs = self._jobs(program, members, problem, start)
        for row, course, took in common.run_all(jobs, min(self.n_jobs, len(members))):
            courses[row], seconds[row] = course, took
            if progress is not None:
                progress(epochs)
        return report_on([courses[row] for row in range(len(members))], seconds.tolist(), rules)

    def predict(self, states: State, rows: Rows) -> npt.NDArray[np.float32]:
        """Return scores (M, N); see `Trainer.predict`."""
        layout = self._layout(Batches(rows, bounds_of(len(rows), self.protocol.batch_size)))
        workspace = Workspace(layout, self.protocol, Tables.of(POINTWISE), 1)
        check_tensors("weights", states.weights, workspace.weights())
        scores = np.empty((len(states), len(rows)), np.float32)
        for row, own in enumerate(scores):
            workspace.begin(_member(states.weights, row), None)
            workspace.score(rows.features["user"], rows.features["item"], own)
        return scores

    def _check_start(self, start: State, layout: Layout) -> None:
        workspace = Workspace(layout, self.protocol, Tables.of(POINTWISE), 1)
        check_tensors("weights", start.weights, workspace.weights())
        check_tensors("optimizer state", start.optimizer, workspace.optimizer_state())

    def _jobs(
        self, losses: Program, members: Sequence[Member], problem: Problem, start: State | None
    ) -> Iterator[_Job]:
        """Yield members that share batches after each other, so that these are made once and not kept for long."""
        inputs = inputs_beside_score(losses)
        for rows in chunks(members, start, ("batch_size", *problem.settings), len(members)):
            shared = self._shared(problem, members[rows[0]], inputs)
            for row in rows:
                if start is None:
                    seed = members[row].seed
                    yield _Job(row, members[row], shared.orders, shared.weights, None, 0, seed)
                else:
                    own = row if len(start) > 1 else 0
                    weights, optimizer = _member(start.weights, own), _member(start.optimizer, own)
                    past = int(start.epochs[own]), int(start.seeds[own])
                    yield _Job(row, members[row], shared.orders, weights, optimizer, *past)

    def _shared(self, problem: Problem, member: Member, inputs: tuple[str, ...]) -> _Shared:
        """Return what members with a member's batches share; the last is kept, as a search asks for no other."""
        batches = {name: member.settings[name] for name in ("batch_size", *problem.settings)}
        key = (member.seed, inputs, tuple(batches.values()))
        if self._last is None or self._last.problem is not problem or self._last.key != key:
            orders = Orders(problem, member.seed, batches, inputs)
            weights = _weights(build_model(self.model, problem.schema, member.seed))
            self._last = _Shared(problem, key, orders, weights)
        return self._last


@dataclass(frozen=True)
class _Shared:
    """What members with one seed and the same batches have in common.

    Attributes:
        problem: that they learn.
        key: seed, inputs of the losses, settings that decide the batches.
        orders: of the epochs.
        weights: the initial ones.
    """

    problem: Problem
    key: tuple[object, ...]
    orders: Orders
    weights: dict[str, torch.Tensor]


@dataclass(frozen=True)
class _Job:
    """A member to be trained.

    Attributes:
        row: its place.
        member: loss, seed, rate and decay.
        orders: of its seed.
        weights: to begin with.
        optimizer: state to begin with, or None.
        before: epochs that the weights have behind them.
        origin: seed that the model was made with.
    """

    row: int
    member: Member
    orders: Orders
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor] | None
    before: int
    origin: int


@dataclass(frozen=True)
class _Fit:
    """What the members of one call of `fit` have in common."""

    protocol: Protocol
    losses: Program
    layout: Layout
    validation: Rows
    judge: Judge
    rules: Rules
    workspaces: queue.SimpleQueue[Workspace] = field(default_factory=queue.SimpleQueue)

    def run_all(self, jobs: Iterator[_Job], n_jobs: int) -> Iterator[tuple[int, Course, float]]:
        """Train all members; yield each one's place, course and seconds as it ends."""
        if n_jobs <= 1:
            for job in jobs:
                yield job.row, *self.run(job)
            return
        with ThreadPoolExecutor(n_jobs) as pool:
            rows: dict[Future[tuple[Course, float]], int] = {}
            try:
                for job in jobs:
                    rows[pool.submit(self.run, job)] = job.row
                    if len(rows) >= 2 * n_jobs:
                        yield from _take_done(rows)
                while rows:
                    yield from _take_done(rows)
            finally:
                pool.shutdown(cancel_futures=True)

    def run(self, job: _Job) -> tuple[Course, float]:
        """Train one member."""
        begun = time.perf_counter()
        try:
            workspace = self.workspaces.get_nowait()
        except queue.Empty:
            workspace = Workspace(self.layout, self.protocol, self.losses.tables, self.losses.most_slots)
        workspace.begin(job.weights, job.optimizer)
        course = _Training(self, job, workspace).run()
        self.workspaces.put(workspace)
        return course, time.perf_counter() - begun


def _take_done(rows: dict[Future[tuple[Course, float]], int]) -> Iterator[tuple[int, Course, float]]:
    done, _ = wait(rows, return_when=FIRST_COMPLETED)
    for future in done:
        yield rows.pop(future), *future.result()


class _Training:
    """One member while it is trained.

    Scores of several epochs are measured together, which is cheaper, as long as no decision depends on them: a
    member whose best epoch so far is e cannot run out of patience before epoch e + patience.
    """

    def __init__(self, fit: _Fit, job: _Job, workspace: Workspace) -> None:
        self.fit = fit
        self.job = job
        self.workspace = workspace
        self.course = Course(fit.rules)
        self.waiting = 0  # epochs whose scores are still to be measured
        self.users, self.items = (fit.validation.features[name] for name in ("user", "item"))
        samples = len(fit.validation)
        at_once = min(fit.rules.epochs, max(1, _SCORES_AT_A_TIME // samples)) if fit.rules.keep == "none" else 1
        self.scores = np.empty((at_once, samples), np.float32)

    def run(self) -> Course:
        """Train until the last epoch, the end of patience, or something that is not finite."""
        fit, course = self.fit, self.course
        for epoch in range(fit.rules.epochs):
            order = self.job.orders.of(self.job.before + epoch)
            if not self.workspace.train(fit.losses, self.job.member, order):
                self._measure(epoch)
                self._keep_if(course.broke(epoch))
                break
            self.workspace.score(self.users, self.items, self.scores[self.waiting])
            self.waiting += 1
            if self._must_measure(epoch):
                self._measure(epoch + 1)
                if course.ended:
                    break
        return course

    def _must_measure(self, epoch: int) -> bool:
        return (
            self.waiting == len(self.scores)
            or self.course.can_end(epoch)
            or not np.isfinite(self.scores[self.waiting - 1]).all()
        )

    def _measure(self, epochs: int) -> None:
        """Measure the scores that are waiting, the last of them of epoch number `epochs`."""
        if not self.waiting:
            return
        columns = self.fit.judge(torch.from_numpy(self.scores[: self.waiting]))
        first, self.waiting = epochs - self.waiting, 0
        for row, epoch in enumerate(range(first, epochs)):
            values = {name: float(column[row]) for name, column in columns.items()}
            self._keep_if(self.course.measured(epoch, values))
            if self.course.ended:
                return

    def _keep_if(self, keeps: bool) -> None:
        if keeps:
            epochs = np.array([self.job.before + self.course.epochs], np.int64)
            origin = np.array([self.job.origin], np.int64)
            self.course.state = State(self.workspace.weights(), self.workspace.optimizer_state(), epochs, origin)


def _weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in module.named_parameters()}


def _member(tensors: Mapping[str, torch.Tensor], row: int) -> dict[str, torch.Tensor]:
    return {name: tensor[row] for name, tensor in tensors.items()}


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
