"""The campaign in small, without kills: its trials find nothing, and it notices what it is there for."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.torture import files, formulas, guard
from tests.torture.tally import table


def test_hostile_formulas_do_nothing() -> None:
    outcomes = {formulas.trial(seed) for seed in range(900)}
    assert outcomes == {"read", "refused"}


@pytest.mark.parametrize("kind", files.KINDS)
def test_damaged_files_are_refused_or_read(kind: str, tmp_path: Path) -> None:
    trial = files.trial_of(files.KINDS[kind], tmp_path)
    assert {trial(seed) for seed in range(15)} <= {"read", "refused"}


def test_what_must_not_be_is_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    def trial(seed: int) -> str:
        if seed == 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        if seed == 2:
            time.sleep(30)
        if seed == 3:
            raise ZeroDivisionError
        if seed == 4:
            with guard.watched():
                os.system("true")
        if seed == 5:
            raise guard.Wrong("other content")
        return "well"

    tally = guard.campaign("toys", trial, 20, seconds=0.3, workers=2, chunk=10)
    faults = ("kills its process", "hangs", "ZeroDivisionError", "does what it must not", "wrong")
    assert tally.outcomes == {"well": 15} | {f"FAULT: {name}": 1 for name in faults}
    assert all(f"seed {seed}" in " ".join(tally.faults) for seed in range(1, 6))
    assert "| toys | 20 | well 15, FAULT" in table([tally])
    assert capsys.readouterr().out.count("FAULT in toys") == 5
