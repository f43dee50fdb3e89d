"""The loop that anybody would write: one module, torch's own optimiser, the loss as a function."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from gploss.loss_function import ExpressionLoss
from gploss.tasks.pointwise import LOSSES
from recmodels.models.base import Batch, ModelFactory, build_model
from tests.recmodels.training.cases import SCHEMA, SPLIT, batches_of

BATCH: Final = 256
EPOCHS: Final = 2
RATES: Final = {"sgd": 0.5, "adagrad": 0.05}
NAMES: Final = ("bce", "mse")


def plain_loop(factory: ModelFactory, loss: str, optimizer: str, seed: int) -> tuple[nn.Module, Tensor]:
    """Train one module; return it, and its validation scores."""
    train = SPLIT.train
    users, items, labels = (torch.tensor(column) for column in (train.users, train.items, train.labels))
    module = build_model(factory, SCHEMA, seed).train()
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    step: torch.optim.Optimizer = torch.optim.SGD(trained, lr=RATES["sgd"])
    if optimizer == "adagrad":
        step = torch.optim.Adagrad(trained, lr=RATES["adagrad"], initial_accumulator_value=1e-6, eps=0.0)
    mean_loss = ExpressionLoss(LOSSES[loss].expression, scale=1.0)
    for epoch in range(EPOCHS):
        batches = batches_of(seed, epoch, len(train), BATCH)
        # Of the random numbers that forward draws.
        seeds = np.random.SeedSequence((seed, 2, epoch)).generate_state(len(batches), np.uint64) >> np.uint64(1)
        for rows, own in zip(batches, seeds, strict=True):
            torch.manual_seed(int(own))
            step.zero_grad()
            mean_loss(module(Batch(users[rows], items[rows])), labels[rows]).backward()
            step.step()
    with torch.no_grad():
        validation = Batch(torch.tensor(SPLIT.validation.users), torch.tensor(SPLIT.validation.items))
        return module, module.eval()(validation).float()
