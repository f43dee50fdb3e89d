from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rl.controller import NO_OPERAND, Controller, Formulas
from rl.reinforce import policy_loss


def make(
    arities: tuple[int, ...] = (2, 1),
    terminals: int = 2,
    steps: int = 2,
    max_depth: int = 2,
    seed: int = 0,
    scale: float = 10.0,
    hidden_size: int = 8,
    centred: bool = False,
) -> Controller:
    """A float64 controller whose weights are large enough that it is far from uniform."""
    generator = torch.Generator().manual_seed(seed)
    controller = Controller(arities, terminals, steps, max_depth, generator, hidden_size, centred=centred).double()
    with torch.no_grad():
        for weight in controller.parameters():
            weight.mul_(scale)
    return controller


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def every_formula(arities: tuple[int, ...], terminals: int, steps: int) -> Formulas:
    """All formulas by brute force: at each step every operator with every ordered draw of operands."""
    choices = []
    for step in range(steps):
        nodes = range(terminals + step)
        moves = []
        for operator, arity in enumerate(arities):
            if arity == 2:
                moves += [(operator, *pair) for pair in itertools.permutations(nodes, 2)]
            else:
                moves += [(operator, node, NO_OPERAND) for node in nodes]
        choices.append(moves)
    table = torch.tensor(list(itertools.product(*choices)))
    return Formulas(table[:, :, 0], table[:, :, 1:])


def test_the_probabilities_of_all_formulas_sum_to_one() -> None:
    controller = make((2, 1), terminals=3, steps=2)
    log_probability, _ = controller.log_probability_of(every_formula((2, 1), 3, 2))
    assert len(log_probability) == (6 + 3) * (12 + 4)
    assert log_probability.exp().sum().item() == pytest.approx(1.0, abs=1e-12)
    assert log_probability.exp().max() > 2 * log_probability.exp().min()


def test_the_probabilities_sum_to_one_under_a_depth_limit_too() -> None:
    controller = make((2, 1), terminals=2, steps=3, max_depth=1)
    formulas = every_formula((2, 1), 2, 3)
    probability = controller.log_probability_of(formulas)[0].exp()
    uses_steps = (formulas.operands >= 2).any(dim=2).any(dim=1)
    assert probability.sum().item() == pytest.approx(1.0, abs=1e-12)
    assert not probability[uses_steps].any()
    assert (probability[~uses_steps] > 0).all()


def test_frequencies_agree_with_the_probabilities() -> None:
    controller = make((2, 1), terminals=2, steps=2)
    formulas = every_formula((2, 1), 2, 2)
    probability = controller.log_probability_of(formulas)[0].exp().detach().numpy()
    n = 20_000
    sampled, _, _ = controller.sample(n, generator(3))

    def keys(some: Formulas) -> list[bytes]:
        table = torch.cat([some.operators.unsqueeze(2), some.operands], dim=2)
        return [row.numpy().tobytes() for row in table]

    position = {key: i for i, key in enumerate(keys(formulas))}
    counts = np.bincount([position[key] for key in keys(sampled)], minlength=len(position))
    deviation = np.abs(counts - n * probability) / np.sqrt(n * probability * (1 - probability))
    assert deviation.max() < 4.5


def test_the_mean_entropy_is_the_entropy_of_the_policy() -> None:
    controller = make((2, 1, 1), terminals=2, steps=2)
    log_probability, entropy = controller.log_probability_of(every_formula((2, 1, 1), 2, 2))
    probability = log_probability.exp()
    expected = -(probability * log_probability).sum()
    assert (probability * entropy).sum().item() == pytest.approx(expected.item(), rel=1e-12)


