"""Protocols: what they hold, and what they refuse."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from recmodels.training.protocol import PAPER, PROTOCOLS, STANDARD, Protocol


@pytest.mark.parametrize("name", PROTOCOLS.names())
def test_every_protocol_describes_itself(name: str) -> None:
    protocol = PROTOCOLS[name]
    assert protocol.name == name
    assert Protocol(**json.loads(json.dumps(protocol.describe()))) == protocol


def test_the_papers_settings() -> None:
    assert (PAPER.optimizer, PAPER.learning_rate, PAPER.batch_size, PAPER.gradient_clip) == ("sgd", 0.01, 128, 50.0)
    assert (PAPER.weight_decay, PAPER.initialization, PAPER.scale_free) == (1e-4, "paper", False)
    assert (STANDARD.optimizer, STANDARD.batch_size, STANDARD.scale_free) == ("adagrad", 512, True)


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": "momentum"},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"weight_decay": -1e-9},
        {"weight_decay": float("nan")},
        {"loss_decay": -1.0},
        {"loss_decay": 1e-4},
        {"batch_size": 0},
        {"initial_accumulator": 0.0},
        {"gradient_clip": 0.0},
        {"patience": 0},
    ],
)
def test_settings_that_make_no_sense(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        dataclasses.replace(STANDARD, **change)


def test_loss_decay_goes_with_sgd() -> None:
    assert dataclasses.replace(PAPER, loss_decay=1e-4).loss_decay == 1e-4


@pytest.mark.parametrize("protocol", [STANDARD, PAPER], ids=lambda protocol: protocol.name)
def test_a_protocols_settings_have_its_own_values(protocol: Protocol) -> None:
    own = {name: setting.default for name, setting in protocol.settings().items()}
    assert own == {
        "learning_rate": protocol.learning_rate,
        "weight_decay": protocol.weight_decay,
        "batch_size": protocol.batch_size,
    }
    assert all(one.low < one.default < one.high for one in protocol.settings().values())
