"""Which trainer trains a model on a device: the fastest that knows the model."""

from __future__ import annotations

from gploss.compute.gpu import why_no_triton
from recmodels.models.base import ModelFactory
from recmodels.training.arguments import given_model, given_protocol
from recmodels.training.fused.gpu import TritonTrainer
from recmodels.training.fused.trainer import FusedTrainer, can_train
from recmodels.training.protocol import Protocol
from recmodels.training.stacked.trainer import StackedTrainer
from recmodels.training.trainer import Trainer, choose_device


def choose_trainer(model: ModelFactory, protocol: Protocol, *, device: str = "auto") -> Trainer:
    """Return the fastest trainer for a model; its `name` is part of every result.

    Matrix factorisation goes to the fused trainers: compiled code on the CPU, Triton on a CUDA device (where Triton
    is installed). Every other module goes to the stacked one.

    Args:
        model: makes a module for the columns of a problem.
        protocol: how to train.
        device: "auto" (CUDA where there is a usable device), "cpu", "cuda" or "cuda:N".

    Raises:
        TypeError: the model is no factory, or the protocol none.
        ValueError: the device is unknown or cannot be used.
    """
    model, protocol, chosen = given_model(model), given_protocol(protocol), choose_device(device)
    if can_train(model) and chosen.type == "cpu":
        return FusedTrainer(model, protocol, device="cpu")
    if can_train(model) and why_no_triton() is None and protocol.optimizer in ("sgd", "adagrad"):
        return TritonTrainer(model, protocol, device=device)
    return StackedTrainer(model, protocol, device=device)
