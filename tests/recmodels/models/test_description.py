"""A model's description changes with all that the model calls and holds, and with nothing else."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from recmodels.data.rows import Schema
from recmodels.models.base import Batch, ModelFactory
from recmodels.models.deep_model import DeepModel
from recmodels.models.description import describe_model
from recmodels.models.mf import MF
from tests.recmodels.training.kinds import FILES
from tests.typed import typed

SCHEMA = Schema({"user": 5, "item": 6})
KINDS_SCHEMA = Schema({"user": 12, "item": 9})

SOURCE = '''"""A user's model."""
import functools
import torch

SCALE = 2.0
TABLE = torch.tensor([1.0, 2.0])
OPTIONS = {"clip": 3.0, "names": ["a", "b"]}

def inner(x):
    """What helper calls."""
    return x * 1.5  # inner

def helper(u, i):
    return inner(u * i).sum(-1)

def logged(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args) * 1.25
    return wrapper

def scaled_by(factor):
    return lambda x: x * factor

class Settings:
    slope = 0.5
    def apply(self, x):
        return x * self.slope

class Part(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(9, 2)
    def forward(self, ids):
        return self.table(ids)

class Base(torch.nn.Module):
    shift = 0.0
    @property
    def slope(self):
        return 1.75
    def forward(self, batch):
        """Score."""
        return self.score(batch) + self.shift

class Model(Base):
    def __init__(self, n_users, n_items, final=scaled_by(3.0)):
        super().__init__()
        self.part, self.final, self.settings = Part(), final, Settings()
        self.bounded = functools.partial(torch.clamp, max=7.0)
    @logged
    def score(self, batch):
        try:
            value = helper(self.part(batch.user), self.part(batch.item)) * SCALE + TABLE.sum()
        except ValueError:
            value = torch.zeros(1)
        total = sum(v for v in [value * self.slope, value] if v is not None)
        return self.bounded(self.settings.apply(self.final(total)), min=-OPTIONS["clip"])
'''

#: What has to make another key.
EDITS = {
    "a helper's helper": ("x * 1.5", "x * 1.6"),
    "a helper": ("inner(u * i)", "inner(u + i)"),
    "a number of the module": ("SCALE = 2.0", "SCALE = 2.5"),
    "a whole number instead": ("SCALE = 2.0", "SCALE = 2"),
    "a tensor of the module": ("[1.0, 2.0]", "[1.0, 3.0]"),
    "a value in a dictionary": ('"clip": 3.0', '"clip": 4.0'),
    "a text in a list": ('["a", "b"]', '["a", "c"]'),
    "a decorator": ("* 1.25", "* 1.3"),
    "no decorator": ("    @logged\n", ""),
    "the value of a closure": ("scaled_by(3.0)", "scaled_by(3.5)"),
    "a function that is made": ("lambda x: x * factor", "lambda x: x + factor"),
    "a class attribute": ("shift = 0.0", "shift = 0.1"),
    "a property": ("return 1.75", "return 1.8"),
    "the class of a setting": ("slope = 0.5", "slope = 0.6"),
    "a method of a setting": ("x * self.slope", "x - self.slope"),
    "a part's forward": ("return self.table(ids)", "return self.table(ids) * 2"),
    "a base's forward": ("self.score(batch) + self", "self.score(batch) - self"),
    "an argument bound": ("max=7.0", "max=8.0"),
    "a default": ("def inner(x):", "def inner(x, y=1):"),
    "a comprehension": ("if v is not None", "if v is None"),
    "what is caught": ("except ValueError", "except KeyError"),
    "another base": ("class Model(Base)", "class Model(Base, Settings)"),
}

#: What must not.
RETOUCHES = {
    "a comment": ("  # inner", "  # otherwise"),
    "a comment of its own line": ("class Part", "# one of two\nclass Part"),
    "blank lines": ("def helper", "\n\n\ndef helper"),
    "another docstring": ('"""Score."""', '"""Scores of a batch."""'),
    "no docstring": ('        """Score."""\n', ""),
    "a docstring of a class": ("class Settings:\n", 'class Settings:\n    """Numbers."""\n'),
    "a docstring of a decorator": ("def wrapper(*args):\n", 'def wrapper(*args):\n        """Call it."""\n'),
    "a statement on two lines": ("inner(u * i)", "inner(\n        u * i\n    )"),
    "an annotation": ("def inner(x):", "def inner(x: torch.Tensor) -> torch.Tensor:"),
    "something that is not called": ("SCALE = 2.0", "SCALE = 2.0\nOTHER = 7.0\ndef unused(): return OTHER"),
}


def from_file(source: str, folder: Path) -> ModelFactory:
    path = folder / "own_model.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("own_model", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    factory: ModelFactory = module.Model
    return factory


def from_cell(source: str) -> ModelFactory:
    factory: ModelFactory = typed(source)["Model"]
    return factory


def edited(old: str, new: str) -> str:
    assert SOURCE.count(old) == 1
    return SOURCE.replace(old, new)


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_of_anything_that_is_reached_makes_another_key(name: str, tmp_path: Path) -> None:
    text = edited(*EDITS[name])
    assert describe_model(from_cell(text), SCHEMA) != describe_model(from_cell(SOURCE), SCHEMA)
    base = describe_model(from_file(SOURCE, tmp_path), SCHEMA)
    assert describe_model(from_file(text, tmp_path), SCHEMA) != base


@pytest.mark.parametrize("name", RETOUCHES)
def test_what_changes_nothing_leaves_the_key_alone(name: str, tmp_path: Path) -> None:
    text = edited(*RETOUCHES[name])
    assert describe_model(from_cell(text), SCHEMA) == describe_model(from_cell(SOURCE), SCHEMA)
    base = describe_model(from_file(SOURCE, tmp_path), SCHEMA)
    assert describe_model(from_file(text, tmp_path), SCHEMA) == base


def test_the_code_that_runs_counts_not_the_file_that_was_edited_since(tmp_path: Path) -> None:
    factory = from_file(SOURCE, tmp_path)
    before = describe_model(factory, SCHEMA)
    (tmp_path / "own_model.py").write_text(edited(*EDITS["a helper"]))
    assert describe_model(factory, SCHEMA) == before


def test_another_process_finds_the_same(tmp_path: Path) -> None:
    path = tmp_path / "run.py"
    path.write_text(
        SOURCE + "\nfrom recmodels.data.rows import Schema\n"
        "from recmodels.models.description import describe_model\n"
        "print(describe_model(Model, Schema({'user': 5, 'item': 6}))['code'])\n"
    )
    found = {
        subprocess.run(
            [sys.executable, str(path)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert found == {describe_model(from_cell(SOURCE), SCHEMA)["code"] + "\n"}


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


def replaced(n_users: int, n_items: int) -> nn.Module:
    model = Scaled(n_users, n_items)
    model.forward = lambda batch: model.user(batch.user).mean(-1)  # type: ignore[method-assign]
    return model


def _doubled(module: nn.Module, given: Any, found: Any) -> Any:
    return 2 * found


def hooked(n_users: int, n_items: int) -> nn.Module:
    model = Scaled(n_users, n_items)
    model.user.register_forward_hook(_doubled)
    return model


def hooked_weight(n_users: int, n_items: int) -> nn.Module:
    model = Scaled(n_users, n_items)
    model.user.weight.register_hook(lambda gradient: 2 * gradient)
    return model


def tied(n_users: int, n_items: int) -> nn.Module:
    model = Scaled(n_users, n_items)
    model.other = model.user
    return model


def untied(n_users: int, n_items: int) -> nn.Module:
    model = Scaled(n_users, n_items)
    model.other = nn.Embedding.from_pretrained(model.user.weight.detach().clone(), freeze=False)
    return model


VARIANTS: dict[str, ModelFactory] = {
    "plain": Scaled,
    "another class": Other,
    "a number": with_setting(2.0),
    "a text": with_setting("x"),
    "a tensor": with_setting(torch.tensor([1.0, 2.0])),
    "another tensor": with_setting(torch.tensor([1.0, 3.0])),
    "half precision": with_setting(torch.tensor([1.0, 3.0], dtype=torch.bfloat16)),
    "a sparse tensor": with_setting(torch.eye(3).to_sparse()),
    "another sparse tensor": with_setting(2 * torch.eye(3).to_sparse()),
    "an array": with_setting(np.array([1.0, 2.0])),
    "a function": with_setting(torch.relu),
    "another function": with_setting(torch.tanh),
    "one of numpy": with_setting(np.tanh),
    "a generator": with_setting(np.random.default_rng(3)),
    "a set": with_setting({"a", "b", "c"}),
    "recurrent": with_setting(nn.LSTM(2, 2)),
    "lazy": with_setting(nn.LazyLinear(2)),
    "an argument": functools.partial(Scaled, setting=3.0),
    "frozen": frozen,
    "replaced on the instance": replaced,
    "hooked": hooked,
    "hooked weight": hooked_weight,
    "tied": tied,
    "untied": untied,
    "deep": DeepModel,
    "less dropout": functools.partial(DeepModel, dropout=0.1),
    "other layers": functools.partial(DeepModel, layers=(64,)),
    "wider": functools.partial(DeepModel, embedding_size=32),
    "initialized otherwise": functools.partial(DeepModel, initialization="paper"),
    "mf": MF,
}


def test_models_that_differ_have_different_descriptions() -> None:
    codes = {name: describe_model(factory, SCHEMA)["code"] for name, factory in VARIANTS.items()}
    assert len(set(codes.values())) == len(codes)
    for name, factory in VARIANTS.items():
        assert describe_model(factory, SCHEMA)["code"] == codes[name], f"{name} has a new one each time"


@pytest.mark.filterwarnings("ignore")
def test_every_kind_of_module_is_known_and_told_from_all_others() -> None:
    kinds = {text: made for group in FILES.values() for text, made in group.items()}
    codes = {text: describe_model(made, KINDS_SCHEMA)["code"] for text, made in kinds.items()}
    assert len(set(codes.values())) == len(kinds) > 100
    new_each_time = [
        text for text, made in kinds.items() if describe_model(made, KINDS_SCHEMA)["code"] != codes[text]
    ]
    assert new_each_time == ["MF, compiled by torch", "a scripted layer"]  # what is compiled cannot be read


def test_table_sizes_are_part_of_the_description() -> None:
    assert describe_model(MF, SCHEMA) != describe_model(MF, Schema({"user": 5, "item": 7}))


def test_hooks_for_all_modules_count() -> None:
    before = describe_model(MF, SCHEMA)
    handle = nn.modules.module.register_module_forward_hook(_doubled)
    try:
        assert describe_model(MF, SCHEMA) != before
    finally:
        handle.remove()
    assert describe_model(MF, SCHEMA) == before


def test_what_cannot_be_known_is_shared_with_nobody_and_said_once(tmp_path: Path) -> None:
    with (tmp_path / "log.txt").open("w") as log:

        def logging(n_users: int, n_items: int) -> nn.Module:
            return Scaled(n_users, n_items, log)

        with pytest.warns(UserWarning, match=r"the model Scaled reaches .*log \(_io.TextIOWrapper.* no other run"):
            first = describe_model(logging, SCHEMA)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            second = describe_model(logging, SCHEMA)
    assert first != second
