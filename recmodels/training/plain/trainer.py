"""Members one by one, each the user's own module in plain torch.

Any module can be trained so, whatever it does: nothing of it is copied into stacks, mapped or compiled. It is what
the faster ways are compared with, and what is left where they differ.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.parameter import is_lazy

from gploss.compute.losses import TrainableLosses
from recmodels.data.rows import Batches, Rows, Schema
from recmodels.models.base import Batch, ModelFactory, build_model
from recmodels.training.course import Rules
from recmodels.training.plain.kept import alike, changed, restore
from recmodels.training.plain.lookups import checked_scores, row_wise_tables
from recmodels.training.plain.single import Single
from recmodels.training.population import Chunk, ChunkTrainer
from recmodels.training.problem import Problem, bounds_of
from recmodels.training.protocol import Protocol
from recmodels.training.trainer import Member, State

#: Examples scored at a time outside of training.
SCORING_BATCH: Final = 1024

#: Examples on which a module that was made again must score like the one that was trained.
COMPARED: Final = 256

_DROPOUT: Final = 2  # purpose of random numbers, beside the seed


class PlainTrainer(ChunkTrainer):
    """Trains members one after the other, by torch's own `backward`, with the protocol's steps.

    A parameter that a batch gives no gradient stays as it is, as with torch's own optimisers. Of an embedding table
    that is looked up once, with the batch's own ids, Adagrad decays the rows that the batch touches, and of every
    other weight all: so do the faster trainers.

    Args:
        model: makes a module for the columns of a problem.
        protocol: optimiser, batch size, clipping, patience.
        device: "auto", "cpu", "cuda" or "cuda:N".
        together: members whose modules are kept at a time, which bounds memory.

    Attributes:
        carried: attributes of the module that training changes, by dotted names, and that go into states.
        finds_carried: whether they are still to be found, when states are taken.
        drops_nothing: whether layers of dropout are off.

    Raises:
        ValueError: the device cannot be used.
    """

    name = "plain"

    def __init__(self, model: ModelFactory, protocol: Protocol, *, device: str = "auto", together: int = 1) -> None:
        super().__init__(model, protocol, device=device, largest=together)
        self.carried: frozenset[str] = frozenset()
        self.finds_carried = False
        self.drops_nothing = False
        self._is_shared: bool | None = None

    def module(self, schema: Schema, seed: int) -> torch.nn.Module:
        """Return a module that nobody else trains, as a seed initialises it."""
        module = build_model(self.model, schema, seed)
        if self._is_shared is None:
            again = build_model(self.model, schema, seed)
            self._is_shared = not _parts(module).isdisjoint(_parts(again))
            if not alike(module, again):
                warnings.warn(
                    f"{type(module).__name__} is made with other weights each time, from random numbers that the "
                    "seed does not decide, so that losses do not start alike: draw them by torch",
                    stacklevel=2,
                )
        if self._is_shared:
            module = copy.deepcopy(module)
        _own_memory(module)
        if self.drops_nothing:
            stop_dropout(module)
        return module.to(self.device)

    def fields(self, schema: Schema) -> dict[str, str]:
        """Return the column of ids that each row-wise table is looked up with.

        Raises:
            ValueError: the module does not map a batch to scores.
        """
        example = Batch(**{name: torch.arange(4, device=self.device) % size for name, size in schema.items()})
        return row_wise_tables(self.module(schema, seed=0), example)

    def described(self, schema: Schema) -> str:
        """Return the name of the module's class, with the type of its weights where that is an unusual one."""
        module = self.module(schema, seed=0)
        types = {str(weight.dtype).removeprefix("torch.") for weight in module.parameters()} - {"float32"}
        return type(module).__name__ + (f" ({', '.join(sorted(types))})" if types else "")

    def single(self, schema: Schema, seed: int, settings: Mapping[str, float]) -> Single:
        """Return one member as a seed initialises it.

        Args:
            schema: the columns that its module will see.
            seed: of the initial weights.
            settings: of the member.
        """
        return Single(self.module(schema, seed), self.fields(schema), self.protocol, settings)

    def chunk(
        self, losses: TrainableLosses, members: Sequence[Member], problem: Problem, rules: Rules, origin: int
    ) -> Chunk:
        """Return members that share seed and batches, with the weights that the seed `origin` gives."""
        return _Chunk(self, losses, members, problem, rules, origin)

    def predict(self, states: State, rows: Rows) -> npt.NDArray[np.float32]:
        """Return scores (M, N); see `Trainer.predict`."""
        scores = np.empty((len(states), len(rows)), np.float32)
        for k, own in enumerate(scores):
            module = self.module(rows.schema, int(states.seeds[k]))
            restore(module, states.weights, k, self.carried)
            own[:] = score(module, rows, self.device).cpu().numpy()
        return scores


