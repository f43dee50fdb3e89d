"""Sources that numba compiles, cached on disk under a hash of all that they are made of."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import torch

from gploss.compute.cpu import import_source

_VECTORS: Final = Path(__file__).with_name("vectors.py")


def vectors_source() -> str:
    """Return what compiled code depends on where it imports `recmodels.training.vectors`."""
    return _VECTORS.read_text()


@cache
def load_compiled(source: Path) -> ModuleType:
    """Import a file of compiled functions from the cache of compiled kernels.

    numba's own cache would find an old kernel again after `recmodels.training.vectors` has changed.

    Args:
        source: the file; of this project it may import `recmodels.training.vectors` only.

    Raises:
        gploss.compute.cpu.KernelError: the cache folder cannot be written.
    """
    return import_source(f"gploss_{source.stem}", source.read_text(), depends_on=vectors_source())


def flat_array(tensor: torch.Tensor) -> Any:
    """Return a tensor's memory from its first number to its last one, as an array of one dimension."""
    if tensor.is_contiguous():
        return tensor.detach().view(-1).numpy()
    length = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.detach().as_strided((length,), (1,)).numpy()
