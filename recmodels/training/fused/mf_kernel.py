"""Matrix factorisation, trained for an epoch in one compiled call.

A source of `gploss.compute.cpu.load_kernels`: the interpreter of today's operator table takes the place of the
template that is imported here, WIDTH becomes the length of a row, and all of it is cached under a hash.

One call trains one candidate on one core, so that its table stays in the core's cache. Users and items are rows of
one table, (rows, WIDTH), with their biases beside it; the global bias is the last bias. A batch takes three passes:
the scores; the interpreter, which turns them into d loss/d score, here called pulls; the steps. A gradient needs
the partner's row as it stood before the batch. Where user and item occur only once in the batch nobody else will
ask for them, and they are stepped where they lie. The other samples come user by user: a user is stepped at its
last sample, when nobody will ask for it any more; items have their gradients summed, and are stepped at the end.

Plain SGD shrinks all weights by one factor at each step. These factors are gathered in one number, the scale, and
the table holds weights divided by it until the epoch ends (Bottou, "Stochastic gradient descent tricks", 2012,
section 5.1). What the steps mean is said in `recmodels.training.stacked.row_kernels`.
"""

# mypy: ignore-errors
# (what is compiled here is typed by numba)

from __future__ import annotations

import platform

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from gploss.compute.cpu_template import BLOCK, run_block
from recmodels.training.vectors import (
    LANES,
    bounded,
    load,
    multiply_add,
    spread,
    square_root,
    store,
    total,
    zero_if,
)

WIDTH = 64  # @width
ZERO = np.float32(0)
ONE = np.float32(1)

#: Below this the scale is multiplied into the table early.
SMALLEST_SCALE = 1e-6

#: Adam's decay of the moments and its guard (Kingma and Ba, 2015).
BETA_1 = np.float32(0.9)
BETA_2 = np.float32(0.999)
EPSILON = np.float32(1e-8)

#: Rows of the array of samples that each thread works with.
SCORES, LABELS, LOSSES, PULLS = 0, 1, 2, 3

SGD, ADAGRAD, ADAM = 0, 1, 2

_FLUSH_DENORMALS = 0x8040  # bits of the SSE control register: for results, and for operands


def _control_register(builder, name, slot):
    """Call one of the two instructions that move the SSE control register from and to memory."""
    address = builder.bitcast(slot, ir.IntType(8).as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer()])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.sse.{name}"), [address])


@intrinsic
def flush_denormals(typing_context):
    """Let numbers below 1e-38, which make arithmetic many times slower, be 0; return what `restore_mode` needs.

    On processors without an SSE control register this does nothing.
    """

    def generate(context, builder, signature, arguments):
        slot = cgutils.alloca_once_value(builder, ir.Constant(ir.IntType(32), 0))
        if platform.machine() in ("x86_64", "AMD64"):
            _control_register(builder, "stmxcsr", slot)
            before = builder.load(slot)
            builder.store(builder.or_(before, ir.Constant(ir.IntType(32), _FLUSH_DENORMALS)), slot)
            _control_register(builder, "ldmxcsr", slot)
            builder.store(before, slot)
        return builder.load(slot)

    return types.uint32(), generate


@intrinsic
def restore_mode(typing_context, before):
    """Undo `flush_denormals`."""

    def generate(context, builder, signature, arguments):
        slot = cgutils.alloca_once_value(builder, arguments[0])
        if platform.machine() in ("x86_64", "AMD64"):
            _control_register(builder, "ldmxcsr", slot)
        return context.get_dummy_value()

    return types.void(types.uint32), generate


#: Nothing is allocated in here, so references need not be counted: that would cost more than the arithmetic, and
#: threads would wait for each other.
compiled = njit(error_model="numpy", nogil=True, cache=True, _nrt=False)


@njit(inline="always")
def score(vectors, biases, user, item, scale):
    """Return the score of one user and item, without the global bias."""
    products = load(vectors, user, 0) * load(vectors, item, 0)
    for e in range(LANES, WIDTH, LANES):
        products = multiply_add(load(vectors, user, e), load(vectors, item, e), products)
    return scale * (scale * total(products) + (biases[user] + biases[item]))


@njit(inline="always")
def whole_blocks(size):
    """Return the next multiple of 16."""
    return (size + LANES - 1) // LANES * LANES


@njit(inline="always")
def clipped(value, bound):
    """Return the value, or the bound that it exceeds. NaN stays."""
    value = bound if value > bound else value
    return -bound if value < -bound else value


