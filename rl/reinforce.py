"""REINFORCE as pure functions: rewards, log-probabilities and a baseline make the loss of a policy.

Source: R. J. Williams, Simple statistical gradient-following algorithms for connectionist reinforcement
learning, Machine Learning 8 (1992); used by AutoLossGen (arXiv 2204.13160) to train its controller.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def add_entropy_bonus(rewards: Tensor, entropies: Tensor, entropy_weight: float) -> Tensor:
    """Return rewards (n,) with ``entropy_weight`` times the entropies (n,) added, free of any graph."""
    return (rewards + entropy_weight * entropies).detach()


def policy_loss(
    rewards: Tensor,
    log_probabilities: Tensor,
    baseline: Tensor | float,
    entropies: Tensor,
    entropy_weight: float = 1e-4,
) -> Tensor:
    """Return the scalar whose gradient is an unbiased estimate of minus the gradient of the mean reward.

    The bonus for entropy is part of the reward, as in AutoLossGen, and carries no gradient itself.

    Args:
        rewards: (n,), higher is better.
        log_probabilities: (n,), in nats, of the samples under the policy; gradients flow through these only.
        baseline: (n,) or a scalar; must not depend on the sample that it is subtracted for.
        entropies: (n,), in nats.
        entropy_weight: reward for one nat.

    Returns:
        A scalar: the mean over samples of -(reward + bonus - baseline) * log-probability.

    Raises:
        ValueError: a reward is not finite, or there is none.
    """
    if len(rewards) == 0 or not bool(torch.isfinite(rewards).all()):
        raise ValueError(f"REINFORCE needs finite rewards, at least one; got {rewards.tolist()}")
    # Williams (1992), the REINFORCE rule: change of weights = rate * (r - b) * d ln g / d w,
    # where (r - b) is the reinforcement offset by its baseline and d ln g / d w the characteristic eligibility
    advantages = add_entropy_bonus(rewards, entropies, entropy_weight) - baseline
    return -(advantages * log_probabilities).sum() / len(rewards)


def update_baseline(baseline: float | None, reward: float, decay: float = 0.99) -> float:
    """Return the moving average of rewards after one more of them; None has seen none yet.

    Example:
        >>> update_baseline(None, 0.5)
        0.5
        >>> update_baseline(1.0, 0.0, decay=0.9)
        0.9
    """
    if baseline is None:
        return reward
    return decay * baseline + (1.0 - decay) * reward


def moving_baselines(
    rewards: Sequence[float], baseline: float | None, decay: float = 0.99
) -> tuple[list[float], float | None]:
    """Walk through rewards in order and note the baseline that each one meets.

    A reward meets the moving average of those *before* it, so that the baseline does not depend on the
    sample it is subtracted for. (The first reward of all starts the average and meets itself.)

    Returns:
        The baselines, one a reward, and the moving average after the last reward.
    """
    met = []
    for reward in rewards:
        met.append(reward if baseline is None else baseline)
        baseline = update_baseline(baseline, reward, decay)
    return met, baseline
