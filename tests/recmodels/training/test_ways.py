"""Which way a module is trained, what is said about it, and what is refused before anything is trained."""

from __future__ import annotations

import pickle
import random
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from recmodels.data.pointwise import PointwiseProblem
from recmodels.models.base import Batch, ModelFactory, build_model
from recmodels.models.deep_model import DeepModel
from recmodels.models.mf import MF
from recmodels.training.choice import choose_trainer
from recmodels.training.fused.trainer import FusedTrainer
from recmodels.training.plain.trainer import PlainTrainer
from recmodels.training.protocol import PAPER, STANDARD
from recmodels.training.stacked.trainer import StackedTrainer, Way
from recmodels.training.trainer import TrainReport
from tests.recmodels.training.cases import ALL, PROBLEM, SCHEMA, SPLIT, members_of, program_of
from tests.recmodels.training.kinds import FILES
from tests.recmodels.training.kinds.base import Dot, Through
from tests.recmodels.training.kinds.gradients import FrozenLater
from tests.recmodels.training.kinds.keeping import Projected
from tests.recmodels.training.kinds.layers import Gru

BATCHES = PROBLEM.batches(0, 0, {"batch_size": 256})


def fit(trainer: StackedTrainer | PlainTrainer, count: int = 2, seeds: int = 1) -> TrainReport:
    return trainer.fit(program_of(ALL, STANDARD), members_of(count, STANDARD, seeds=seeds), PROBLEM, 2, keep="last")


# What is said.


def test_a_slow_way_is_told_once_with_its_reason() -> None:
    trainer = StackedTrainer(Gru, STANDARD, device="cpu")
    with pytest.warns(UserWarning, match=r"Gru is trained one by one .* slower .*gru") as told:
        report = fit(trainer)
        fit(trainer)
        assert report.states is not None
        trainer.predict(report.states, PROBLEM.rows("test"))
    assert len(told) == 1


@pytest.mark.parametrize("model", [MF, DeepModel])
def test_nothing_is_said_where_the_fast_way_is_right(model: ModelFactory) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer = StackedTrainer(model, STANDARD, device="cpu")
        assert trainer.plan(BATCHES).way is Way.LEADING
        assert trainer.plan(BATCHES).reason is None


def test_a_changed_mf_is_told() -> None:
    def clipped(n_users: int, n_items: int) -> MF:
        model = MF(n_users, n_items)
        model.register_forward_hook(lambda module, given, scores: scores.clamp(-0.01, 0.01))
        return model

    trainer = choose_trainer(clipped, STANDARD, device="cpu")
    with pytest.warns(UserWarning, match="has the weights of MF, but is another one"):
        assert trainer.describe(SCHEMA)["trainer"] == "stacked"


def test_factories_see_the_datas_numbers_alone() -> None:
    seen = set()

    def noting(n_users: int, n_items: int) -> MF:
        seen.add((n_users, n_items))
        return MF(n_users, n_items, 4)

    trainer = choose_trainer(noting, STANDARD, device="cpu")
    assert not seen
    trainer.fit(program_of(ALL, STANDARD), members_of(1, STANDARD), PROBLEM, 1)
    assert seen == {(SCHEMA["user"], SCHEMA["item"])}
    assert trainer.name == "fused"


# What cannot be seen before it happens.


def test_a_module_that_changes_its_ways_later_is_trained_one_by_one() -> None:
    """Its first batches show nothing: the last one of an epoch is smaller."""

    class Later(Dot):
        def forward(self, batch: Batch) -> Tensor:
            user = self.user(batch.user)
            return ((user if len(batch.item) == 512 else user.detach()) * self.item(batch.item)).sum(-1)

    trainer = StackedTrainer(Later, STANDARD, device="cpu")
    problem = PointwiseProblem(SPLIT)
    assert trainer.plan(problem.batches(0, 0, {"batch_size": 512})).way is Way.LEADING
    program, members = program_of(ALL, STANDARD), [*members_of(2, STANDARD)]
    with pytest.warns(UserWarning, match="only some batches give user.weight a gradient"):
        report = trainer.fit(program, members, problem, 2, keep="last")
    plain = PlainTrainer(Later, STANDARD, device="cpu").fit(program, members, problem, 2, keep="last")
    np.testing.assert_array_equal(report.metrics["auc"], plain.metrics["auc"])