@compiled
def score_samples(vectors, biases, users, items, n_users, scores):
    """Compute scores outside of training.

    Args:
        vectors: (rows, WIDTH) float32.
        biases: (rows + 1,) float32.
        users: (N,) int64 ids.
        items: (N,) int64 ids.
        n_users: the row of the first item.
        scores: (N,) float32, written.
    """
    for k in range(users.shape[0]):
        scores[k] = score(vectors, biases, users[k], n_users + items[k], ONE) + biases[-1]


@compiled
def score_batch(vectors, biases, users, items, scale, samples):
    """Fill in the scores and labels of a batch; what is left of a block of 16 is filled with zeros.

    The interpreter takes whole blocks of 16, because a compiled loop is slow with what is left over.

    Args:
        vectors: (rows, WIDTH) float32.
        biases: (rows + 1,) float32.
        users: (B,) uint32 words of `recmodels.training.fused.orders.Order`.
        items: (B,) uint32 words.
        scale: of the table.
        samples: (4, capacity) float32, written.
    """
    global_bias = biases[-1]
    size = users.shape[0]
    for k in range(size):
        samples[SCORES, k] = score(vectors, biases, users[k] >> 2, items[k] >> 2, scale) + global_bias
    for k in range(size):
        samples[LABELS, k] = np.float32(np.int32((users[k] >> 1) & 1))
    for k in range(size, whole_blocks(size)):
        samples[SCORES, k] = ZERO
        samples[LABELS, k] = ZERO


@compiled
def mean_pulls(size, samples):
    """Divide the pulls by the size of the batch.

    Returns:
        Their sum, and whether all are finite.
    """
    for k in range(size, whole_blocks(size)):
        samples[PULLS, k] = ZERO
    count = spread(np.float32(size))
    pulls = spread(ZERO)
    nothing = spread(ZERO)
    for k in range(0, size, LANES):
        pull = load(samples, PULLS, k) / count
        store(samples, PULLS, k, pull)
        pulls = pulls + pull
        nothing = nothing + (pull - pull)  # NaN where a pull is not finite
    return total(pulls), total(nothing) == ZERO


@njit(inline="always")
def adagrad_vector(weight, gradient, squares, rate, decay, bound):
    """Return weights and sums of squares after a step."""
    pull = multiply_add(decay, weight, bounded(gradient, bound))
    squares = multiply_add(pull, pull, squares)
    return weight - rate * pull / square_root(squares), squares


@njit(inline="always")
def adagrad_number(weight, gradient, squares, rate, decay, clip):
    """Return a weight and its sum of squares after a step."""
    pull = clipped(gradient, clip) + decay * weight
    squares = squares + pull * pull
    return weight - rate * pull / np.sqrt(squares), squares


@njit(inline="always")
def adam_vector(weight, gradient, first, second, rate, root_bias, decay, bound):
    """Return weights and both moments after a step."""
    pull = multiply_add(decay, weight, bounded(gradient, bound))
    first = multiply_add(spread(ONE - BETA_1), pull, spread(BETA_1) * first)
    second = multiply_add(spread(ONE - BETA_2), pull * pull, spread(BETA_2) * second)
    return weight - rate * first / multiply_add(square_root(second), root_bias, spread(EPSILON)), first, second


@njit(inline="always")
def adam_number(weight, gradient, first, second, rate, root_bias, decay, clip):
    """Return a weight and its moments after a step."""
    pull = clipped(gradient, clip) + decay * weight
    first = BETA_1 * first + (ONE - BETA_1) * pull
    second = BETA_2 * second + (ONE - BETA_2) * (pull * pull)
    return weight - rate * first / (np.sqrt(second) * root_bias + EPSILON), first, second


@njit(inline="always")
def step_bias(optimizer, biases, one, two, row, gradient, rate, decay, more, twice, clip, root_bias):
    """Step a bias; the arguments are those of `step_row`."""
    if optimizer == SGD:
        pull = clipped(gradient + twice * biases[row], clip)
        biases[row] += more * biases[row] - rate * pull
    elif optimizer == ADAGRAD:
        biases[row], one[row] = adagrad_number(biases[row], gradient, one[row], rate, decay, clip)
    else:
        biases[row], one[row], two[row] = adam_number(
            biases[row], gradient, one[row], two[row], rate, root_bias, decay, clip
        )


