"""M copies of one module: weights in and out, and layers that do not see their neighbours."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from recmodels.models.base import Batch
from recmodels.models.deep_model import DeepModel
from recmodels.models.mf import MF
from recmodels.training.stacked.stack import Stack
from recmodels.training.stacked.steady import SteadyBatchNorm, SteadyLinear, make_steady, members_in_front

CPU = torch.device("cpu")
EXAMPLE = Batch(torch.tensor([0, 1, 2, 3]), torch.tensor([3, 2, 1, 0]))


def rows_of(stack: Stack, batch: Batch) -> dict[str, torch.Tensor]:
    return {name: table[getattr(batch, stack.fields[name])].transpose(0, 1) for name, table in stack.tables.items()}


@pytest.mark.parametrize("module", [MF(6, 5, 4), DeepModel(6, 5, 4, dropout=0.0)], ids=["mf", "deep"])
@pytest.mark.parametrize("training", [True, False])
def test_scores_are_those_of_the_module(module: nn.Module, training: bool) -> None:
    stack = Stack(module, 3, EXAMPLE, CPU)
    batch = Batch(torch.tensor([5, 0, 5, 2, 1]), torch.tensor([4, 4, 0, 1, 4]))
    scores = stack.scores(batch, rows_of(stack, batch), stack.dense(), training=training)
    expected = module.train(training)(batch)
    module.eval()
    assert scores.shape == (3, 5)
    for own in scores:
        torch.testing.assert_close(own, expected.detach(), rtol=1e-4, atol=1e-6)


def test_members_have_weights_of_their_own() -> None:
    stack = Stack(DeepModel(6, 5, 4), 3, EXAMPLE, CPU)
    before = stack.weights(torch.arange(3))
    stack.flat[1] += 1
    for table in stack.tables.values():
        table[:, 1] += 1
    for buffer in stack.buffers.values():
        buffer[1] += 1
    after = stack.weights(torch.arange(3))
    for name, tensor in before.items():
        assert torch.equal(after[name][0], tensor[0]) and torch.equal(after[name][2], tensor[2])
        assert torch.equal(after[name][1], tensor[1] + 1)


def test_weights_come_back_and_are_copies() -> None:
    first, second = Stack(DeepModel(6, 5, 4), 2, EXAMPLE, CPU), Stack(DeepModel(6, 5, 4), 2, EXAMPLE, CPU)
    saved = first.weights(torch.arange(2))
    second.load(saved)
    for name, tensor in second.weights(torch.arange(2)).items():
        assert torch.equal(tensor, saved[name])
    second.flat.zero_()
    assert torch.equal(first.weights(torch.arange(2))["output.bias"], saved["output.bias"])


def test_dropping_members_keeps_the_others() -> None:
    stack = Stack(DeepModel(6, 5, 4), 4, EXAMPLE, CPU)
    stack.flat += torch.arange(4).view(-1, 1)
    before = stack.weights(torch.arange(4))
    stack.keep_members(torch.tensor([3, 1]))
    assert len(stack) == 2
    for name, tensor in stack.weights(torch.arange(2)).items():
        assert torch.equal(tensor, before[name][[3, 1]])


@pytest.mark.parametrize("what", ["missing", "more", "shape", "broadcast", "count"])
def test_weights_of_another_model_are_refused(what: str) -> None:
    stack = Stack(MF(6, 5, 4), 2, EXAMPLE, CPU)
    weights = stack.weights(torch.arange(2))
    if what == "missing":
        del weights["global_bias"]
    elif what == "more":
        weights["other"] = torch.zeros(2)
    elif what == "shape":
        weights["user_bias.weight"] = torch.zeros(2, 7, 1)
    elif what == "broadcast":
        weights["user_embedding.weight"] = torch.zeros(2, 6, 1)
    else:
        weights["global_bias"] = torch.zeros(3)
    with pytest.raises(ValueError, match="belong to another model"):
        stack.load(weights)


# Steady layers.

WAYS = ("leading", "mapped")


def of_members(
    layer: nn.Module,
    way: str,
    weights: dict[str, torch.Tensor],
    buffers: dict[str, torch.Tensor],
    values: torch.Tensor,
) -> torch.Tensor:
    """Call a steady copy of a layer with the weights, buffers and values of M members."""
    layer = copy.deepcopy(layer)
    make_steady(layer)
    if way == "leading":
        members_in_front(layer)
        return torch.func.functional_call(layer, (weights, buffers), (values,))  # type: ignore[no-any-return]

    def one(weights: object, buffers: object, values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, (weights, buffers), (values,))  # type: ignore[no-any-return, arg-type]

    return torch.vmap(one)(weights, buffers, values)


def stacked(tensors: Iterable[tuple[str, torch.Tensor]], count: int) -> dict[str, torch.Tensor]:
    return {name: own.detach().unsqueeze(0).repeat(count, *[1] * own.ndim) for name, own in tensors}


@given(
    inputs=st.integers(1, 80),
    outputs=st.integers(1, 80),
    rows=st.integers(1, 70),
    bias=st.booleans(),
    way=st.sampled_from(WAYS),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_a_steady_linear_layer_is_a_linear_layer(
    inputs: int, outputs: int, rows: int, bias: bool, way: str, dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    _assert_same_layer(
        nn.Linear(inputs, outputs, bias=bias, dtype=dtype), way, torch.randn(rows, inputs, dtype=dtype)
    )


@given(
    channels=st.integers(1, 40),
    rows=st.integers(8, 70),  # of two rows that are nearly equal the variance is mostly rounding
    training=st.booleans(),
    way=st.sampled_from(WAYS),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_a_steady_batch_norm_is_a_batch_norm(
    channels: int, rows: int, training: bool, way: str, dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    plain = nn.BatchNorm1d(channels, dtype=dtype).train(training)
    with torch.no_grad():
        plain.weight.normal_()
        plain.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    _assert_same_layer(plain, way, 3 + 2 * torch.randn(rows, channels, dtype=dtype))


def _assert_same_layer(plain: nn.Module, way: str, values: torch.Tensor) -> None:
    """Results, gradients and buffers are those of the plain layer in float64.

    Layers in float32 are compiled; torch computes those in float64, as it does on other devices.
    """
    exact = copy.deepcopy(plain).double()
    own = values.double().requires_grad_()
    out = exact(own)
    pull = torch.randn(out.shape, dtype=values.dtype)
    expected = [out, *torch.autograd.grad(out, [own, *exact.parameters()], pull.double())]
    weights, buffers = stacked(plain.named_parameters(), 2), stacked(plain.named_buffers(), 2)
    leaves = [values.repeat(2, 1, 1), *weights.values()]
    for leaf in leaves:
        leaf.requires_grad_()
    result = of_members(plain, way, dict(zip(weights, leaves[1:], strict=True)), buffers, leaves[0])
    gradients = torch.autograd.grad(result, leaves, pull.repeat(2, 1, 1))
    for theirs, ours in zip(expected, [result, *gradients], strict=True):
        for member in ours:
            torch.testing.assert_close(member.double(), theirs, rtol=1e-3, atol=1e-3)
    for name, tensor in exact.named_buffers():
        torch.testing.assert_close(buffers[name][1].double(), tensor.double(), rtol=1e-5, atol=1e-5)


def test_a_mapped_layer_is_of_no_use_outside_of_vmap() -> None:
    with pytest.raises(NotImplementedError, match=r"within torch\.vmap"):
        SteadyLinear(3, 2)(torch.ones(1, 3))


def test_a_batch_norm_of_one_row_fails_as_torchs_own() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        SteadyBatchNorm(3)(torch.ones(1, 3))


@given(
    members=st.integers(2, 40),
    rows=st.integers(2, 130),
    inputs=st.sampled_from([1, 3, 10, 16, 64]),
    outputs=st.sampled_from([1, 5, 16, 33]),
    at=st.integers(0, 39),
    way=st.sampled_from(WAYS),
)
@settings(max_examples=40, deadline=None)
def test_bits_do_not_depend_on_the_place_in_a_stack(
    members: int, rows: int, inputs: int, outputs: int, at: int, way: str
) -> None:
    """The same member alone and among others: forwards and backwards."""
    torch.manual_seed(members)
    layer = nn.Sequential(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs))
    at %= members
    values, pull = torch.randn(members, rows, inputs), torch.randn(members, rows, outputs)
    weights = {name: torch.randn(members, *own.shape) for name, own in layer.named_parameters()}

    def results(which: slice) -> list[torch.Tensor]:
        buffers = stacked(layer.named_buffers(), len(values[which]))
        leaves = [own[which].clone().requires_grad_() for own in (values, *weights.values())]
        out = of_members(layer, way, dict(zip(weights, leaves[1:], strict=True)), buffers, leaves[0])
        return [out.detach(), *torch.autograd.grad(out, leaves, pull[which]), *buffers.values()]

    for among, alone in zip(results(slice(None)), results(slice(at, at + 1)), strict=True):
        assert torch.equal(among[at], alone[0])