class _Chunk(Chunk):
    """Members that share seed, past and batches; each goes through an epoch by itself."""

    def __init__(
        self,
        trainer: PlainTrainer,
        losses: TrainableLosses,
        members: Sequence[Member],
        problem: Problem,
        rules: Rules,
        origin: int,
    ) -> None:
        super().__init__(members, problem, rules, origin)
        self.trainer = trainer
        self.losses = losses
        fields = trainer.fields(problem.schema)
        self.singles = [
            Single(trainer.module(problem.schema, origin), fields, trainer.protocol, member.settings)
            for member in members
        ]

    def load(self, start: State) -> None:
        """Go on from states of 1 member for all, or of each."""
        self.before = int(start.epochs[0])
        for k, single in enumerate(self.singles):
            single.load(start, k % len(start), self.trainer.carried)

    def _train_epoch(self, epoch: int) -> npt.NDArray[np.bool_]:
        """Go through the data once; return which members met a non-finite gradient."""
        batches = self.batches(epoch)
        seeds = batch_seeds(self.seed, self.before + epoch, len(batches))
        broken = []
        with random_numbers(self.trainer.device) as generator:
            for position, single in zip(self.alive.tolist(), self.singles, strict=True):
                kernel = self.losses.kernel([self.members[position].loss], self.trainer.device)
                single.module.train()
                for given, seed in zip(_batches(batches, self.trainer.device), seeds, strict=True):
                    generator.manual_seed(seed)
                    single.learn(kernel, *given)
                    if kernel.diverged().any():
                        break
                broken.append(bool(kernel.diverged().any()))
        return np.array(broken, np.bool_)

    def _score(self, rows: Rows) -> torch.Tensor:
        return torch.stack([score(single.module, rows, self.trainer.device) for single in self.singles])

    def _drop(self, going_on: Sequence[int]) -> None:
        self.singles = [self.singles[position] for position in going_on]

    def _states_at(self, positions: Sequence[int], epoch: int) -> State:
        trainer, singles = self.trainer, [self.singles[position] for position in positions]
        if trainer.finds_carried:
            fresh = trainer.module(self.problem.schema, self.origin)
            trainer.carried |= set().union(*(changed(single.module, fresh) for single in singles))
        state = State.join([own.state(self.before + epoch + 1, self.origin, trainer.carried) for own in singles])
        for k, single in enumerate(singles):
            self._check_restored(single.module, state, k)
        return state

    def _check_restored(self, module: torch.nn.Module, state: State, k: int) -> None:
        """Check that a module made again from a state is the one that was trained."""
        validation = self.problem.rows("validation")
        few = validation.take(np.arange(min(COMPARED, len(validation))))
        again = self.trainer.module(few.schema, self.origin)
        restore(again, state.weights, k, self.trainer.carried)
        with random_numbers(self.trainer.device) as generator:
            generator.manual_seed(self.seed)
            own = score(module, few, self.trainer.device)
            generator.manual_seed(self.seed)
            other = score(again, few, self.trainer.device)
        if not torch.allclose(own, other, rtol=1e-4, atol=1e-5, equal_nan=True):
            raise ValueError(
                f"{type(module).__name__} keeps what it learns where it cannot be found, so that a trained one "
                "cannot be made again: put it into parameters or buffers (register_buffer)"
            )


def stop_dropout(module: torch.nn.Module) -> None:
    """Let layers of dropout leave nothing out, in place."""
    for part in module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0


def _parts(module: torch.nn.Module) -> set[int]:
    """Return what identifies a module's parameters and buffers."""
    return {id(module), *map(id, module.parameters()), *map(id, module.buffers())}


def _own_memory(module: torch.nn.Module) -> None:
    """Let go of memory that a module has in common with others, such as a table that it was made from."""
    own: dict[tuple[object, ...], torch.Tensor] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        if is_lazy(tensor) or tensor.layout is not torch.strided:
            continue
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if place not in own:
            own[place] = tensor.detach().clone()
        tensor.data = own[place]


def _batches(
    batches: Batches, device: torch.device
) -> Iterator[tuple[Batch, dict[str, torch.Tensor], torch.Tensor | None]]:
    """Yield ids, inputs of the losses and weights of each batch of an epoch."""
    rows = batches.rows
    features = {name: torch.tensor(ids, device=device) for name, ids in rows.features.items()}
    inputs = {name: torch.tensor(column, device=device) for name, column in rows.inputs.items()}
    weights = None if rows.weights is None else torch.tensor(rows.weights, device=device)
    for own in batches.slices:
        yield (
            Batch(**{name: ids[own] for name, ids in features.items()}),
            {name: column[own] for name, column in inputs.items()},
            None if weights is None else weights[own],
        )


def score(module: torch.nn.Module, rows: Rows, device: torch.device) -> torch.Tensor:
    """Return a module's scores (N,) float32, in its mode for evaluation."""
    module.eval()
    parts = []
    with torch.no_grad():
        for batch, _, _ in _batches(Batches(rows, bounds_of(len(rows), SCORING_BATCH)), device):
            parts.append(checked_scores(module(batch), module, batch).float())
    return torch.cat(parts)


def batch_seeds(seed: int, epoch: int, count: int) -> list[int]:
    """Return torch's seed for the random numbers of each batch of an epoch."""
    seeds = np.random.SeedSequence((seed, _DROPOUT, epoch)).generate_state(count, np.uint64) >> np.uint64(1)
    return [int(own) for own in seeds]


@contextmanager
def random_numbers(device: torch.device) -> Iterator[torch.Generator]:
    """Lend torch's global generator, as modules have no other; afterwards it is as it was."""
    if device.type == "cuda":
        generator = torch.cuda.default_generators[device.index or 0]
    else:
        generator = torch.default_generator
    before = generator.get_state()
    try:
        yield generator
    finally:
        generator.set_state(before)
