"""Every registered model keeps the contract of a model; the two of our own compute what their papers say."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gploss.registry import discover
from recmodels.data.rows import Schema
from recmodels.models.base import MODELS, Batch, build_model
from recmodels.models.deep_model import DeepModel
from recmodels.models.mf import MF

discover("recmodels.models")

SCHEMA = Schema({"user": 7, "item": 9})
BATCH = Batch(torch.tensor([0, 3, 3, 1, 6]), torch.tensor([4, 0, 4, 2, 8]))


@pytest.mark.parametrize("name", MODELS.names())
class TestEveryModel:
    def make(self, name: str, seed: int = 0) -> torch.nn.Module:
        return build_model(MODELS[name], SCHEMA, seed)

    def test_it_maps_a_batch_to_scores(self, name: str) -> None:
        model = self.make(name)
        for training in (True, False):
            scores = model.train(training)(BATCH)
            assert scores.shape == (5,) and scores.dtype == torch.float32
            assert torch.isfinite(scores).all()

    def test_one_interaction_can_be_scored(self, name: str) -> None:
        model = self.make(name).eval()
        one = Batch(BATCH.user[1:2], BATCH.item[1:2])
        torch.testing.assert_close(model(one), model(BATCH)[1:2])

    def test_the_seed_decides_the_weights(self, name: str) -> None:
        first, again, other = self.make(name), self.make(name), self.make(name, seed=1)
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
        assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))

    def test_scores_depend_on_user_and_item(self, name: str) -> None:
        model = build_model(
            lambda n_users, n_items: MODELS[name](n_users, n_items, initialization="paper"), SCHEMA, 0
        )
        everywhere = Batch(torch.arange(7).repeat_interleave(9), torch.arange(9).repeat(7))
        table = model.eval()(everywhere).view(7, 9)
        assert (table.std(0) > 0).any() and (table.std(1) > 0).any()

    def test_the_initializations(self, name: str) -> None:
        for initialization, spread in (("standard", 0.05), ("paper", 1.0)):
            options: dict[str, Any] = {"initialization": initialization}
            large = Schema({"user": 300, "item": 400})
            model = build_model(lambda *sizes, o=options: MODELS[name](*sizes, **o), large, 0)
            for table in (model.user_embedding, model.item_embedding):
                assert isinstance(table, torch.nn.Embedding)
                assert table.embedding_dim == 64
                assert float(table.weight.detach().std()) == pytest.approx(spread, rel=0.05)
                assert float(table.weight.detach().mean()) == pytest.approx(0.0, abs=0.05 * spread)


@torch.no_grad()
def test_mf_adds_up_what_equation_4_says() -> None:
    model = MF(7, 9, embedding_size=3, initialization="paper")
    for user, item, score in zip(BATCH.user, BATCH.item, model(BATCH), strict=True):
        parts = (
            float(model.user_embedding.weight[user] @ model.item_embedding.weight[item]),
            float(model.user_bias.weight[user, 0]),
            float(model.item_bias.weight[item, 0]),
            float(model.global_bias),
        )
        assert float(score) == pytest.approx(sum(parts), rel=1e-5)


@torch.no_grad()
def test_biases_of_mf() -> None:
    standard, paper = MF(300, 400), MF(300, 400, initialization="paper")
    assert not standard.user_bias.weight.any() and not standard.item_bias.weight.any()
    assert float(standard.global_bias) == 0.0 and float(paper.global_bias) == pytest.approx(0.1)
    assert float(paper.user_bias.weight.detach().std()) == pytest.approx(1.0, rel=0.2)


def test_layers_of_the_deep_model() -> None:
    model = DeepModel(7, 9)
    kinds = [type(part).__name__ for part in model.hidden]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Dropout"] * 2
    linear = [part for part in model.hidden if isinstance(part, torch.nn.Linear)]
    assert [(part.in_features, part.out_features) for part in linear] == [(128, 64), (64, 16)]
    assert [part.p for part in model.hidden if isinstance(part, torch.nn.Dropout)] == [0.2, 0.2]
    assert (model.output.in_features, model.output.out_features) == (16, 1)


def test_dropout_is_off_outside_of_training() -> None:
    model = DeepModel(7, 9, initialization="paper").eval()
    assert torch.equal(model(BATCH), model(BATCH))
    model.train()
    assert not torch.equal(model(BATCH), model(BATCH))
