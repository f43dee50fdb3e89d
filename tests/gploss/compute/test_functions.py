"""Functions that kernels compute without calling the system's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import njit

from gploss.compute.cpu import load_kernels
from gploss.compute.tables import Tables
from gploss.tasks.pointwise import POINTWISE


@pytest.mark.parametrize(("name", "units"), [("exp", 1.5), ("log", 1.5), ("tanh", 2.0)])
def test_single_precision_functions_are_accurate_everywhere(name: str, units: float) -> None:
    function = getattr(load_kernels("float32", Tables.of(POINTWISE)), name)

    @njit(error_model="numpy")
    def compute(values: Any, results: Any) -> None:
        for i in range(values.shape[0]):
            results[i] = function(values[i])

    bits = np.arange(0, 2**32, 1009, dtype=np.uint64).astype(np.uint32)
    special = np.array(
        [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1.17549435e-38, 88.72284, -103.97], np.float32
    )
    values = np.concatenate([bits.view(np.float32), special])
    found = np.empty_like(values)
    compute(values, found)
    with np.errstate(all="ignore"):
        exact = getattr(np, name)(values.astype(np.float64))
        rounded = exact.astype(np.float32)
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(found[~finite], rounded[~finite])
    errors = np.abs(found[finite] - exact[finite]) / np.spacing(np.abs(rounded[finite]))
    assert errors.max() < units
