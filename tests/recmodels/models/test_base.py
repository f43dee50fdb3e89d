"""Building models without side effects, and describing them so that keys tell apart what behaves differently."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recmodels.data.rows import Schema
from recmodels.models.base import Batch, build_model, initialised
from recmodels.models.mf import MF

SCHEMA = Schema({"user": 5, "item": 6})


def test_the_seed_decides_and_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = build_model(MF, SCHEMA, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(10)
    again = build_model(MF, SCHEMA, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_the_generator_is_put_back_when_the_factory_fails() -> None:
    def failing(n_users: int, n_items: int) -> nn.Module:
        torch.rand(5)
        raise RuntimeError("no")

    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="no"):
        build_model(failing, SCHEMA, seed=0)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_factory_that_makes_no_module() -> None:
    with pytest.raises(TypeError, match="returned int, not a torch"):
        build_model(lambda n_users, n_items: 3, SCHEMA, seed=0)  # type: ignore[arg-type,return-value]


class Scaled(nn.Module):
    """Settings that show in no weight and in no printed structure."""

    def __init__(self, n_users: int, n_items: int, setting: Any = 1.0) -> None:
        super().__init__()
        self.user = nn.Embedding(n_users, 2)
        self.setting = setting

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = self.user(batch.user).sum(-1) * self.setting
        return scores


class ByShop(nn.Module):
    """Knows columns that are neither users nor items."""

    def __init__(self, schema: Schema, width: int = 2) -> None:
        super().__init__()
        self.shop = nn.Embedding(schema["shop"], width)
        self.day = nn.Embedding(schema["day"], width)

    def forward(self, batch: Batch) -> Tensor:
        return (self.shop(batch["shop"]) * self.day(batch.day)).sum(-1)


def test_a_factory_of_one_argument_is_given_the_schema() -> None:
    schema = Schema({"shop": 3, "day": 7})
    for factory in (ByShop, functools.partial(ByShop, width=4), lambda own: ByShop(own, 3)):
        model = build_model(factory, schema, seed=0)
        assert isinstance(model, ByShop)
        assert (model.shop.num_embeddings, model.day.num_embeddings) == (3, 7)
        assert model(Batch(shop=torch.tensor([2, 0]), day=torch.tensor([6, 1]))).shape == (2,)
    with pytest.raises(LookupError, match="no column 'user'; the columns are shop, day"):
        build_model(MF, schema, seed=0)
    with pytest.raises(LookupError, match="no column 'shop'"):
        build_model(ByShop, SCHEMA, seed=0)


def test_a_batch_is_read_by_name() -> None:
    user, item, day = torch.tensor([1, 2]), torch.tensor([3, 4]), torch.tensor([5, 6])
    batch = Batch(user, item, day=day)
    assert batch.user is batch["user"] is user and batch.item is batch["item"] is item and batch.day is day
    assert list(batch) == ["user", "item", "day"] and "shop" not in batch
    with pytest.raises(LookupError, match="no column 'shop'; it has user, item, day"):
        batch["shop"]
    with pytest.raises(AttributeError, match="no column 'shop'"):
        _ = batch.shop


def test_a_protocol_initialises_models_that_have_a_choice() -> None:
    assert build_model(initialised(MF, "paper"), SCHEMA, 0).user_bias.weight.any()  # type: ignore[union-attr,operator]
    assert isinstance(build_model(initialised(functools.partial(MF, embedding_size=3), "paper"), SCHEMA, 0), MF)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert initialised(Scaled, "standard") is Scaled
    with pytest.warns(UserWarning, match="Scaled takes no argument 'initialization'.* not as 'paper' has it"):
        assert initialised(Scaled, "paper") is Scaled