def test_a_trainer_that_has_chosen_can_be_sent_to_another_process() -> None:
    trainer = choose_trainer(DeepModel, STANDARD, device="cpu")
    trainer.describe(SCHEMA)
    assert pickle.loads(pickle.dumps(trainer)).describe(SCHEMA) == trainer.describe(SCHEMA)  # noqa: S301


# Members of several seeds, and what they are made from.


@pytest.mark.parametrize("kind", [StackedTrainer, PlainTrainer])
def test_each_member_is_predicted_by_the_constants_of_its_own_seed(
    kind: Callable[..., StackedTrainer | PlainTrainer],
) -> None:
    trainer = kind(Projected, STANDARD, device="cpu")
    report = fit(trainer, 4, seeds=2)
    assert report.states is not None
    np.testing.assert_array_equal(report.states.seeds, [0, 1, 0, 1])
    scores = trainer.predict(report.states, PROBLEM.rows("validation"))
    found = PROBLEM.judge("validation")(torch.from_numpy(scores))["auc"]
    np.testing.assert_allclose(found, report.metrics["auc"][np.arange(4), report.stopped_at - 1], atol=1e-6)
    again = trainer.fit(
        program_of(ALL, STANDARD), members_of(4, STANDARD), PROBLEM, 1, start=report.states, keep="last"
    )
    assert again.states is not None
    np.testing.assert_array_equal(again.states.seeds, [0, 1, 0, 1])


def test_a_pretrained_table_is_nobodys_to_change() -> None:
    vectors = torch.randn(SCHEMA["item"], 6, generator=torch.Generator().manual_seed(1))
    before = vectors.clone()

    def pretrained(n_users: int, n_items: int) -> nn.Module:
        model = Dot(n_users, n_items)
        model.item = nn.Embedding.from_pretrained(vectors, freeze=False)
        return model

    first = fit(PlainTrainer(pretrained, STANDARD, device="cpu"))
    assert torch.equal(vectors, before)
    np.testing.assert_array_equal(
        first.metrics["auc"], fit(PlainTrainer(pretrained, STANDARD, device="cpu")).metrics["auc"]
    )


def test_lazy_parts_are_drawn_from_the_seed() -> None:
    class Lazy(Through):
        def more(self, n_users: int, n_items: int) -> None:
            self.body = nn.LazyLinear(12)

    one, other = (build_model(Lazy, SCHEMA, 3).state_dict() for _ in range(2))
    assert all(torch.equal(own, other[name]) for name, own in one.items())
    assert not torch.equal(one["body.weight"], build_model(Lazy, SCHEMA, 4).state_dict()["body.weight"])


def test_numpys_and_pythons_random_numbers_are_drawn_from_the_seed() -> None:
    class OtherNumbers(Dot):
        def more(self, n_users: int, n_items: int) -> None:
            self.scales = torch.from_numpy(np.random.rand(6).astype(np.float32))  # noqa: NPY002
            self.share = random.random()

        def forward(self, batch: Batch) -> Tensor:
            return (self.user(batch.user) * self.scales * self.item(batch.item)).sum(-1) * self.share

    before = np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]  # noqa: NPY002
    one, other, third = (build_model(OtherNumbers, SCHEMA, seed) for seed in (3, 3, 4))
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before  # type: ignore[index]  # noqa: NPY002
    assert torch.equal(one.scales, other.scales) and one.share == other.share  # type: ignore[arg-type]
    assert not torch.equal(one.scales, third.scales) and one.share != third.share  # type: ignore[arg-type]


def test_weights_that_no_seed_decides_are_told() -> None:
    class Unseeded(Dot):
        def more(self, n_users: int, n_items: int) -> None:
            self.scale = nn.Parameter(torch.tensor(np.random.default_rng().random(6), dtype=torch.float32))

        def forward(self, batch: Batch) -> Tensor:
            return (self.user(batch.user) * self.scale * self.item(batch.item)).sum(-1)

    with pytest.warns(UserWarning, match="Unseeded is made with other weights each time"):
        StackedTrainer(Unseeded, STANDARD, device="cpu").plan(BATCHES)


# What is refused, or noticed.


class Probabilities(Dot):
    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch).sigmoid()


class Softmax(Dot):
    def more(self, n_users: int, n_items: int) -> None:
        self.last = nn.Linear(12, 2)

    def forward(self, batch: Batch) -> Tensor:
        return torch.softmax(self.last(self.joined(batch)), -1)[:, 1]


