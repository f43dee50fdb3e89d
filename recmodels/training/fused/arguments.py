"""What the kernels of `recmodels.training.fused` are given, by name, and constants that both sides know.

Compiled code takes a named tuple as it takes its elements one by one. A kernel would be stale where fields change
their order, so this file is part of the hash under which kernels are cached.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
LongInts = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint32]

SGD, ADAGRAD, ADAM = 0, 1, 2

#: Adam's decay of the moments and its guard (Kingma and Ba, 2015).
BETA_1: Final = np.float32(0.9)
BETA_2: Final = np.float32(0.999)
EPSILON: Final = np.float32(1e-8)


class Table(NamedTuple):
    """A number for each weight of one candidate: users first, then items.

    Attributes:
        vectors: (rows, WIDTH) float32; behind a vector a row ends in zeros.
        biases: (rows + 1,) float32; the last is the global bias.
    """

    vectors: Floats
    biases: Floats


class OptimizerState(NamedTuple):
    """What an optimiser keeps of one candidate.

    Attributes:
        first: Adagrad's sums of squared gradients, or Adam's first moments.
        second: Adam's second moments.
        steps: (rows + 1,) int64: how many steps Adam has taken with each row.
        corrections: (T, 2) float32: 1 / (1 - BETA_1^t) and (1 - BETA_2^t)^-1/2 after t steps; the last one stays.
    """

    first: Table
    second: Table
    steps: LongInts
    corrections: Floats


class Order(NamedTuple):
    """An epoch's N samples in the order of training.

    Users and items are rows of one table: item i is row n_users + i. Within a batch the samples whose user and item
    occur only once in it come first. The others follow user by user; a user's samples keep their order.

    Attributes:
        users: (N,) uint32 words: row * 4 + flag * 2 + whether it is the row's first sample in the batch.
        items: (N,) uint32 words: likewise, without a flag.
        flag: which of the inputs that the losses read beside the score is in the users' words, because it is 0 or 1
            everywhere: to stream it from memory as well would take 2% of an epoch. -1 for none.
        inputs: (F, N) float32: the others.
        weights: (N,) float32, what each sample's loss is multiplied with; (0,) stands for 1.
        bounds: (batches + 1,) int64: where batches begin and end.
        alone: (batches,) int64: where the samples end that share neither user nor item.
        largest: samples in the largest batch.
    """

    users: Words
    items: Words
    flag: int
    inputs: Floats
    weights: Floats
    bounds: LongInts
    alone: LongInts
    largest: int

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(column.nbytes for column in self if isinstance(column, np.ndarray))


class Loss(NamedTuple):
    """One loss of a program, as `run_block` of `gploss.compute.cpu_template` takes it.

    Attributes:
        instructions: (I, 4) int32.
        constants: (C,) float32.
        root: slot of the loss.
        used: bits of the terminals that occur.
        clamped: the loss's semantics.
        multiplier: float32; what the loss is multiplied with.
        score: row of the score among the samples' inputs.
        given: rows of the inputs that the losses read beside the score, int64.
    """

    instructions: Ints
    constants: Floats
    root: int
    used: int
    clamped: bool
    multiplier: np.float32
    score: int
    given: LongInts


class Memory(NamedTuple):
    """What a thread works with; nothing in it outlives a batch.

    Attributes:
        samples: (rows, capacity) float32: inputs, losses and gradients, see `gploss.compute.cpu_template`; capacity
            is a multiple of 16, at least the largest batch.
        slopes: (1, capacity) float32: the samples' row of gradients, which becomes d (mean loss)/d score.
        values: (slots, BLOCK) float32 of the loss.
        adjoints: (slots, BLOCK) float32 of the loss.
        slots: (rows,) int32: where in `sums` an item's gradient is.
        rows: (capacity + 1,) int32: the item of each slot.
        sums: (capacity + 1, WIDTH + LANES) float32: gradients; the bias's is behind the vector's. Slot 0 is the
            user's whose samples are met.
    """

    samples: Floats
    slopes: Floats
    values: Floats
    adjoints: Floats
    slots: Ints
    rows: Ints
    sums: Floats


class Settings(NamedTuple):
    """How a candidate is trained.

    Attributes:
        learning_rate: float64.
        weight_decay: float64. SGD shrinks all weights by learning_rate * weight_decay at each step; the others add
            weight_decay * weight to the gradient of the rows that a batch touches, after it was clipped.
        loss_decay: float64, of SGD: 2 * loss_decay * weight joins the gradient before it is clipped.
        clip: float32 bound on each element of the gradient.
    """

    learning_rate: float
    weight_decay: float
    loss_decay: float
    clip: np.float32


class Step(NamedTuple):
    """How far a row is moved; all float32.

    Attributes:
        rate: learning rate; for SGD in units of the table.
        decay: joins the gradient after it was clipped; not for SGD.
        more: of SGD: what is added to the weight, as a fraction of it.
        twice: of SGD: decay that joins the gradient before it is clipped.
        clip: bound on the gradient.
        root_bias: of Adam: what the root of the second moment is multiplied with.
    """

    rate: np.float32
    decay: np.float32
    more: np.float32
    twice: np.float32
    clip: np.float32
    root_bias: np.float32
