"""Matrix factorisation trained for an epoch by one persistent GPU program a candidate.

This file is a source for `gploss.compute.gpu.load_triton_kernels`, which puts the interpreter of today's
operator table, and `triton_steps.py`, in the place of what is imported here.

A program owns its candidate's weights, so that nothing is ever shared between programs: it goes through the batches
one after the other, with barriers between its own threads only. In each batch

1. rows are gathered and scored,
2. the interpreter gives d loss/d score,
3. user rows are stepped into the workspace (they are still needed as they were),
4. item rows are stepped in place,
5. the stepped user rows are copied back.
"""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

from gploss.compute.gpu_template import derive
from recmodels.training.fused.triton_steps import (
    ITEM,
    ITEM_BEHIND,
    OF_ITEMS,
    OF_USERS,
    ROW,
    USER,
    USER_BEHIND,
    read_biases,
    read_vectors,
    step,
    step_side,
)


@triton.jit(do_not_specialize=["samples", "steps", "n_users", "n_items", "workspace_size"])
def train_epoch(
    instructions: tl.tensor,
    instruction_offsets: tl.tensor,
    constants: tl.tensor,
    constant_offsets: tl.tensor,
    roots: tl.tensor,
    used: tl.tensor,
    clamped: tl.tensor,
    multipliers: tl.tensor,
    losses: tl.tensor,
    places: tl.tensor,
    user_vectors: tl.tensor,
    item_vectors: tl.tensor,
    user_biases: tl.tensor,
    item_biases: tl.tensor,
    global_biases: tl.tensor,
    user_vector_sums: tl.tensor,
    item_vector_sums: tl.tensor,
    user_bias_sums: tl.tensor,
    item_bias_sums: tl.tensor,
    global_sums: tl.tensor,
    rates: tl.tensor,
    decays: tl.tensor,
    shrinks: tl.tensor,
    index: tl.tensor,
    inputs: tl.tensor,
    given: tl.tensor,
    weights: tl.tensor,
    bounds: tl.tensor,
    user_groups: tl.tensor,
    item_groups: tl.tensor,
    diverged: tl.tensor,
    workspace: tl.tensor,
    samples: tl.tensor,
    steps: tl.tensor,
    n_users: tl.tensor,
    n_items: tl.tensor,
    workspace_size: tl.tensor,
    twice: tl.tensor,
    clip: tl.tensor,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    ADAGRAD: tl.constexpr,
    WEIGHTED: tl.constexpr,
) -> None:
    """Train each candidate for an epoch; one GPU program a candidate.

    A candidate with a derivative that is not finite is marked, and stops there.

    Args:
        instructions: as in `derive`; and so on up to `multipliers`.
        instruction_offsets: as in `derive`.
        constants: as in `derive`.
        constant_offsets: as in `derive`.
        roots: as in `derive`.
        used: as in `derive`.
        clamped: as in `derive`.
        multipliers: as in `derive`.
        losses: (A,) int64: the program of each candidate that takes part.
        places: (A,) int64: where in the tables each of them lies.
        user_vectors: (M, n_users, D).
        item_vectors: (M, n_items, D).
        user_biases: (M, n_users).
        item_biases: (M, n_items).
        global_biases: (M,).
        user_vector_sums: Adagrad's accumulators, shaped like the weights.
        item_vector_sums: likewise.
        user_bias_sums: likewise.
        item_bias_sums: likewise.
        global_sums: likewise.
        rates: (M,) learning rates.
        decays: (M,) weight decays.
        shrinks: (M, steps + 1): what n steps' decay adds to a weight, as a fraction of it.
        index: (planes, samples) int32 of the epoch.
        inputs: (inputs, samples) in the order of the epoch: what the losses use but the score.
        given: as in `derive`.
        weights: (samples,) in the order of the epoch: what each sample's loss is multiplied with, if WEIGHTED.
        bounds: (steps + 1,) int64 where each batch begins.
        user_groups: (steps,) int32 distinct users of each batch.
        item_groups: (steps,) int32 distinct items of each batch.
        diverged: (A,) int32, written.
        workspace: (A, workspace_size).
        samples: N.
        steps: number of batches.
        n_users: rows of the user tables.
        n_items: rows of the item tables.
        workspace_size: BLOCK scores, BLOCK slopes, (BLOCK, D) stepped rows, and twice the interpreter's slots.
        twice: twice the decay in the loss.
        clip: bound on each element of the gradient.
        D: length of a vector.
        BLOCK_D: the power of 2 from there.
        BLOCK: the power of 2 from the largest batch.
        CHUNK: rows at a time.
        ADAGRAD: or plain SGD.
        WEIGHTED: whether there are weights.
    """
    program = tl.program_id(0).to(tl.int64)
    loss = tl.load(losses + program)
    member = tl.load(places + program)
    stride = tl.cast(samples, tl.int64)
    users = tl.cast(n_users, tl.int64)
    items = tl.cast(n_items, tl.int64)
    own_user_vectors = user_vectors + member * users * D
    own_item_vectors = item_vectors + member * items * D
    own_user_biases = user_biases + member * users
    own_item_biases = item_biases + member * items
    shrink = shrinks + member * (steps + 1)
    rate = tl.load(rates + member)
    decay = tl.load(decays + member)
    bias = tl.load(global_biases + member)
    bias_sum = tl.load(global_sums + member)

    scores = workspace + program * workspace_size
    slopes = scores + BLOCK
    moved = slopes + BLOCK
    slots = moved + BLOCK * D
    adjoints = slots + (workspace_size - BLOCK * D - 2 * BLOCK) // 2

    element = tl.arange(0, BLOCK_D)
    sample = tl.arange(0, BLOCK)
    of_users = index + OF_USERS * stride
    of_items = index + OF_ITEMS * stride
    alive = 1
    for batch in range(steps):
        if alive != 0:
            first = tl.load(bounds + batch)
            size = (tl.load(bounds + batch + 1) - first).to(tl.int32)
            for chunk in range(0, size, CHUNK):
                place = chunk + tl.arange(0, CHUNK)
                inside = place < size
                at = first + place
                user = tl.load(index + USER * stride + at, mask=inside, other=0).to(tl.int64)
                item = tl.load(index + ITEM * stride + at, mask=inside, other=0).to(tl.int64)
                user_behind = tl.load(index + USER_BEHIND * stride + at, mask=inside, other=0)
                item_behind = tl.load(index + ITEM_BEHIND * stride + at, mask=inside, other=0)
                left = read_vectors(own_user_vectors, user, user_behind, shrink, element, inside, D, not ADAGRAD)
                right = read_vectors(own_item_vectors, item, item_behind, shrink, element, inside, D, not ADAGRAD)
                user_bias = read_biases(own_user_biases, user, user_behind, shrink, inside, not ADAGRAD)
                item_bias = read_biases(own_item_biases, item, item_behind, shrink, inside, not ADAGRAD)
                tl.store(scores + place, tl.sum(left * right, 1) + (user_bias + item_bias) + bias, mask=inside)
            tl.debug_barrier()

            valid = sample < size
            gradient = derive(
                instructions,
                instruction_offsets,
                constants,
                constant_offsets,
                roots,
                used,
                clamped,
                multipliers,
                loss,
                tl.load(scores + sample, mask=valid, other=0.0),
                inputs + first,
                stride,
                given,
                valid,
                slots,
                adjoints,
                BLOCK,
            )
            if WEIGHTED:
                gradient *= tl.load(weights + first + sample, mask=valid, other=0.0)
            gradient = tl.where(valid, gradient / size, 0.0)
            bad = tl.sum((gradient - gradient != 0.0).to(tl.int32), 0)
            tl.store(slopes + sample, gradient)
            tl.debug_barrier()
            if bad != 0:
                alive = 0
                tl.store(diverged + program, 1)
            else:
                step_side(
                    of_users,
                    stride,
                    first,
                    tl.load(user_groups + batch),
                    slopes,
                    own_user_vectors,
                    own_user_biases,
                    user_vector_sums + member * users * D,
                    user_bias_sums + member * users,
                    own_item_vectors,
                    shrink,
                    rate,
                    decay,
                    twice,
                    clip,
                    moved,
                    D,
                    BLOCK_D,
                    CHUNK,
                    ADAGRAD,
                    False,
                )
                tl.debug_barrier()
                step_side(
                    of_items,
                    stride,
                    first,
                    tl.load(item_groups + batch),
                    slopes,
                    own_item_vectors,
                    own_item_biases,
                    item_vector_sums + member * items * D,
                    item_bias_sums + member * items,
                    own_user_vectors,
                    shrink,
                    rate,
                    decay,
                    twice,
                    clip,
                    moved,
                    D,
                    BLOCK_D,
                    CHUNK,
                    ADAGRAD,
                    True,
                )
                total = tl.sum(gradient, 0)
                bias, bias_sum = step(bias, total, bias_sum, rate, decay, twice, clip, ADAGRAD)
                tl.debug_barrier()
                groups = tl.load(user_groups + batch)
                for chunk in range(0, groups, CHUNK):
                    place = chunk + tl.arange(0, CHUNK)
                    inside = place < groups
                    rows = tl.load(of_users + ROW * stride + first + place, mask=inside, other=0).to(tl.int64)
                    mask = inside[:, None] & (element < D)[None, :]
                    vectors = tl.load(moved + place[:, None] * D + element[None, :], mask=mask, other=0.0)
                    tl.store(own_user_vectors + rows[:, None] * D + element[None, :], vectors, mask=mask)
                tl.debug_barrier()
    tl.debug_barrier()
    tl.store(global_biases + member, bias)
    if ADAGRAD:
        tl.store(global_sums + member, bias_sum)


