"""Layers whose results have the same bits wherever in a stack a member stands, for any size of the stack.

torch promises no such thing: its batch normalisation adds up in as many parts as there are threads, and its matrix
products choose other instructions for one matrix than for several, and for memory that is not aligned. On the CPU
`recmodels.training.stacked.layer_kernels` computes the layers, and faster; elsewhere torch does, on aligned memory.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final, cast

import numpy as np
import torch
from torch.nn.functional import pad

from recmodels.training.compiled import flat_array, load_compiled

#: Numbers in 64 bytes. Matrices with rows of a multiple of this are aligned wherever they stand in a stack.
_ALIGNED: Final = 16

_SOURCE: Final = Path(__file__).with_name("layer_kernels.py")

Gradients = tuple[torch.Tensor | None, ...]


class SteadyLinear(torch.nn.Linear):
    """`torch.nn.Linear`, one product a member."""

    members: bool = False

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return values @ weight.T + bias, (..., outputs), of (..., inputs); with the members in front of all."""
        if values.shape[-1] != self.in_features or (self.members and not _has_members(values, self.weight)):
            raise ValueError(f"a linear layer of {self.in_features} inputs is given {tuple(values.shape)}")
        lead = (len(values), -1) if self.members else (-1,)
        rows = values.reshape(*lead, self.in_features)
        bias: torch.Tensor = self.weight.new_zeros(self.weight.shape[:-1]) if self.bias is None else self.bias
        affine = _Affine.apply if self.members else _MappedAffine.apply
        products = cast(Callable[..., torch.Tensor], affine)(rows, self.weight, bias)
        return products.reshape(*values.shape[:-1], self.out_features)


def _kernels() -> ModuleType:
    return load_compiled(_SOURCE)


def _is_compiled(*tensors: torch.Tensor) -> bool:
    """Whether the compiled layers take some tensors."""
    return all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)


