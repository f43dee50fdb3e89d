"""Sixteen numbers as one value, and tables that begin where they are read fastest."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from recmodels.training.fused.workspace import aligned
from recmodels.training.vectors import (
    LANES,
    bounded,
    load,
    multiply_add,
    spread,
    square_root,
    store,
    total,
    zero_if,
)


@njit
def _all_operations(a: Any, b: Any, out: Any, flag: int) -> None:
    one, two = load(a, 0, 0), load(b, 0, 0)
    store(out, 0, 0, one + two)
    store(out, 1, 0, one - two)
    store(out, 2, 0, one * two)
    store(out, 3, 0, one / two)
    store(out, 4, 0, multiply_add(one, two, spread(np.float32(0.5))))
    store(out, 5, 0, bounded(one, spread(np.float32(1.0))))
    store(out, 6, 0, square_root(two))
    store(out, 7, 0, zero_if(flag, one))
    out[8, 0] = total(one)


def test_vectors_compute_sixteen_numbers_at_once() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 1, LANES)).astype(np.float32)
    b = np.abs(b)
    a[0, 3] = np.nan
    out = np.zeros((9, LANES), np.float32)
    _all_operations(a, b, out, 1)
    expected = [a[0] + b[0], a[0] - b[0], a[0] * b[0], a[0] / b[0], a[0] * b[0] + np.float32(0.5)]
    expected += [np.clip(a[0], -1, 1), np.sqrt(b[0]), np.zeros(LANES)]
    np.testing.assert_allclose(out[:8], expected, rtol=1e-6, atol=1e-7)
    _all_operations(b, b, out, 0)
    np.testing.assert_array_equal(out[7], b[0])
    halves = b[0]
    while len(halves) > 1:
        halves = halves[: len(halves) // 2] + halves[len(halves) // 2 :]
    assert out[8, 0] == halves[0]


def test_tables_begin_where_a_line_of_the_cache_begins() -> None:
    for shape in ((3,), (5, 16), (1, 80)):
        table = aligned(*shape)
        assert table.ctypes.data % 64 == 0
        assert table.shape == shape and not table.any()
