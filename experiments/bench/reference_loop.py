"""The reference for training speed: one model, one clean PyTorch loop, nothing clever."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from recmodels.data.interactions import Interactions
from recmodels.models.base import Batch


def reference_epoch(make_model: Callable[[int, int], torch.nn.Module], train: Interactions) -> float:
    """Train a fresh model for one epoch with binary cross-entropy and return the seconds that it took.

    SGD as protocol "paper" has it: batches of 128, rate 0.01, decay 1e-4, gradient values clipped at 50. No metrics
    are computed.

    Args:
        make_model: called with the numbers of users and items.
        train: what to train on.
    """
    torch.manual_seed(0)
    model = make_model(train.n_users, train.n_items).train()
    step = torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=1e-4)
    users, items = torch.tensor(train.users), torch.tensor(train.items)
    labels = torch.tensor(train.labels)
    begun = time.perf_counter()
    for rows in torch.split(torch.randperm(len(users)), 128):
        step.zero_grad()
        scores = model(Batch(users[rows], items[rows]))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, labels[rows])
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_value_(model.parameters(), 50.0)
        step.step()
    return time.perf_counter() - begun