def slow_log_probability(controller: Controller, operators: list[int], operands: list[list[int]]) -> float:
    """The policy once more, for one formula, from torch's own LSTM cell and plain Python."""
    size = len(controller.start_input)
    cell = nn.LSTMCell(size, size).double()
    order = [0, 1, 3, 2]  # torch keeps the gates as input, forget, candidate, output
    blocks = [controller.lstm_weight.chunk(4, dim=1)[i] for i in order]
    biases = [controller.lstm_bias.chunk(4)[i] for i in order]
    with torch.no_grad():
        cell.weight_ih.copy_(torch.cat([block[:size] for block in blocks], dim=1).T)
        cell.weight_hh.copy_(torch.cat([block[size:] for block in blocks], dim=1).T)
        cell.bias_ih.copy_(torch.cat(biases))
        cell.bias_hh.zero_()
    state: tuple[Tensor, Tensor] | None = None
    anchors, depths = [], [0] * controller.terminals
    signal: Tensor = controller.start_input
    total = 0.0
    for _ in range(controller.terminals):
        state = cell(signal.unsqueeze(0), state)
        anchors.append(state[0][0])
    for operator, chosen in zip(operators, operands, strict=True):
        state = cell(signal.unsqueeze(0), state)
        logits = 1.5 * torch.tanh(state[0][0] @ controller.operator_head)
        total += torch.log_softmax(logits, 0)[operator].item()
        state = cell(controller.operator_embedding[operator].unsqueeze(0), state)
        hidden = state[0][0]
        scores = []
        for anchor in anchors:
            mixed = anchor @ controller.attention_anchor + hidden @ controller.attention_hidden
            scores.append(-(controller.attention_vector @ torch.tanh(mixed)).item())
        shift = sum(scores) / len(scores) if controller.centred else 0.0
        weights = [
            math.exp(1.5 * math.tanh(score - shift)) if depth < controller.max_depth else 0.0
            for score, depth in zip(scores, depths, strict=True)
        ]
        chosen = [node for node in chosen if node != NO_OPERAND]
        first = weights[chosen[0]] / sum(weights)
        total += math.log(first)
        if len(chosen) == 2:
            second = weights[chosen[1]] / sum(weights)
            total += math.log(second / (1 - first))
        signal = torch.stack([anchors[node] for node in chosen]).mean(dim=0)
        depths.append(1 + max(depths[node] for node in chosen))
        anchors.append(hidden)
    return total


@pytest.mark.parametrize(("max_depth", "centred"), [(2, False), (6, False), (6, True)])
def test_log_probabilities_agree_with_a_slow_reimplementation(max_depth: int, centred: bool) -> None:
    controller = make((2, 2, 1, 1, 1), terminals=3, steps=6, max_depth=max_depth, centred=centred)
    formulas, log_probability, _ = controller.sample(8, generator(1))
    with torch.random.fork_rng():
        for i in range(8):
            expected = slow_log_probability(
                controller, formulas.operators[i].tolist(), formulas.operands[i].tolist()
            )
            assert log_probability[i].item() == pytest.approx(expected, rel=1e-10)


def is_well_formed(controller: Controller, operators: list[int], operands: list[list[int]]) -> bool:
    depths = [0] * controller.terminals
    for operator, (first, second) in zip(operators, operands, strict=True):
        used = [first] if controller.arities[operator] == 1 else [first, second]
        if controller.arities[operator] == 1 and second != NO_OPERAND:
            return False
        if len(set(used)) != len(used) or not all(0 <= node < len(depths) for node in used):
            return False
        depths.append(1 + max(depths[node] for node in used))
    return max(depths) <= controller.max_depth


@settings(max_examples=40, deadline=None)
@given(
    arities=st.lists(st.sampled_from([1, 2]), min_size=1, max_size=6).map(tuple),
    terminals=st.integers(1, 4),
    steps=st.integers(1, 8),
    max_depth=st.integers(1, 8),
    seed=st.integers(0, 1000),
)
def test_samples_are_well_formed_and_keep_their_log_probability(
    arities: tuple[int, ...], terminals: int, steps: int, max_depth: int, seed: int
) -> None:
    if terminals == 1 and 1 not in arities:
        arities = (*arities, 1)
    controller = make(arities, terminals, steps, max_depth, seed, scale=20.0)
    formulas, log_probability, entropy = controller.sample(12, generator(seed))
    for operators, operands in zip(formulas.operators.tolist(), formulas.operands.tolist(), strict=True):
        assert is_well_formed(controller, operators, operands)
    again, entropy_again = controller.log_probability_of(formulas)
    assert (log_probability <= 0).all()
    assert (log_probability > -1e3).all()
    assert (entropy >= -1e-12).all()
    torch.testing.assert_close(again, log_probability, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(entropy_again, entropy, rtol=1e-12, atol=1e-12)
    if again.requires_grad:
        gradients = torch.autograd.grad((again + entropy_again).sum(), list(controller.parameters()))
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)


