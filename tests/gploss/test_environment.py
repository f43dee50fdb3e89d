"""What is recorded of the machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numba
import numpy as np
import pytest
import torch

from gploss import environment
from gploss.environment import versions


def test_the_machine_is_a_json_record() -> None:
    record = environment.environment()
    assert json.loads(json.dumps(record)) == record
    assert set(record) == {"platform", "cpu", "cores", "device"}
    assert isinstance(record["cores"], int)
    assert record["cores"] >= 1
    assert record["device"] == "cpu"
    assert record["cpu"]


def test_versions_are_those_of_the_packages() -> None:
    found = versions()
    assert found["numpy"] == np.__version__
    assert {"python", "gploss", "torch", "numba", "pandas", "deap"} <= set(found)
    assert environment._version("no-such-package-as-this") == "not installed"


def test_cpu_name_comes_from_the_system_or_the_platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nmodel name\t: Abacus 9: fast\n")
    assert environment._cpu_name(cpuinfo) == "Abacus 9: fast"
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "slide rule")
    assert environment._cpu_name(tmp_path / "absent") == "slide rule"


def test_what_numbers_depend_on_is_found_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    base = environment.numbers_depend_on()
    for owner, name, value in (
        (sys, "version_info", SimpleNamespace(major=9, minor=1)),
        (np, "__version__", "0"),
        (torch, "__version__", "0"),
        (numba, "__version__", "0"),
        (torch, "get_float32_matmul_precision", lambda: "medium"),
        (torch, "get_default_dtype", lambda: torch.float64),
        (torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT"),
        (environment.llvm, "get_host_cpu_name", lambda: "abacus"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, value)
            found = environment.numbers_depend_on()
        assert sum(found[field] != base[field] for field in base) == 1