@njit(inline="always")
def step_row(
    optimizer,
    vectors,
    biases,
    first_vectors,
    first_biases,
    second_vectors,
    second_biases,
    steps,
    corrections,
    row,
    sums,
    slot,
    rate,
    decay,
    more,
    twice,
    clip,
):
    """Step a row whose gradient was summed.

    Args:
        optimizer: SGD, ADAGRAD or ADAM; the tables that follow are those of `train_epoch`.
        vectors: the weights.
        biases: the weights.
        first_vectors: state.
        first_biases: state.
        second_vectors: state.
        second_biases: state.
        steps: Adam's.
        corrections: Adam's.
        row: to be stepped.
        sums: (slots, WIDTH + LANES) float32: gradients; the bias's is behind the vector's.
        slot: the row's.
        rate: learning rate; for SGD in units of the table.
        decay: joins the gradient after it was clipped; not for SGD.
        more: of SGD: what is added to the weight, as a fraction of it.
        twice: of SGD: decay that joins the gradient before it is clipped.
        clip: bound on the gradient.
    """
    root_bias = ONE
    if optimizer == ADAM:
        steps[row] += 1
        step = min(steps[row], corrections.shape[0] - 1)
        rate = rate * corrections[step, 0]
        root_bias = corrections[step, 1]
    bound = spread(clip)
    rates = spread(rate)
    decays = spread(decay)
    if optimizer == SGD:
        growth = spread(more)
        descent = spread(-rate)
        decays = spread(twice)
        for e in range(0, WIDTH, LANES):
            weight = load(vectors, row, e)
            pull = bounded(multiply_add(decays, weight, load(sums, slot, e)), bound)
            store(vectors, row, e, multiply_add(descent, pull, multiply_add(growth, weight, weight)))
    elif optimizer == ADAGRAD:
        for e in range(0, WIDTH, LANES):
            gradient = load(sums, slot, e)
            weight, one = adagrad_vector(
                load(vectors, row, e), gradient, load(first_vectors, row, e), rates, decays, bound
            )
            store(vectors, row, e, weight)
            store(first_vectors, row, e, one)
    else:
        root_biases = spread(root_bias)
        for e in range(0, WIDTH, LANES):
            weight, one, two = adam_vector(
                load(vectors, row, e),
                load(sums, slot, e),
                load(first_vectors, row, e),
                load(second_vectors, row, e),
                rates,
                root_biases,
                decays,
                bound,
            )
            store(vectors, row, e, weight)
            store(first_vectors, row, e, one)
            store(second_vectors, row, e, two)
    gradient = sums[slot, WIDTH]
    step_bias(
        optimizer, biases, first_biases, second_biases, row, gradient, rate, decay, more, twice, clip, root_bias
    )


@compiled
def step_shared(
    optimizer,
    vectors,
    biases,
    first_vectors,
    first_biases,
    second_vectors,
    second_biases,
    steps,
    corrections,
    users,
    items,
    first,
    scale,
    samples,
    slots,
    rows,
    sums,
    rate,
    decay,
    more,
    twice,
    clip,
):
    """Step the users and items of samples that share them.

    Args:
        optimizer: as in `step_row`, as is what is not explained here.
        vectors: as there.
        biases: as there.
        first_vectors: as there.
        first_biases: as there.
        second_vectors: as there.
        second_biases: as there.
        steps: as there.
        corrections: as there.
        users: (B,) uint32 words of a batch.
        items: (B,) uint32 words.
        first: the first sample to take part.
        scale: of the table.
        samples: (4, capacity) float32.
        slots: (rows,) int32, written: where in `sums` an item's gradient is.
        rows: (capacity + 1,) int32, written: the item of each slot.
        sums: (capacity + 1, WIDTH + LANES) float32, written. Slot 0 is the user's whose samples are met.
        rate: as there.
        decay: as there.
        more: as there.
        twice: as there.
        clip: as there.
    """
    used = 1
    last = users.shape[0]
    for k in range(first, last):
        user = users[k] >> 2
        item = items[k] >> 2
        new_user = np.int64(users[k] & 1)
        new_item = np.int64(items[k] & 1)
        slot = np.int64(slots[item])
        slot += (used - slot) * new_item  # not a branch: it could not be predicted
        slots[item] = slot
        rows[slot] = item
        used += new_item
        pull = samples[PULLS, k]
        factor = spread(pull * scale)
        for e in range(0, WIDTH, LANES):
            before = zero_if(new_user, load(sums, 0, e))
            store(sums, 0, e, multiply_add(factor, load(vectors, item, e), before))
            before = zero_if(new_item, load(sums, slot, e))
            store(sums, slot, e, multiply_add(factor, load(vectors, user, e), before))
        sums[0, WIDTH] = pull + (ZERO if new_user else sums[0, WIDTH])
        sums[slot, WIDTH] = pull + (ZERO if new_item else sums[slot, WIDTH])
        if k + 1 == last or users[k + 1] & 1:
            step_row(
                optimizer,
                vectors,
                biases,
                first_vectors,
                first_biases,
                second_vectors,
                second_biases,
                steps,
                corrections,
                user,
                sums,
                0,
                rate,
                decay,
                more,
                twice,
                clip,
            )
    for slot in range(1, used):
        step_row(
            optimizer,
            vectors,
            biases,
            first_vectors,
            first_biases,
            second_vectors,
            second_biases,
            steps,
            corrections,
            rows[slot],
            sums,
            slot,
            rate,
            decay,
            more,
            twice,
            clip,
        )


