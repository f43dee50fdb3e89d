"""Layers whose results have the same bits wherever in a stack a member stands, for any size of the stack.

torch promises no such thing: its batch normalisation adds up in as many parts as there are threads, and its matrix
products choose other instructions for one matrix than for several, and for memory that is not aligned. What is here
does not depend on the number of threads either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import torch
from torch.nn.functional import pad

#: Numbers in 64 bytes. Matrices with rows of a multiple of this are aligned wherever they stand in a stack.
_ALIGNED: Final = 16


class SteadyLinear(torch.nn.Linear):
    """`torch.nn.Linear` on aligned memory: zeros fill up the rows of all matrices."""

    members: bool = False

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return values @ weight.T + bias, (..., outputs), of (..., inputs); with the members in front of all."""
        more_inputs, more_outputs = -self.in_features % _ALIGNED, -self.out_features % _ALIGNED
        lead = len(values) if self.members else 1
        rows = values.reshape(lead, -1, self.in_features) if self.members else values.reshape(-1, self.in_features)
        weight: torch.Tensor = self.weight.clone(memory_format=torch.contiguous_format)
        bias: torch.Tensor = weight.new_zeros(weight.shape[:-1]) if self.bias is None else self.bias
        if more_inputs:
            rows, weight = pad(rows, (0, more_inputs)), pad(weight, (0, more_inputs))
        if more_outputs:
            weight, bias = pad(weight, (0, 0, 0, more_outputs)), pad(bias, (0, more_outputs))
        apply = cast(Callable[..., torch.Tensor], _Affine.apply)
        products = apply(rows, weight, bias)
        if more_outputs:
            products = products[..., : self.out_features]
        return products.reshape(*values.shape[:-1], self.out_features)


class _Affine(torch.autograd.Function):
    """Rows @ weight.T + bias with gradients that lie in memory as the weights do."""

    @staticmethod
    def forward(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Return (..., B, outputs) of rows (..., B, inputs), weight (..., outputs, inputs), bias (..., outputs)."""
        if rows.ndim == 3:
            return torch.baddbmm(bias.unsqueeze(-2), rows, weight.mT)
        return rows @ weight.mT + bias.unsqueeze(-2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        to_rows = gradient @ weight if ctx.needs_input_grad[0] else None
        return to_rows, gradient.mT @ rows, gradient.sum(-2)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Put the members in front; `forward` and `backward` take any leading dimensions."""
        apply = cast(Callable[..., torch.Tensor], _Affine.apply)
        return apply(*_members_first(info, in_dims, inputs)), 0


def _members_first(
    info: Any, in_dims: tuple[int | None, ...], tensors: tuple[torch.Tensor, ...]
) -> list[torch.Tensor]:
    """Put the mapped dimension of each tensor in front; what is shared is repeated."""
    return [
        tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip(tensors, in_dims, strict=True)
    ]


class _Normalise(torch.autograd.Function):
    """Batch normalisation by a batch's own mean and variance, its derivative in closed form.

    Source: Ioffe and Szegedy, "Batch normalization" (2015), section 3.
    """

    @staticmethod
    def forward(
        values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, ...]:
        """Return result and standardised values (..., B, channels), mean, variance and scale (..., 1, channels)."""
        mean = values.mean(-2, keepdim=True)
        standard = values - mean
        variance = standard.square().mean(-2, keepdim=True)
        spread = torch.rsqrt(variance + eps)
        standard = standard.mul_(spread)
        result = torch.addcmul(bias.unsqueeze(-2), standard, weight.unsqueeze(-2))
        return result, standard, mean, variance, spread * weight.unsqueeze(-2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
        _, standard, mean, variance, scale = output
        ctx.mark_non_differentiable(standard, mean, variance, scale)
        ctx.save_for_backward(standard, scale)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, *_: None) -> tuple[torch.Tensor | None, ...]:
        standard, scale = ctx.saved_tensors
        count = standard.shape[-2]
        to_bias = gradient.sum(-2, keepdim=True)
        to_weight = (gradient * standard).sum(-2, keepdim=True)
        centred = torch.addcmul(gradient, standard, to_weight, value=-1 / count).sub_(to_bias, alpha=1 / count)
        return centred.mul_(scale), to_weight.squeeze(-2), to_bias.squeeze(-2), None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *inputs: Any
    ) -> tuple[tuple[torch.Tensor, ...], tuple[int, ...]]:
        """Put the members in front; `forward` and `backward` take any leading dimensions."""
        values, weight, bias = _members_first(info, in_dims[:3], inputs[:3])
        return _normalise(values, weight, bias, inputs[3]), (0, 0, 0, 0, 0)


def _normalise(
    values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
) -> tuple[torch.Tensor, ...]:
    apply = cast(Callable[..., tuple[torch.Tensor, ...]], _Normalise.apply)
    return apply(values, weight, bias, eps)


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
        if not self.training:
            scale = (self.weight * torch.rsqrt(self.running_var + self.eps)).unsqueeze(-2)
            return torch.addcmul(self.bias.unsqueeze(-2), values - self.running_mean.unsqueeze(-2), scale)
        result, _, mean, variance, _ = _normalise(values, self.weight, self.bias, self.eps)
        self._follow(mean.squeeze(-2), variance.squeeze(-2), values.shape[-2])
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
