"""The GPU kernels: on a CUDA device where there is one, and in Triton's interpreter on the CPU everywhere else.

The interpreter is chosen by an environment variable before Triton is first imported. So the last test but one runs
this file again, in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from gploss.compute.gpu import interpreted, load_triton_kernels, why_no_triton
from gploss.compute.losses import LossKernel
from gploss.compute.on_tensors import TritonLosses
from gploss.compute.program import Program
from gploss.compute.tables import Tables
from gploss.language.expression import Expression
from gploss.language.operators import OPERATORS, register_operator, unary
from gploss.language.terminals import TERMINALS, register_terminal, terminal
from gploss.tasks import Input, Task
from gploss.tasks.pointwise import POINTWISE
from recmodels.data.interactions import Interactions, Split
from recmodels.data.pointwise import PointwiseProblem
from recmodels.models.base import ModelFactory
from recmodels.models.deep_model import DeepModel
from recmodels.models.mf import MF
from recmodels.training.fused.gpu import CHUNK_SIZE, KERNELS, TritonTrainer, _Chunk
from recmodels.training.protocol import PAPER, STANDARD, Protocol
from recmodels.training.stacked.feed import on_device
from recmodels.training.stacked.optimizers import Optimizer
from recmodels.training.stacked.trainer import StackedTrainer
from recmodels.training.trainer import Member, Outcome, State, TrainReport
from tests.pointwise import run
from tests.recmodels.training.cases import member
from tests.recmodels.training.trainer_contract import TrainerContract

needs_triton = pytest.mark.skipif(why_no_triton() is not None, reason=str(why_no_triton()))
runs_kernels = pytest.mark.skipif(
    why_no_triton() is not None or not (torch.cuda.is_available() or interpreted()),
    reason="no CUDA device here; test_in_the_interpreter runs this on the CPU",
)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

BCE = "neg(add(mul(label, log(pred)), mul(add(1, neg(label)), log(add(1, neg(pred))))))"
MSE = "square(add(label, neg(pred)))"
MAXR = "max(mul(add(label, 0.001), inv(add(pred, 0.001))), mul(add(pred, 0.001), inv(add(label, 0.001))))"
LOG_TYPE = "log(add(abs(add(label, neg(pred))), 0.5))"
CLAMPED = "clamped(mul(square(add(label, neg(pred))), exp(neg(logit))))"
LOSSES = (BCE, MSE, MAXR, LOG_TYPE, CLAMPED)
POISON = "mul(exp(exp(exp(add(logit, 2)))), label)"

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

PROTOCOLS = {
    "sgd": replace(PAPER, batch_size=16),
    "sgd with decay in the loss": replace(PAPER, batch_size=16, loss_decay=1e-2, gradient_clip=0.05),
    "adagrad": replace(STANDARD, batch_size=20),
}


def interactions(seed: int, count: int, n_users: int = 9, n_items: int = 14) -> Interactions:
    """Random ones; low item ids are met most, so that rows occur several times in a batch."""
    rng = np.random.default_rng(seed)
    items = (rng.integers(0, n_items, count) * rng.random(count)).astype(np.int64)
    labels = (rng.random(count) < 0.5).astype(np.float32)
    return Interactions(rng.integers(0, n_users, count), items, labels, n_users, n_items)


def problem(train: Interactions) -> PointwiseProblem:
    rest = interactions(1, 40, train.n_users)
    return PointwiseProblem(Split("small", train, rest, rest))


PROBLEM = problem(interactions(0, 49))  # 49 = 3 * 16 + 1: the last batch has 17


def model(protocol: Protocol, size: int = 6) -> partial[MF]:
    return partial(MF, embedding_size=size, initialization=protocol.initialization)


def members(protocol: Protocol, losses: int, seed: int = 5) -> list[Member]:
    return [
        member(loss, seed, protocol.learning_rate * (1 + 0.1 * loss), 20 * protocol.weight_decay)
        for loss in range(losses)
    ]


def compiled(*texts: str) -> Program:
    return Program.compile([Expression.parse(text) for text in texts], POINTWISE, np.linspace(0.5, 2, len(texts)))


def on_triton(program: Program, rows: Sequence[int], device: torch.device) -> LossKernel:
    """What `Program.kernel` gives on a GPU, wherever the device is."""
    return TritonLosses(program.on_device(rows, device))


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm().clamp(min=1e-30))


def same_bits(one: TrainReport, other: TrainReport) -> bool:
    assert one.states is not None and other.states is not None
    metrics = (np.array_equal(column, other.metrics[name], equal_nan=True) for name, column in one.metrics.items())
    weights = (torch.equal(tensor, other.states.weights[name]) for name, tensor in one.states.weights.items())
    return all(metrics) and all(weights)


def check_near(found: State, wanted: State, bound: float = 1e-5) -> None:
    for mine, theirs in ((found.weights, wanted.weights), (found.optimizer, wanted.optimizer)):
        assert mine.keys() == theirs.keys()
        for name, tensor in theirs.items():
            assert mine[name].shape == tensor.shape
            for row in range(len(tensor)):
                assert relative_error(mine[name][row], tensor[row]) < bound, (name, row)
    assert found.epochs.tolist() == wanted.epochs.tolist()


@runs_kernels
@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_trains_as_the_stacked_trainer_does(protocol: Protocol) -> None:
    program = compiled(*LOSSES)
    population = members(protocol, len(LOSSES))
    arguments = (program, population, PROBLEM, 2)
    wanted = StackedTrainer(model(protocol), protocol, device="cpu").fit(*arguments, keep="last")
    trainer = TritonTrainer(model(protocol), protocol)
    found = trainer.fit(*arguments, keep="last")
    assert found.states is not None and wanted.states is not None
    assert (found.outcomes, found.reasons) == (wanted.outcomes, wanted.reasons)
    check_near(found.states, wanted.states)
    np.testing.assert_allclose(found.metrics["auc"], wanted.metrics["auc"], atol=5e-5)
    scores = StackedTrainer(model(protocol), protocol, device="cpu").predict(
        found.states, PROBLEM.rows("validation")
    )
    np.testing.assert_allclose(
        trainer.predict(found.states, PROBLEM.rows("validation")), scores, rtol=1e-4, atol=1e-5
    )


@runs_kernels
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_neither_grouping_nor_a_poisoned_neighbour_changes_a_bit() -> None:
    protocol = PROTOCOLS["adagrad"]
    program = compiled(BCE, POISON, MAXR)
    population = members(replace(protocol, initialization="paper"), 3)
    fit = [
        TritonTrainer(model(protocol), protocol, chunk_size=size).fit(program, population, PROBLEM, 1, keep="last")
        for size in (1, 3)
    ]
    assert fit[1].outcomes == [Outcome.TRAINED, Outcome.DIVERGED, Outcome.TRAINED]
    assert fit[1].reasons[1] == "non-finite gradient in epoch 1"
    assert same_bits(*fit)


@runs_kernels
def test_goes_on_from_states_as_if_never_interrupted() -> None:
    protocol = PROTOCOLS["adagrad"]
    program, population = compiled(BCE), members(protocol, 1)
    trainer = TritonTrainer(model(protocol), protocol)
    whole = trainer.fit(program, population, PROBLEM, 2, keep="last")
    first = trainer.fit(program, population, PROBLEM, 1, keep="last")
    second = trainer.fit(program, population, PROBLEM, 1, start=first.states, keep="last")
    assert whole.states is not None and second.states is not None
    check_near(second.states, whole.states, bound=1e-30)


@runs_kernels
def test_stops_by_patience_and_keeps_the_best_state() -> None:
    protocol = replace(PROTOCOLS["sgd"], patience=1, batch_size=64)
    losses = (MSE, "neg(square(add(label, neg(pred))))")
    arguments = (compiled(*losses), members(protocol, 2), PROBLEM, 3)
    found = TritonTrainer(model(protocol), protocol).fit(*arguments, keep="best")
    wanted = StackedTrainer(model(protocol), protocol, device="cpu").fit(*arguments, keep="best")
    assert found.states is not None and wanted.states is not None
    assert found.stopped_at.tolist() == wanted.stopped_at.tolist()
    assert min(found.stopped_at) < 3
    check_near(found.states, wanted.states)


@runs_kernels
def test_too_little_memory_halves_the_chunk_with_the_same_results(monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = replace(PROTOCOLS["sgd"], batch_size=64)
    arguments = (compiled(*LOSSES), members(protocol, 5), PROBLEM, 1)
    trainer = TritonTrainer(model(protocol), protocol)
    wanted = trainer.fit(*arguments, keep="last")
    launch = _Chunk._launch
    room = 2

    def short_of_memory(chunk: _Chunk, *arguments: object) -> None:
        if len(chunk.members) > room:
            raise torch.OutOfMemoryError("out of memory")
        launch(chunk, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(_Chunk, "_launch", short_of_memory)
    assert same_bits(trainer.fit(*arguments, keep="last"), wanted)
    room = 0
    with pytest.raises(MemoryError, match="one model alone"):
        trainer.fit(*arguments)


@pytest.fixture
def own_operator() -> Iterator[None]:
    register_operator(unary("softsign", "x / (1 + abs(x))", "1 / ((1 + abs(x)) * (1 + abs(x)))"))
    yield
    OPERATORS.unregister("softsign")


@runs_kernels
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.usefixtures("own_operator")
def test_every_operator_and_one_of_the_users_differentiates_as_on_the_cpu() -> None:
    texts = [POISON, "pred", *LOSSES]
    for name, operator in ((row.name, row) for row in Tables.of(POINTWISE).operators):
        term = f"{name}(add(logit, 0.25))" if operator.arity == 1 else f"{name}(add(logit, 0.25), mul(2, pred))"
        texts.append(f"mul({term}, add(label, 1))" if len(texts) % 2 else f"clamped(mul({term}, add(label, 1)))")
    program = compiled(*texts)
    scores = np.random.default_rng(3).normal(0, 3, (len(texts), 100)).astype(np.float32)
    scores[:, :5] = [0, -0.25, 90, -110, 1e-30]
    scores[0] = np.abs(scores[0])
    labels = (np.arange(100) % 2).astype(np.float32)
    with np.errstate(all="ignore"):
        _, wanted = run(program, scores, labels)
    losses = on_triton(program, range(len(texts)), DEVICE)
    found = (
        losses.slopes(torch.tensor(scores, device=DEVICE), {"label": torch.tensor(labels, device=DEVICE)})
        .cpu()
        .numpy()
    )
    broken = ~np.isfinite(wanted).all(axis=1)
    assert broken[0] and not broken.all()
    np.testing.assert_array_equal(losses.diverged(), broken)
    assert not found[broken].any()
    for row in np.flatnonzero(~broken):
        np.testing.assert_allclose(found[row] * 100, wanted[row], rtol=2e-6, atol=1e-6 * np.abs(wanted[row]).max())


COLOURED = "colour * logit"


@pytest.fixture
def coloured(monkeypatch: pytest.MonkeyPatch) -> Iterator[Task]:
    """Pointwise, with two more inputs of an example, one that no loss here uses; few operators."""
    few = {name: OPERATORS[name] for name in ("add", "mul", "neg", "square")}
    monkeypatch.setattr(OPERATORS, "_entries", few)
    rows = [terminal(name, f"1 * {name}", (name,)) for name in ("shade", "colour")]
    task = POINTWISE
    for row in rows:
        register_terminal(row)
        task = task.with_input(Input(row.name, POINTWISE.inputs[0].probes), row.name)
    yield task
    for row in rows:
        TERMINALS.unregister(row.name)


@runs_kernels
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("texts", [("colour * square(label - pred)", MSE), (COLOURED, "square(logit)"), (MSE,)])
def test_further_inputs_and_weights_as_on_the_cpu(texts: Sequence[str], weighted: bool, coloured: Task) -> None:
    program = Program.compile([Expression.parse(text) for text in texts], coloured)
    rng = np.random.default_rng(4)
    scores = torch.tensor(rng.normal(0, 2, (3, 150)), dtype=torch.float32)
    given = {name: torch.tensor(rng.random(150), dtype=torch.float32) for name in ("label", "shade", "colour")}
    weights = torch.tensor(rng.random(150), dtype=torch.float32) if weighted else None
    rows = [0, len(texts) - 1, 0]
    wanted = program.kernel(rows, torch.device("cpu")).slopes(scores, given, weights)
    there = {name: column.to(DEVICE) for name, column in given.items()}
    found = on_triton(program, rows, DEVICE).slopes(
        scores.to(DEVICE), there, None if weights is None else weights.to(DEVICE)
    )
    torch.testing.assert_close(found.cpu(), wanted, rtol=1e-5, atol=1e-8)
    score, colour = scores.double().requires_grad_(), given["colour"].double()
    if texts[0] == COLOURED:
        loss = torch.stack([colour * score[0], score[1].square(), colour * score[2]])
        factor = torch.ones(150) if weights is None else weights
        (exact,) = torch.autograd.grad((loss * factor.double()).mean(1).sum(), score)
        torch.testing.assert_close(wanted.double(), exact, rtol=1e-5, atol=1e-9)


@runs_kernels
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_member_that_diverges_in_any_block_gets_no_more_derivatives() -> None:
    losses = on_triton(compiled(MSE, POISON), (1, 0, 1), DEVICE)
    scores = torch.full((3, 261), -9.0, device=DEVICE)
    labels = {"label": torch.ones(261, device=DEVICE)}
    assert losses.slopes(scores, labels).any(dim=1).tolist() == [True, True, True]
    scores[2, 200] = 5
    assert losses.slopes(scores, labels).any(dim=1).tolist() == [True, True, False]
    scores[2, 200] = -9
    assert losses.slopes(scores, labels).any(dim=1).tolist() == [True, True, False]
    assert losses.diverged().tolist() == [False, False, True]


@runs_kernels
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_a_stack_trains_on_a_gpu_as_on_the_cpu(protocol: Protocol, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (compiled(BCE, POISON, MAXR), members(protocol, 3), PROBLEM, 2)
    wanted = StackedTrainer(model(protocol), protocol, device="cpu").fit(*arguments, keep="last")
    if DEVICE.type == "cpu":  # take the GPU's path there
        monkeypatch.setattr("recmodels.training.stacked.trainer.CompiledOptimizer", Optimizer)
        monkeypatch.setattr("recmodels.training.stacked.trainer.feeds", on_device)
        monkeypatch.setattr("gploss.compute.program.Program.kernel", on_triton)
    found = StackedTrainer(model(protocol), protocol, device=DEVICE.type).fit(*arguments, keep="last")
    assert found.outcomes == wanted.outcomes
    assert found.states is not None and wanted.states is not None
    check_near(found.states.take([0, 2]), wanted.states.take([0, 2]))


@runs_kernels
def test_errors() -> None:
    with pytest.raises(ValueError, match="DeepModel has other weights"):
        TritonTrainer(DeepModel, STANDARD).fit(compiled(BCE), members(STANDARD, 1), PROBLEM, 1)
    protocol = replace(PROTOCOLS["sgd"], batch_size=64)
    states = TritonTrainer(model(protocol), protocol).fit(
        compiled(BCE), members(protocol, 1), PROBLEM, 1, keep="last"
    )
    with pytest.raises(ValueError, match="belong to another model"):
        TritonTrainer(model(protocol, 7), protocol).fit(
            compiled(BCE), members(protocol, 1), PROBLEM, 1, start=states.states
        )


@needs_cuda
@needs_triton
class TestTritonTrainer(TrainerContract):
    """The whole contract; in the interpreter it would take minutes."""

    def trainer(
        self, protocol: Protocol, *, model: ModelFactory | None = None, group: int | None = None
    ) -> TritonTrainer:
        size = CHUNK_SIZE if group is None else group
        return TritonTrainer(model or MF, protocol, chunk_size=size)


@needs_cuda
@needs_triton
def test_tables_of_more_than_two_to_the_31_elements() -> None:
    protocol = PROTOCOLS["sgd"]
    size, n_users = 64, 1_000_000
    if torch.cuda.mem_get_info()[0] < 48 * 2**30:
        pytest.skip("needs 48 GiB of free GPU memory")
    train = interactions(0, 300, n_users=n_users)
    population = members(protocol, 1) * 40  # 40 * 10^6 * 64 elements
    found = TritonTrainer(model(protocol, size), protocol).fit(
        compiled(BCE), population, problem(train), 1, keep="none"
    )
    assert len(set(found.metrics["auc"][:, 0].tolist())) == 1


@needs_triton
@pytest.mark.skipif(interpreted(), reason="the interpreter compiles nothing")
@pytest.mark.parametrize("adagrad", [False, True])
def test_kernels_compile_for_a_gpu_that_is_not_here(adagrad: bool) -> None:
    from triton import compile as compile_kernel
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = load_triton_kernels(Tables.of(POINTWISE), KERNELS).train_epoch
    types = dict.fromkeys(("instructions", "roots", "clamped", "index", "diverged", "given"), "*i32")
    types |= dict.fromkeys(("user_groups", "item_groups"), "*i32")
    types |= dict.fromkeys(
        ("instruction_offsets", "constant_offsets", "used", "losses", "places", "bounds"), "*i64"
    )
    types |= dict.fromkeys(("samples", "steps", "n_users", "n_items", "workspace_size"), "i32")
    types |= dict.fromkeys(("twice", "clip"), "fp32")
    shape = {"D": 64, "BLOCK_D": 64, "BLOCK": 128, "CHUNK": 32, "ADAGRAD": adagrad, "WEIGHTED": adagrad}
    types |= dict.fromkeys(shape, "constexpr")
    signature = {name: types.get(name, "*fp32") for name in kernel.arg_names}
    constants = {(kernel.arg_names.index(name),): value for name, value in shape.items()}
    code = compile_kernel(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", 90, 32))
    assert b"train_epoch" in code.asm["cubin"]


@needs_triton
@pytest.mark.skipif(interpreted() or torch.cuda.is_available(), reason="the other tests have run")
def test_in_the_interpreter() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", str(Path(__file__))],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-1000:]


@needs_triton
@pytest.mark.skipif(interpreted() or torch.cuda.is_available(), reason="says what happens without a CUDA device")
def test_without_a_gpu() -> None:
    with pytest.raises(ValueError, match="needs a CUDA device"):
        TritonTrainer(MF, STANDARD, device="cpu")