def test_the_policy_gradient_is_the_gradient_of_the_mean_reward() -> None:
    controller = make((2, 1), terminals=2, steps=2)
    formulas = every_formula((2, 1), 2, 2)
    rewards = torch.rand(len(formulas.operators), generator=generator(5), dtype=torch.float64)

    def mean_reward() -> float:
        return (controller.log_probability_of(formulas)[0].exp() @ rewards).item()

    # every formula's own loss, as often as the policy writes it: a baseline must change nothing
    for baseline in (0.0, 0.7):
        log_probability, entropy = controller.log_probability_of(formulas)
        losses = [
            policy_loss(rewards[i : i + 1], log_probability[i : i + 1], baseline, entropy[i : i + 1], 0.0)
            for i in range(len(rewards))
        ]
        mean_loss = log_probability.exp().detach() @ torch.stack(losses)
        weights = list(controller.parameters())
        for weight, gradient in zip(weights, torch.autograd.grad(mean_loss, weights), strict=True):
            direction = torch.randn(weight.shape, generator=generator(7), dtype=torch.float64)
            step = 1e-5
            with torch.no_grad():
                weight.add_(step * direction)
                above = mean_reward()
                weight.sub_(2 * step * direction)
                below = mean_reward()
                weight.add_(step * direction)
            estimate = (above - below) / (2 * step)
            assert -(gradient * direction).sum().item() == pytest.approx(estimate, rel=1e-5, abs=1e-9)


def test_sampling_depends_on_its_generator_alone() -> None:
    controller = make((2, 1, 1), terminals=3, steps=5, max_depth=4)
    first, _, _ = controller.sample(20, generator(1))
    torch.rand(3)
    again, _, _ = controller.sample(20, generator(1))
    other, _, _ = controller.sample(20, generator(2))
    assert torch.equal(first.operators, again.operators)
    assert torch.equal(first.operands, again.operands)
    assert not torch.equal(first.operators, other.operators)


def global_random_states() -> tuple[object, ...]:
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002
    return torch.get_rng_state().tolist(), random.getstate(), str(numpy_state)


def test_global_random_states_are_left_alone() -> None:
    before = global_random_states()
    controller = make()
    formulas, _, _ = controller.sample(5, generator())
    torch.autograd.backward([controller.log_probability_of(formulas)[0].sum()])
    assert before == global_random_states()


def test_initial_weights_are_uniform_and_the_first_policy_is_nearly_so() -> None:
    controller = Controller((2,) * 4 + (1,) * 5, 3, 10, 10, generator())
    weights = torch.cat([weight.flatten() for weight in controller.parameters()])
    assert weights.dtype == torch.float32
    assert weights.abs().max() <= 0.1
    assert weights.std().item() == pytest.approx(0.2 / math.sqrt(12), rel=0.02)
    operators = controller.sample(2000, generator())[0].operators
    shares = torch.bincount(operators.flatten(), minlength=9) / operators.numel()
    assert (shares - 1 / 9).abs().max() < 0.03


@pytest.mark.parametrize(
    ("arities", "terminals", "steps", "max_depth", "message"),
    [
        ((), 2, 2, 2, "one or two operands"),
        ((3,), 2, 2, 2, "one or two operands"),
        ((2,), 1, 2, 2, "one terminal only"),
        ((1,), 0, 2, 2, r"terminals \(0\)"),
        ((1,), 2, 0, 2, r"steps \(0\)"),
        ((1,), 2, 2, 0, r"max_depth \(0\)"),
    ],
)
def test_impossible_sizes_are_refused(
    arities: tuple[int, ...], terminals: int, steps: int, max_depth: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(arities, terminals, steps, max_depth)


@pytest.mark.parametrize(
    ("operators", "operands", "message"),
    [
        ([[0]], [[[0, 1]]], "this controller writes"),
        ([[0, 5]], [[[0, 1], [0, 1]]], "not one of 0 to 1"),
        ([[0, 1]], [[[0, 1], [3, -1]]], "no earlier node"),
        ([[0, 1]], [[[0, -1], [0, -1]]], "no earlier node"),
        ([[0, 1]], [[[0, 1], [0, 1]]], "two of them"),
    ],
)
def test_formulas_that_do_not_fit_are_refused(
    operators: list[list[int]], operands: list[list[list[int]]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make().log_probability_of(Formulas(torch.tensor(operators), torch.tensor(operands)))


def test_the_same_operand_twice_has_no_probability() -> None:
    formulas = Formulas(torch.tensor([[0, 1]]), torch.tensor([[[1, 1], [0, NO_OPERAND]]]))
    assert make().log_probability_of(formulas)[0].exp().item() == 0.0
