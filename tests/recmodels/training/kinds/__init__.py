"""Kinds of modules that users bring, each in small."""

from __future__ import annotations

from typing import Final

from tests.recmodels.training.kinds import gradients, keeping, layers, models, tables, values
from tests.recmodels.training.kinds.base import Kinds

#: Each file's modules under its heading.
FILES: Final[dict[str, Kinds]] = {
    "Published models": models.kind,
    "Tables, lookups and ids": tables.kind,
    "Layers": layers.kind,
    "Buffers and attributes": keeping.kind,
    "Gradients and hooks": gradients.kind,
    "Values, shapes and types": values.kind,
}
