"""Building models without side effects, and describing them so that keys tell apart what behaves differently."""

from __future__ import annotations

import functools
import importlib.util
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from recmodels.data.rows import Schema
from recmodels.models.base import Batch, ModelFactory, build_model, describe_model, initialised
from recmodels.models.deep_model import DeepModel
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


class Other(Scaled):
    pass


def with_setting(setting: Any) -> ModelFactory:
    return lambda n_users, n_items: Scaled(n_users, n_items, setting)


def frozen(n_users: int, n_items: int) -> nn.Module:
    model = Scaled(n_users, n_items)
    model.user.weight.requires_grad_(False)
    return model


VARIANTS: dict[str, ModelFactory] = {
    "plain": Scaled,
    "another class": Other,
    "a number": with_setting(2.0),
    "a text": with_setting("x"),
    "a tensor": with_setting(torch.tensor([1.0, 2.0])),
    "another tensor": with_setting(torch.tensor([1.0, 3.0])),
    "an array": with_setting(np.array([1.0, 2.0])),
    "a function": with_setting(torch.relu),
    "another function": with_setting(torch.tanh),
    "an argument": functools.partial(Scaled, setting=3.0),
    "frozen": frozen,
    "deep": DeepModel,
    "less dropout": functools.partial(DeepModel, dropout=0.1),
    "other layers": functools.partial(DeepModel, layers=(64,)),
    "wider": functools.partial(DeepModel, embedding_size=32),
    "initialized otherwise": functools.partial(DeepModel, initialization="paper"),
    "mf": MF,
}


def test_models_that_differ_have_different_descriptions() -> None:
    texts = {name: str(sorted(describe_model(factory, SCHEMA).items())) for name, factory in VARIANTS.items()}
    assert len(set(texts.values())) == len(texts)
    for name, factory in VARIANTS.items():
        assert str(sorted(describe_model(factory, SCHEMA).items())) == texts[name], (
            f"{name} has a new one each time"
        )


def test_table_sizes_are_part_of_the_description() -> None:
    assert describe_model(MF, SCHEMA) != describe_model(MF, Schema({"user": 5, "item": 7}))


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


@pytest.mark.parametrize("edited", ["Model", "Base", "Part"])
def test_an_edited_source_makes_another_description(tmp_path: Path, edited: str) -> None:
    source = """
import torch

class Base(torch.nn.Module):
    def forward(self, batch):
        return self.part(batch) * 1.0  # Base

class Part(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(9, 2)
    def forward(self, batch):
        return self.table(batch.user).sum(-1) * 1.0  # Part

class Model(Base):
    def __init__(self, n_users, n_items):
        super().__init__()
        self.part = Part()  # Model
"""
    first = describe_model(_load(tmp_path / "first", source), SCHEMA)
    again = describe_model(_load(tmp_path / "again", source), SCHEMA)
    changed = source.replace(f"# {edited}", f"# {edited} edited")
    second = describe_model(_load(tmp_path / "second", changed), SCHEMA)
    assert first == again
    assert first["source"] != second["source"]
    assert {name for name in first if first[name] != second[name]} == {"source"}


def _load(folder: Path, source: str) -> Callable[[int, int], nn.Module]:
    folder.mkdir()
    path = folder / "own_model.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("own_model", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["own_model"] = module
    spec.loader.exec_module(module)
    factory: Callable[[int, int], nn.Module] = module.Model
    return factory
