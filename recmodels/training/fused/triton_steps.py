"""Rows of one candidate, gathered and stepped on a GPU: a source beside `triton_kernel.py`, which says when.

Gradients of a row that occurs several times are summed in the order of the samples, by the index of
`recmodels.training.epoch_index`, which is the same for all candidates. Positions in tables are 64-bit numbers.
"""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

# Planes of the epoch's index, in the order of `recmodels.training.epoch_index`.
USER: tl.constexpr = tl.constexpr(0)
ITEM: tl.constexpr = tl.constexpr(1)
USER_BEHIND: tl.constexpr = tl.constexpr(2)
ITEM_BEHIND: tl.constexpr = tl.constexpr(3)
OF_USERS: tl.constexpr = tl.constexpr(4)
OF_ITEMS: tl.constexpr = tl.constexpr(11)
# Planes of one side, counted from OF_USERS or OF_ITEMS.
ROW: tl.constexpr = tl.constexpr(0)
BEHIND: tl.constexpr = tl.constexpr(1)
START: tl.constexpr = tl.constexpr(2)
COUNT: tl.constexpr = tl.constexpr(3)
SAMPLE: tl.constexpr = tl.constexpr(4)
PARTNER: tl.constexpr = tl.constexpr(5)
PARTNER_BEHIND: tl.constexpr = tl.constexpr(6)


@triton.jit
def read_vectors(
    table: tl.tensor,
    rows: tl.tensor,
    behind: tl.tensor,
    shrink: tl.tensor,
    element: tl.tensor,
    inside: tl.tensor,
    D: tl.constexpr,
    LAZY: tl.constexpr,
) -> tl.tensor:
    """Return vectors (CHUNK, BLOCK_D), brought up to date.

    Args:
        table: (rows, D) of this candidate.
        rows: (CHUNK,) int64.
        behind: (CHUNK,) int32: steps whose decay each row has missed.
        shrink: (steps + 1,) of this candidate: what n steps' decay adds to a weight, as a fraction of it.
        element: (BLOCK_D,) positions in a vector.
        inside: (CHUNK,) which rows are there.
        D: length of a vector.
        LAZY: rows may be behind.
    """
    mask = inside[:, None] & (element < D)[None, :]
    vectors = tl.load(table + rows[:, None] * D + element[None, :], mask=mask, other=0.0)
    if LAZY:
        vectors += vectors * tl.load(shrink + behind)[:, None]
    return vectors


@triton.jit
def read_biases(
    table: tl.tensor, rows: tl.tensor, behind: tl.tensor, shrink: tl.tensor, inside: tl.tensor, LAZY: tl.constexpr
) -> tl.tensor:
    """Return biases (CHUNK,), brought up to date; arguments as in `read_vectors`."""
    biases = tl.load(table + rows, mask=inside, other=0.0)
    if LAZY:
        biases += biases * tl.load(shrink + behind)
    return biases