@compiled
def step_alone_by_sgd(vectors, biases, users, items, scale, rate, clip, samples):
    """Step users and items that occur once in the batch, where there is no decay in the loss."""
    bound = spread(clip)
    descent = spread(-rate)
    for k in range(users.shape[0]):
        user = users[k] >> 2
        item = items[k] >> 2
        pull = samples[PULLS, k]
        factor = spread(pull * scale)
        for e in range(0, WIDTH, LANES):
            of_user = load(vectors, user, e)
            of_item = load(vectors, item, e)
            store(vectors, user, e, multiply_add(descent, bounded(factor * of_item, bound), of_user))
            store(vectors, item, e, multiply_add(descent, bounded(factor * of_user, bound), of_item))
        change = rate * clipped(pull, clip)
        biases[user] -= change
        biases[item] -= change


@compiled
def step_alone_by_adagrad(vectors, biases, squares, bias_squares, users, items, rate, decay, clip, samples):
    """Step users and items that occur once in the batch."""
    bound = spread(clip)
    rates = spread(rate)
    decays = spread(decay)
    for k in range(users.shape[0]):
        user = users[k] >> 2
        item = items[k] >> 2
        pull = samples[PULLS, k]
        factor = spread(pull)
        for e in range(0, WIDTH, LANES):
            of_user = load(vectors, user, e)
            of_item = load(vectors, item, e)
            weight, own = adagrad_vector(of_user, factor * of_item, load(squares, user, e), rates, decays, bound)
            store(vectors, user, e, weight)
            store(squares, user, e, own)
            weight, own = adagrad_vector(of_item, factor * of_user, load(squares, item, e), rates, decays, bound)
            store(vectors, item, e, weight)
            store(squares, item, e, own)
        biases[user], bias_squares[user] = adagrad_number(biases[user], pull, bias_squares[user], rate, decay, clip)
        biases[item], bias_squares[item] = adagrad_number(biases[item], pull, bias_squares[item], rate, decay, clip)


@compiled
def multiply_table(vectors, biases, scale):
    """Multiply all weights but the global bias."""
    factor = spread(scale)
    for row in range(vectors.shape[0]):
        for e in range(0, WIDTH, LANES):
            store(vectors, row, e, factor * load(vectors, row, e))
        biases[row] *= scale