def _has_members(values: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether values have as many members in front as a weight, and a dimension of examples behind them."""
    return values.ndim > 2 and len(values) == len(weight)


class _Affine(torch.autograd.Function):
    """Rows @ weight.T + bias, for each of M members."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Return (M, B, outputs) of rows (M, B, inputs), weight (M, outputs, inputs) and bias (M, outputs)."""
        if _is_compiled(rows, weight, bias):
            rows, weight = rows.contiguous(), _one_after_the_other(weight)
            ctx.save_for_backward(rows, weight)
            return _affine_compiled(rows, weight, _one_after_the_other(bias))
        ctx.outputs, ctx.inputs = weight.shape[1:]
        rows, weight = _padded(rows, 1), _padded(weight.clone(memory_format=torch.contiguous_format), 2)
        ctx.save_for_backward(rows, weight)
        return torch.baddbmm(_padded(bias, 1).unsqueeze(1), rows, weight.mT)[..., : ctx.outputs]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Gradients:
        """Return the gradients of rows (None where it is not needed), weight and bias."""
        (gradient,) = gradients
        rows, weight = ctx.saved_tensors
        if _is_compiled(rows, weight, gradient):
            return _affine_gradients(gradient.contiguous(), rows, weight, ctx.needs_input_grad[0])
        gradient = _padded(gradient, 1)
        to_rows = (gradient @ weight)[..., : ctx.inputs] if ctx.needs_input_grad[0] else None
        to_weight = (gradient.mT @ rows)[:, : ctx.outputs, : ctx.inputs]
        return to_rows, to_weight, gradient.sum(1)[:, : ctx.outputs]


def _one_after_the_other(weight: torch.Tensor) -> torch.Tensor:
    """Return a weight (M, ...) whose members are contiguous each; there may be something between them."""
    return weight if weight[0].is_contiguous() else weight.contiguous()


def _affine_compiled(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    members, count, inputs = rows.shape
    outputs = weight.shape[1]
    result = torch.empty(members, count, outputs)
    _kernels().affine(
        rows.detach().view(-1).numpy(), flat_array(weight), weight.stride(0), flat_array(bias), bias.stride(0),
        members, count, inputs, outputs, np.empty(inputs * outputs, np.float32), result.view(-1).numpy(),
    )  # fmt: skip
    return result


def _affine_gradients(
    gradient: torch.Tensor, rows: torch.Tensor, weight: torch.Tensor, wants_rows: bool
) -> Gradients:
    members, count, inputs = rows.shape
    outputs = weight.shape[1]
    to_rows = torch.empty(rows.shape) if wants_rows else None
    to_weight, to_bias = torch.empty(weight.shape), torch.empty(members, outputs)
    _kernels().affine_gradients(
        gradient.view(-1).numpy(), rows.detach().view(-1).numpy(), flat_array(weight), weight.stride(0),
        members, count, inputs, outputs, np.zeros(inputs, np.float32),
        np.empty(0, np.float32) if to_rows is None else to_rows.view(-1).numpy(),
        to_weight.view(-1).numpy(), to_bias.view(-1).numpy(),
    )  # fmt: skip
    return to_rows, to_weight, to_bias


def _padded(tensor: torch.Tensor, dimensions: int) -> torch.Tensor:
    """Fill up the last one or two dimensions with zeros, to aligned sizes."""
    more = [-size % _ALIGNED for size in reversed(tensor.shape[-dimensions:])]
    return pad(tensor, [amount for size in more for amount in (0, size)]) if any(more) else tensor


def _members_first(
    info: Any, in_dims: tuple[int | None, ...], tensors: tuple[torch.Tensor, ...]
) -> list[torch.Tensor]:
    """Put the mapped dimension of each tensor in front; what is shared is repeated."""
    return [
        tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip(tensors, in_dims, strict=True)
    ]


class _Mapped(torch.autograd.Function):
    """What `torch.vmap` turns into a function of all members; it is of no use outside of it."""

    @staticmethod
    def forward(*inputs: Any) -> Any:
        raise NotImplementedError("this is a function of members, to be called within torch.vmap")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Save nothing: gradients go through the function of all members."""


class _MappedAffine(_Mapped):
    """`_Affine` of one member within `torch.vmap`."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Put the members in front."""
        affine = cast(Callable[..., torch.Tensor], _Affine.apply)
        return affine(*_members_first(info, in_dims, inputs)), 0


class _Normalise(torch.autograd.Function):
    """Batch normalisation by a batch's own mean and variance, its derivative in closed form.

    Source: Ioffe and Szegedy, "Batch normalization" (2015), section 3.
    """

    @staticmethod
    def forward(
        ctx: Any, values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, ...]:
        """Return the result, as the values (M, B, channels), and mean and variance, as the weight (M, channels)."""
        weight = weight.contiguous()
        if _is_compiled(values, weight, bias):
            values = values.contiguous()
            result = torch.empty(values.shape)
            mean, variance, spread = torch.empty(3, *weight.shape)
            _kernels().normalise(
                values.numpy(), weight.numpy(), bias.contiguous().numpy(), np.float32(eps),
                mean.numpy(), variance.numpy(), spread.numpy(), result.numpy(),
            )  # fmt: skip
        else:
            mean = values.mean(1)
            centred = values - mean.unsqueeze(1)
            variance = centred.square().mean(1)
            spread = torch.rsqrt(variance + eps)
            result = torch.addcmul(bias.unsqueeze(1), centred, (spread * weight).unsqueeze(1))
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(values, weight, mean, spread)
        return result, mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> Gradients:
        """Return the gradients of values, weight and bias."""
        gradient = gradients[0]
        assert gradient is not None
        values, weight, mean, spread = ctx.saved_tensors
        if _is_compiled(values, weight, gradient):
            to_values = torch.empty(values.shape)
            to_weight, to_bias = torch.empty(2, *weight.shape)
            _kernels().normalise_gradients(
                gradient.contiguous().numpy(), values.numpy(), weight.numpy(), mean.numpy(), spread.numpy(),
                to_values.numpy(), to_weight.numpy(), to_bias.numpy(),
            )  # fmt: skip
            return to_values, to_weight, to_bias, None
        count = values.shape[1]
        standard = (values - mean.unsqueeze(1)) * spread.unsqueeze(1)
        to_bias = gradient.sum(1)
        to_weight = (gradient * standard).sum(1)
        centred = torch.addcmul(gradient, standard, to_weight.unsqueeze(1), value=-1 / count)
        centred = centred.sub_(to_bias.unsqueeze(1), alpha=1 / count)
        return centred.mul_((spread * weight).unsqueeze(1)), to_weight, to_bias, None


class _MappedNormalise(_Mapped):
    """`_Normalise` of one member within `torch.vmap`."""

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *inputs: Any
    ) -> tuple[tuple[torch.Tensor, ...], tuple[int, ...]]:
        """Put the members in front."""
        normalise = cast(Callable[..., tuple[torch.Tensor, ...]], _Normalise.apply)
        return normalise(*_members_first(info, in_dims[:3], inputs[:3]), inputs[3]), (0, 0, 0)


class SteadyBatchNorm(torch.nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` in plain sums."""

    members: bool = False

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the normalised values, (B, channels); as torch does for other shapes and unusual settings.

        With the members in front, (M, B, channels) is the only shape.
        """
        usual = self.affine and self.track_running_stats and self.momentum is not None
        if not usual or values.ndim != 2 + self.members or (self.training and values.shape[-2] < 2):
            if self.members:
                raise ValueError("batch normalisation of this kind cannot have the members in front")
            return super().forward(values)
        assert self.running_mean is not None and self.running_var is not None
        if values.shape[-1] != self.num_features or (self.members and not _has_members(values, self.weight)):
            raise ValueError(f"batch normalisation of {self.num_features} values is given {tuple(values.shape)}")
        if not self.training:
            scale = (self.weight * torch.rsqrt(self.running_var + self.eps)).unsqueeze(-2)
            return torch.addcmul(self.bias.unsqueeze(-2), values - self.running_mean.unsqueeze(-2), scale)
        normalise = cast(
            Callable[..., tuple[torch.Tensor, ...]], (_Normalise if self.members else _MappedNormalise).apply
        )
        result, mean, variance = normalise(values, self.weight, self.bias, self.eps)
        self._follow(mean, variance, values.shape[-2])
        return result

    @torch.no_grad()
    def _follow(self, mean: torch.Tensor, variance: torch.Tensor, count: int) -> None:
        """Move the running mean and variance, (..., channels) each, towards those of a batch."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.mul_(1 - self.momentum).add_(mean, alpha=self.momentum)
        self.running_var.mul_(1 - self.momentum).add_(variance, alpha=self.momentum * count / (count - 1))


class SteadyDropout(torch.nn.Dropout):
    """`torch.nn.Dropout` with one mask for all members."""

    members: bool = False

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the values, some of them set to zero in training and the rest scaled up."""
        if not self.training or self.p == 0:
            return values
        shape = values.shape[1:] if self.members else values.shape
        kept = torch.empty(shape, dtype=values.dtype, device=values.device).bernoulli_(1 - self.p)
        return values * (kept / (1 - self.p) if self.p < 1 else kept)


def make_steady(module: torch.nn.Module) -> None:
    """Turn torch's own layers into steady ones, in place; parameters, buffers and hooks stay."""
    for part in module.modules():
        if type(part) is torch.nn.Linear:
            part.__class__ = SteadyLinear
        elif type(part) is torch.nn.BatchNorm1d:
            part.__class__ = SteadyBatchNorm
        elif type(part) is torch.nn.Dropout and not part.inplace:
            part.__class__ = SteadyDropout


def members_in_front(module: torch.nn.Module) -> set[str]:
    """Let steady layers expect the members as a leading dimension, in place.

    Returns:
        The names of their parameters, which then have to be (M, ...) as they are.
    """
    names = set()
    for path, part in module.named_modules():
        if isinstance(part, SteadyLinear | SteadyBatchNorm | SteadyDropout):
            part.members = True
            names |= {f"{path}.{name}" if path else name for name, _ in part.named_parameters(recurse=False)}
    return names