@pytest.mark.parametrize("model", [Probabilities, Softmax])
@pytest.mark.parametrize("choose", [choose_trainer, StackedTrainer])
def test_probabilities_are_noticed_and_named(model: ModelFactory, choose: Callable[..., StackedTrainer]) -> None:
    with pytest.warns(UserWarning, match=rf"{model.__name__} seems to return probabilities.* last sigmoid"):  # type: ignore[attr-defined]
        fit(choose(model, STANDARD, device="cpu"))


@pytest.mark.filterwarnings("ignore")
def test_no_other_kind_of_module_is_taken_for_probabilities() -> None:
    class SmallAndPositive(Dot):
        def forward(self, batch: Batch) -> Tensor:
            return 0.01 + 0.1 * super().forward(batch).abs()

    class Zero(Dot):
        def more(self, n_users: int, n_items: int) -> None:
            nn.init.zeros_(self.user.weight)

    some = ["MF, as it comes", "DeepModel, as it comes", "cosine similarity", "two towers, normalised"]
    every = {text: made for kinds in FILES.values() for text, made in kinds.items()}
    for factory in (SmallAndPositive, Zero, *(every[text] for text in some)):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            StackedTrainer(factory, PAPER, device="cpu").plan(BATCHES)
        assert not [one for one in told if "probabilities" in str(one.message)], factory


class NotFinite(Dot):
    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch).log()


class RaisesOwn(Dot):
    def forward(self, batch: Batch) -> Tensor:
        raise RuntimeError("no such thing\nand much more")


class OfIntegers(Dot):
    def forward(self, batch: Batch) -> Tensor:
        return batch.user


def complex_scores(n_users: int, n_items: int) -> nn.Module:
    return Dot(n_users, n_items).to(torch.complex64)


@pytest.mark.filterwarnings("ignore:Complex modules")
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (NotFinite, "NotFinite gives .* examples scores that are not finite before it is trained"),
        (RaisesOwn, "RaisesOwn cannot be trained: RuntimeError: no such thing$"),
        (OfIntegers, r"OfIntegers must map .* real numbers, but it returned torch.int64 of shape \(4,\)"),
        (complex_scores, "Dot.*complex64"),
    ],
)
def test_what_cannot_be_trained_is_told_in_one_line(model: ModelFactory, message: str) -> None:
    for trainer in (StackedTrainer(model, STANDARD, device="cpu"), choose_trainer(model, STANDARD, device="cpu")):
        with pytest.raises(ValueError, match=message) as caught:
            trainer.fit(program_of(ALL, STANDARD), members_of(1, STANDARD), PROBLEM, 1)
        assert "\n" not in str(caught.value)


def test_what_a_module_learns_in_attributes_is_predicted_with() -> None:
    trainer = StackedTrainer(FrozenLater, STANDARD, device="cpu")
    with pytest.warns(UserWarning, match="training changes met, which is neither parameter nor buffer"):
        states = fit(trainer).states
    assert states is not None
    batches = len(PROBLEM.batches(0, 0, {"batch_size": STANDARD.batch_size}))
    np.testing.assert_array_equal(states.weights["met"], [2 * batches] * 2)


def test_what_a_module_learns_in_hidden_layers_is_refused() -> None:
    class Hidden(Dot):
        def more(self, n_users: int, n_items: int) -> None:
            self.parts = [nn.BatchNorm1d(6)]

        def forward(self, batch: Batch) -> Tensor:
            self.parts[0].train(self.training)
            scores: Tensor = (self.parts[0](self.user(batch.user)) * self.item(batch.item)).sum(-1)
            return scores

    with pytest.raises(ValueError, match="Hidden keeps what it learns where it cannot be found"):
        fit(StackedTrainer(Hidden, STANDARD, device="cpu"))


def test_the_fused_trainer_takes_what_is_equal_and_nothing_else() -> None:
    models = {text: made for kinds in FILES.values() for text, made in kinds.items() if text.startswith("MF")}
    taken = []
    for text, made in models.items():
        trainer = FusedTrainer(made, STANDARD)
        try:
            trainer.fit(program_of(ALL, STANDARD), members_of(1, STANDARD), PROBLEM, 1)
            taken.append(text)
        except ValueError as error:
            assert "this model is another one" in str(error)
    assert taken == ["MF, as it comes", "MF, a subclass that does the same"]