@compiled
def train_epoch(
    optimizer,
    vectors,
    biases,
    first_vectors,
    first_biases,
    second_vectors,
    second_biases,
    steps,
    corrections,
    users,
    items,
    bounds,
    alone,
    instructions,
    constants,
    root,
    used,
    clamped,
    multiplier,
    samples,
    values,
    adjoints,
    slots,
    rows,
    sums,
    learning_rate,
    weight_decay,
    loss_decay,
    clip,
):
    """Train one candidate for an epoch.

    Args:
        optimizer: SGD, ADAGRAD or ADAM.
        vectors: (rows, WIDTH) float32, changed.
        biases: (rows + 1,) float32, changed.
        first_vectors: Adagrad's sums of squared gradients or Adam's first moments, like `vectors`; changed.
        first_biases: likewise for `biases`.
        second_vectors: Adam's second moments, like `vectors`; changed.
        second_biases: likewise for `biases`.
        steps: (rows + 1,) int64: how many steps Adam has taken with each row; changed.
        corrections: (T, 2) float32: 1 / (1 - BETA_1^t) and (1 - BETA_2^t)^-1/2 after t steps; the last one stays.
        users: (N,) uint32 words of `recmodels.training.fused.orders.Order`.
        items: (N,) uint32 words.
        bounds: (batches + 1,) int64.
        alone: (batches,) int64.
        instructions: (I, 4) int32 of the loss, as the next five: see `run_block`.
        constants: (C,) float32.
        root: slot of the loss.
        used: bits of the terminals that occur.
        clamped: the loss's semantics.
        multiplier: what the loss is multiplied with.
        samples: (4, capacity) float32 workspace; capacity is a multiple of 16, at least the largest batch.
        values: (slots, BLOCK) float32 workspace.
        adjoints: (slots, BLOCK) float32 workspace.
        slots: (rows,) int32 workspace.
        rows: (capacity + 1,) int32 workspace.
        sums: (capacity + 1, WIDTH + LANES) float32 workspace.
        learning_rate: float64.
        weight_decay: float64. SGD shrinks all weights by learning_rate * weight_decay at each step; the others add
            weight_decay * weight to the gradient of the rows that a batch touches, after it was clipped.
        loss_decay: float64, of SGD: 2 * loss_decay * weight joins the gradient before it is clipped.
        clip: float32 bound on each element of the gradient.

    Returns:
        Whether all went well: otherwise there was a pull that is not finite, and training ended there.
    """
    mode = flush_denormals()
    scale = 1.0
    all_factor = 1.0
    more = ZERO
    twice = np.float32(2 * loss_decay)
    rate = np.float32(learning_rate)
    decay = np.float32(weight_decay)
    if optimizer == SGD:
        all_factor = 1 - learning_rate * (weight_decay + 2 * loss_decay)
        more = np.float32(2 * learning_rate * loss_decay / all_factor)
    fine = all_factor > 0
    for b in range(bounds.shape[0] - 1):
        if not fine:
            break
        if scale < SMALLEST_SCALE:
            multiply_table(vectors, biases, np.float32(scale))
            scale = 1.0
        begin = bounds[b]
        end = bounds[b + 1]
        now = np.float32(scale)
        batch_users = users[begin:end]
        batch_items = items[begin:end]
        score_batch(vectors, biases, batch_users, batch_items, now, samples)
        whole = whole_blocks(end - begin)
        for start in range(0, whole, BLOCK):
            stop = min(start + BLOCK, whole)
            run_block(
                instructions,
                constants,
                root,
                used,
                clamped,
                multiplier,
                samples[SCORES, start:stop],
                samples[LABELS, start:stop],
                samples[LOSSES, start:stop],
                samples[PULLS, start:stop],
                values,
                adjoints,
            )
        pull, fine = mean_pulls(end - begin, samples)
        if not fine:
            continue
        own_rate = rate
        own_twice = twice
        n_alone = 0
        if optimizer == SGD:
            scale *= all_factor
            own_rate = np.float32(learning_rate / scale)
            own_twice = twice * now
            if loss_decay == 0:
                n_alone = alone[b] - begin
                step_alone_by_sgd(
                    vectors, biases, batch_users[:n_alone], batch_items[:n_alone], now, own_rate, clip, samples
                )
        elif optimizer == ADAGRAD:
            n_alone = alone[b] - begin
            step_alone_by_adagrad(
                vectors,
                biases,
                first_vectors,
                first_biases,
                batch_users[:n_alone],
                batch_items[:n_alone],
                rate,
                decay,
                clip,
                samples,
            )
        step_shared(
            optimizer,
            vectors,
            biases,
            first_vectors,
            first_biases,
            second_vectors,
            second_biases,
            steps,
            corrections,
            batch_users,
            batch_items,
            n_alone,
            now,
            samples,
            slots,
            rows,
            sums,
            own_rate,
            decay,
            more,
            own_twice,
            clip,
        )
        if optimizer == ADAM:
            steps[-1] += 1
        step = min(steps[-1], corrections.shape[0] - 1)
        step_bias(
            optimizer,
            biases,
            first_biases,
            second_biases,
            vectors.shape[0],
            pull,
            rate * corrections[step, 0],
            decay,
            np.float32(-learning_rate * weight_decay),
            twice,
            clip,
            corrections[step, 1],
        )
    if scale != 1.0:
        multiply_table(vectors, biases, np.float32(scale))
    restore_mode(mode)
    return fine
