"""Matrix factorisation trained for an epoch by one persistent GPU program a candidate.

This file is a source for `gploss.compute.gpu.load_triton_kernels`, which puts the interpreter of today's
operator table in the place of the template imported here.

A program owns its candidate's weights, so that nothing is ever shared between programs: it goes through the batches
one after the other, with barriers between its own threads only. In each batch

1. rows are gathered and scored,
2. the interpreter gives d loss/d score,
3. user rows are stepped into the workspace (they are still needed as they were),
4. item rows are stepped in place,
5. the stepped user rows are copied back.

Gradients of a row that occurs several times are summed in the order of the samples, by the index of
`recmodels.training.epoch_index`, which is the same for all candidates. Positions in tables are 64-bit numbers.
"""

# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl

from gploss.compute.gpu_template import derive

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
def read_vectors(table, rows, behind, shrink, element, inside, D: tl.constexpr, LAZY: tl.constexpr):
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
def read_biases(table, rows, behind, shrink, inside, LAZY: tl.constexpr):
    """Return biases (CHUNK,), brought up to date; arguments as in `read_vectors`."""
    biases = tl.load(table + rows, mask=inside, other=0.0)
    if LAZY:
        biases += biases * tl.load(shrink + behind)
    return biases


@triton.jit
def step(weight, total, own, rate, decay, twice, clip, ADAGRAD: tl.constexpr):
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
    planes,
    stride,
    first,
    groups,
    pulls,
    own_vectors,
    own_biases,
    own_vector_sums,
    own_bias_sums,
    partner_vectors,
    shrink,
    rate,
    decay,
    twice,
    clip,
    moved,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    CHUNK: tl.constexpr,
    ADAGRAD: tl.constexpr,
    IN_PLACE: tl.constexpr,
):
    """Step the distinct rows of one side of a batch.

    Args:
        planes: this side's planes of the index.
        stride: elements from one plane to the next.
        first: where the batch begins in the epoch.
        groups: number of distinct rows.
        pulls: (BLOCK,) d loss/d score of the batch's samples.
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
            pull = tl.load(pulls + sample, mask=there, other=0.0)
            vectors = read_vectors(partner_vectors, partner, partner_behind, shrink, element, there, D, not ADAGRAD)
            vector_total += vectors * pull[:, None]
            bias_total += pull
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


@triton.jit(do_not_specialize=["samples", "steps", "n_users", "n_items", "workspace_size"])
def train_epoch(
    instructions,
    instruction_offsets,
    constants,
    constant_offsets,
    roots,
    used,
    clamped,
    multipliers,
    losses,
    places,
    user_vectors,
    item_vectors,
    user_biases,
    item_biases,
    global_biases,
    user_vector_sums,
    item_vector_sums,
    user_bias_sums,
    item_bias_sums,
    global_sums,
    rates,
    decays,
    shrinks,
    index,
    labels,
    bounds,
    user_groups,
    item_groups,
    diverged,
    workspace,
    samples,
    steps,
    n_users,
    n_items,
    workspace_size,
    twice,
    clip,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    ADAGRAD: tl.constexpr,
):
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
        labels: (samples,) in the order of the epoch.
        bounds: (steps + 1,) int64 where each batch begins.
        user_groups: (steps,) int32 distinct users of each batch.
        item_groups: (steps,) int32 distinct items of each batch.
        diverged: (A,) int32, written.
        workspace: (A, workspace_size).
        samples: N.
        steps: number of batches.
        n_users: rows of the user tables.
        n_items: rows of the item tables.
        workspace_size: BLOCK scores, BLOCK pulls, (BLOCK, D) stepped rows, and twice the interpreter's slots.
        twice: twice the decay in the loss.
        clip: bound on each element of the gradient.
        D: length of a vector.
        BLOCK_D: the power of 2 from there.
        BLOCK: the power of 2 from the largest batch.
        CHUNK: rows at a time.
        ADAGRAD: or plain SGD.
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
    pulls = scores + BLOCK
    moved = pulls + BLOCK
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
                tl.load(labels + first + sample, mask=valid, other=0.0),
                slots,
                adjoints,
                BLOCK,
            )
            gradient = tl.where(valid, gradient / size, 0.0)
            bad = tl.sum((gradient - gradient != 0.0).to(tl.int32), 0)
            tl.store(pulls + sample, gradient)
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
                    pulls,
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
                    pulls,
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
    places,
    user_vectors,
    item_vectors,
    user_biases,
    item_biases,
    global_biases,
    users,
    items,
    scores,
    samples,
    chunks,
    n_users,
    n_items,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    CHUNK: tl.constexpr,
):
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
