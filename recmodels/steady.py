"""Layers whose results have the same bits wherever in a stack a member stands, for any size of the stack.

torch promises no such thing: its batch normalisation adds up in as many parts as there are threads, and its matrix
products choose other instructions for one matrix than for several, and for memory that is not aligned. What is here
does not depend on the number of threads either.
"""

from __future__ import annotations

from typing import Final

import torch
from torch.nn.functional import pad

#: Numbers in 64 bytes. Matrices with rows of a multiple of this are aligned wherever they stand in a stack.
_ALIGNED: Final = 16


class SteadyLinear(torch.nn.Linear):
    """`torch.nn.Linear` on aligned memory: zeros fill up the rows of all matrices."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return values @ weight.T + bias, (..., outputs), of (..., inputs)."""
        more_inputs, more_outputs = -self.in_features % _ALIGNED, -self.out_features % _ALIGNED
        rows = values.reshape(-1, self.in_features)
        weight = self.weight.clone(memory_format=torch.contiguous_format)
        if more_inputs:
            rows, weight = pad(rows, (0, more_inputs)), pad(weight, (0, more_inputs))
        if more_outputs:
            weight = pad(weight, (0, 0, 0, more_outputs))
        products = rows @ weight.T
        if more_outputs:
            products = products[:, : self.out_features]
        if self.bias is not None:
            products = products + self.bias
        return products.reshape(*values.shape[:-1], self.out_features)


class SteadyBatchNorm(torch.nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` in plain sums."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the normalised values, (B, channels); as torch does for other shapes and unusual settings."""
        usual = self.affine and self.track_running_stats and self.momentum is not None
        if not usual or values.ndim != 2 or (self.training and len(values) < 2):
            return super().forward(values)
        assert self.running_mean is not None and self.running_var is not None
        mean, variance = self._measure(values) if self.training else (self.running_mean, self.running_var)
        return torch.addcmul(self.bias, values - mean, self.weight * torch.rsqrt(variance + self.eps))

    def _measure(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and variance of a batch, (channels,) each, and move the running ones towards them."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        mean = values.mean(0)
        variance = (values - mean).square().mean(0)
        with torch.no_grad():
            unbiased = variance * (len(values) / (len(values) - 1))
            self.num_batches_tracked.add_(1)
            self.running_mean.mul_(1 - self.momentum).add_(mean, alpha=self.momentum)
            self.running_var.mul_(1 - self.momentum).add_(unbiased, alpha=self.momentum)
        return mean, variance


def make_steady(module: torch.nn.Module) -> None:
    """Turn torch's own layers into steady ones, in place; parameters, buffers and hooks stay."""
    for part in module.modules():
        if type(part) is torch.nn.Linear:
            part.__class__ = SteadyLinear
        elif type(part) is torch.nn.BatchNorm1d:
            part.__class__ = SteadyBatchNorm