@triton.jit(do_not_specialize=["samples", "chunks", "n_users", "n_items"])
def score(
    places: tl.tensor,
    user_vectors: tl.tensor,
    item_vectors: tl.tensor,
    user_biases: tl.tensor,
    item_biases: tl.tensor,
    global_biases: tl.tensor,
    users: tl.tensor,
    items: tl.tensor,
    scores: tl.tensor,
    samples: tl.tensor,
    chunks: tl.tensor,
    n_users: tl.tensor,
    n_items: tl.tensor,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    CHUNK: tl.constexpr,
) -> None:
    """Score interactions; a GPU program for CHUNK of them and a candidate.

    Args:
        places: (A,) int64: where in the tables each candidate lies.
        user_vectors: as in `train_epoch`; and so on up to `global_biases`.
        item_vectors: as in `train_epoch`.
        user_biases: as in `train_epoch`.
        item_biases: as in `train_epoch`.
        global_biases: as in `train_epoch`.
        users: (samples,) int64.
        items: (samples,) int64.
        scores: (A, samples), written.
        samples: N.
        chunks: programs for one candidate.
        n_users: rows of the user tables.
        n_items: rows of the item tables.
        D: length of a vector.
        BLOCK_D: the power of 2 from there.
        CHUNK: interactions of a program.
    """
    number = tl.program_id(0).to(tl.int64)
    program = number // chunks
    member = tl.load(places + program)
    user_rows = tl.cast(n_users, tl.int64)
    item_rows = tl.cast(n_items, tl.int64)
    element = tl.arange(0, BLOCK_D)
    place = (number % chunks) * CHUNK + tl.arange(0, CHUNK)
    inside = place < samples
    user = tl.load(users + place, mask=inside, other=0)
    item = tl.load(items + place, mask=inside, other=0)
    nothing = tl.zeros((CHUNK,), tl.int32)
    left = read_vectors(user_vectors + member * user_rows * D, user, nothing, scores, element, inside, D, False)
    right = read_vectors(item_vectors + member * item_rows * D, item, nothing, scores, element, inside, D, False)
    user_bias = read_biases(user_biases + member * user_rows, user, nothing, scores, inside, False)
    item_bias = read_biases(item_biases + member * item_rows, item, nothing, scores, inside, False)
    value = tl.sum(left * right, 1) + (user_bias + item_bias) + tl.load(global_biases + member)
    tl.store(scores + program * samples + place, value, mask=inside)