@triton.jit
def step(
    weight: tl.tensor,
    total: tl.tensor,
    own: tl.tensor,
    rate: tl.tensor,
    decay: tl.tensor,
    twice: tl.tensor,
    clip: tl.tensor,
    ADAGRAD: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Return weights after a step, and Adagrad's sums, as `recmodels.training.stacked.row_kernels` defines them.

    Args:
        weight: up to date.
        total: sum of the samples' gradients.
        own: Adagrad's sums of squares.
        rate: learning rate.
        decay: weight decay.
        twice: twice the decay in the loss.
        clip: bound on the gradient.
        ADAGRAD: or plain SGD.
    """
    pull = total
    if not ADAGRAD:
        pull += twice * weight
    pull = tl.where(pull > clip, clip, pull)
    pull = tl.where(pull < -clip, -clip, pull)
    pull += decay * weight
    if ADAGRAD:
        own += pull * pull
        pull = pull / tl.sqrt_rn(own)
    return weight - rate * pull, own


@triton.jit
def step_side(
    planes: tl.tensor,
    stride: tl.tensor,
    first: tl.tensor,
    groups: tl.tensor,
    slopes: tl.tensor,
    own_vectors: tl.tensor,
    own_biases: tl.tensor,
    own_vector_sums: tl.tensor,
    own_bias_sums: tl.tensor,
    partner_vectors: tl.tensor,
    shrink: tl.tensor,
    rate: tl.tensor,
    decay: tl.tensor,
    twice: tl.tensor,
    clip: tl.tensor,
    moved: tl.tensor,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    CHUNK: tl.constexpr,
    ADAGRAD: tl.constexpr,
    IN_PLACE: tl.constexpr,
) -> None:
    """Step the distinct rows of one side of a batch.

    Args:
        planes: this side's planes of the index.
        stride: elements from one plane to the next.
        first: where the batch begins in the epoch.
        groups: number of distinct rows.
        slopes: (BLOCK,) d loss/d score of the batch's samples.
        own_vectors: (rows, D), stepped.
        own_biases: (rows,), stepped.
        own_vector_sums: Adagrad's accumulators.
        own_bias_sums: Adagrad's accumulators.
        partner_vectors: (rows of the other side, D).
        shrink: as in `read_vectors`.
        rate: as in `step`; and so on up to `clip`.
        decay: as in `step`.
        twice: as in `step`.
        clip: as in `step`.
        moved: (BLOCK, D) where stepped vectors go if not in place.
        D: length of a vector.
        BLOCK_D: the power of 2 from there.
        CHUNK: rows at a time.
        ADAGRAD: or plain SGD.
        IN_PLACE: write vectors where they were read.
    """
    element = tl.arange(0, BLOCK_D)
    for chunk in range(0, groups, CHUNK):
        place = chunk + tl.arange(0, CHUNK)
        inside = place < groups
        at = first + place
        rows = tl.load(planes + ROW * stride + at, mask=inside, other=0).to(tl.int64)
        behind = tl.load(planes + BEHIND * stride + at, mask=inside, other=0)
        start = tl.load(planes + START * stride + at, mask=inside, other=0)
        count = tl.load(planes + COUNT * stride + at, mask=inside, other=0)
        most = tl.load(planes + COUNT * stride + first + chunk)  # rows with most samples come first
        vector_total = tl.zeros((CHUNK, BLOCK_D), tl.float32)
        bias_total = tl.zeros((CHUNK,), tl.float32)
        for k in range(most):
            there = k < count
            sample = tl.load(planes + SAMPLE * stride + start + k, mask=there, other=0)
            partner = tl.load(planes + PARTNER * stride + start + k, mask=there, other=0).to(tl.int64)
            partner_behind = tl.load(planes + PARTNER_BEHIND * stride + start + k, mask=there, other=0)
            slope = tl.load(slopes + sample, mask=there, other=0.0)
            vectors = read_vectors(partner_vectors, partner, partner_behind, shrink, element, there, D, not ADAGRAD)
            vector_total += vectors * slope[:, None]
            bias_total += slope
        mask = inside[:, None] & (element < D)[None, :]
        offsets = rows[:, None] * D + element[None, :]
        vectors = read_vectors(own_vectors, rows, behind, shrink, element, inside, D, not ADAGRAD)
        biases = read_biases(own_biases, rows, behind, shrink, inside, not ADAGRAD)
        vector_sums = vectors
        bias_sums = biases
        if ADAGRAD:
            vector_sums = tl.load(own_vector_sums + offsets, mask=mask, other=1.0)
            bias_sums = tl.load(own_bias_sums + rows, mask=inside, other=1.0)
        vectors, vector_sums = step(vectors, vector_total, vector_sums, rate, decay, twice, clip, ADAGRAD)
        biases, bias_sums = step(biases, bias_total, bias_sums, rate, decay, twice, clip, ADAGRAD)
        tl.debug_barrier()  # several threads may hold the same element: all have read before one writes
        if IN_PLACE:
            tl.store(own_vectors + offsets, vectors, mask=mask)
        else:
            tl.store(moved + place[:, None] * D + element[None, :], vectors, mask=mask)
        tl.store(own_biases + rows, biases, mask=inside)
        if ADAGRAD:
            tl.store(own_vector_sums + offsets, vector_sums, mask=mask)
            tl.store(own_bias_sums + rows, bias_sums, mask=inside)
