from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rl.reinforce import add_entropy_bonus, moving_baselines, policy_loss, update_baseline

numbers = st.floats(-100, 100, allow_nan=False)


def test_the_gradient_is_advantage_over_n_and_entropies_get_none() -> None:
    rewards = torch.tensor([0.6, 0.8, 0.1])
    log_probabilities = torch.tensor([-3.0, -4.0, -5.0], requires_grad=True)
    entropies = torch.tensor([10.0, 20.0, 30.0], requires_grad=True)
    loss = policy_loss(rewards, log_probabilities, torch.tensor([0.5, 0.4, 0.3]), entropies, 0.01)
    torch.autograd.backward([loss])
    advantages = torch.tensor([0.6 + 0.1 - 0.5, 0.8 + 0.2 - 0.4, 0.1 + 0.3 - 0.3])
    assert log_probabilities.grad is not None
    torch.testing.assert_close(log_probabilities.grad, -advantages / 3)
    torch.testing.assert_close(loss.detach(), -(advantages * log_probabilities.detach()).mean())
    assert entropies.grad is None


def test_a_scalar_baseline_is_the_same_for_all() -> None:
    rewards, log_probabilities = torch.tensor([0.2, 0.9]), torch.tensor([-1.0, -2.0])
    entropies = torch.zeros(2)
    one = policy_loss(rewards, log_probabilities, 0.5, entropies)
    torch.testing.assert_close(one, policy_loss(rewards, log_probabilities, torch.full((2,), 0.5), entropies))


@pytest.mark.parametrize("rewards", [[], [math.nan, 0.5], [math.inf, 0.5]])
def test_rewards_that_cannot_be_learned_from_are_refused(rewards: list[float]) -> None:
    some = torch.tensor(rewards)
    with pytest.raises(ValueError, match="finite rewards"):
        policy_loss(some, torch.zeros(len(rewards)), 0.0, torch.zeros(len(rewards)))


def test_the_bonus_is_detached() -> None:
    rewards = add_entropy_bonus(torch.tensor([0.5]), torch.tensor([40.0], requires_grad=True), 1e-4)
    torch.testing.assert_close(rewards, torch.tensor([0.504]))
    assert not rewards.requires_grad


@given(rewards=st.lists(numbers, max_size=20), start=st.none() | numbers, decay=st.floats(0, 1))
def test_each_reward_meets_the_average_of_those_before_it(
    rewards: list[float], start: float | None, decay: float
) -> None:
    met, last = moving_baselines(rewards, start, decay)
    expected = start
    for reward, baseline in zip(rewards, met, strict=True):
        assert baseline == (reward if expected is None else expected)
        expected = update_baseline(expected, reward, decay)
    assert last == expected


@given(baseline=numbers, reward=numbers, decay=st.floats(0, 1))
def test_the_baseline_lies_between_the_old_one_and_the_reward(baseline: float, reward: float, decay: float) -> None:
    low, high = sorted([baseline, reward])
    assert low - 1e-9 <= update_baseline(baseline, reward, decay) <= high + 1e-9
