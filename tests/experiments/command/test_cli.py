"""The command line as a whole: what is listed, how errors and interruptions end, and that help is light."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from types import NoneType
from typing import get_args

import pytest

from experiments.command import registry
from experiments.command.cli import main
from tests.documents import PROJECT
from tests.experiments.conftest import Gploss

COMMANDS = ["ablate", "autolossgen", "bench", "compare", "data", "improve", "losses", "scale", "transfer"]


def test_all_commands_are_listed_with_their_summaries(gploss: Gploss) -> None:
    outcome = gploss("--help")
    assert outcome.code == 0 and sorted(registry.declared()) == COMMANDS
    for name in COMMANDS:
        summary = registry.declared()[name].summary
        assert name in outcome.out and summary.split()[0] in outcome.out
    assert gploss().out == outcome.out


def test_help_imports_nothing_that_trains() -> None:
    code = "from experiments.command.cli import main; import sys; main(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "numba", "pandas", "gploss", "recmodels"} & set(
        done.stdout.splitlines()[-1].split()
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_defaults(gploss: Gploss, name: str) -> None:
    outcome = gploss(name, "--help")
    assert outcome.code == 0
    command = registry.load(name)
    assert (command.run.__doc__ or "").startswith(command.declared.summary) and command.declared.summary
    for option in command.configuration.options():
        assert f"--{option}" in outcome.out
    assert "[default:" in outcome.out or not command.configuration.options()


def test_an_option_means_the_same_in_every_command() -> None:
    meanings: dict[str, set[str]] = {}
    for name in registry.declared():
        for field, info in registry.load(name).configuration.model_fields.items():
            assert info.description, f"{field} of {name} has no meaning"
            kinds = {*get_args(info.annotation)} - {NoneType} or {info.annotation}  # None: found elsewhere
            meanings.setdefault(field, set()).add(f"{kinds}: {info.metadata}: {info.description}")
    assert {field: texts for field, texts in meanings.items() if len(texts) > 1} == {}


def test_configurations_are_printed_and_read(gploss: Gploss, tmp_path: Path) -> None:
    first = gploss("compare", "--budget", "7", "--print-config")
    assert first.code == 0 and tomllib.loads(first.out)["budget"] == 7
    (tmp_path / "run.toml").write_text(first.out)
    second = gploss("compare", "--config", tmp_path / "run.toml", "--seeds", "2", "--print-config")
    assert tomllib.loads(second.out) == tomllib.loads(first.out) | {"seeds": 2}
    (tmp_path / "run.toml").write_text("budget = 7\nbugdet = 8\n")
    wrong = gploss("compare", "--config", tmp_path / "run.toml")
    assert (wrong.code, wrong.out) == (1, "")
    line = f"Error: {tmp_path}/run.toml, line 2: no option is named 'bugdet'; the nearest one is 'budget'\n"
    assert wrong.errors == line


def test_an_unknown_command_names_the_nearest_one(gploss: Gploss) -> None:
    outcome = gploss("comparison")
    assert outcome.code == 1 and outcome.errors.count("\n") == 1
    assert "no command is named 'comparison'; the nearest one is 'compare'" in outcome.errors


def test_ctrl_c_ends_a_run_and_all_its_workers(ratings: Path, tmp_path: Path) -> None:
    words = ["compare", "--dataset", str(ratings), "--budget", "100000", "--seeds", "2", "--jobs", "2"]
    code = "import sys; from experiments.command.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *words, "--out", str(tmp_path / "out")]
    with subprocess.Popen(
        command, cwd=PROJECT, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        runs = tmp_path / "out" / "runs"
        deadline = time.monotonic() + 300  # kernels may have to be compiled
        while not (runs.is_dir() and len(list(runs.glob("*.sqlite"))) == 2):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1].startswith("Error: interrupted; --resume goes on")
    assert json.loads((tmp_path / "out/run.json").read_text())["state"] == "interrupted"


def test_what_is_known_by_name_is_listed(gploss: Gploss) -> None:
    losses, data = gploss("losses"), gploss("data")
    assert (losses.code, data.code) == (0, 0)
    for text in ("bce", "(y - sigmoid(s))**2", "Brier, 1950"):
        assert text in losses.out
    for text in ("ml-100k", "no redistribution", "GroupLens", "synthetic", "MIT"):
        assert text in data.out


def test_scripts_are_the_same_commands() -> None:
    script = PROJECT / "experiments" / "find_better.py"
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    command = [sys.executable, str(script), "--budget", "7", "--print-config"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert tomllib.loads(done.stdout)["budget"] == 7 and tomllib.loads(done.stdout)["population"] == 100


def test_the_installed_command_is_there_as_a_module() -> None:
    command = [sys.executable, "-m", "gploss", "--help"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    assert "compare" in done.stdout


def test_errors_of_the_program_itself_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object) -> None:
        raise KeyError("a look-up that the program got wrong")

    monkeypatch.setattr(registry, "load", wrong)
    with pytest.raises(KeyError):
        main(["compare"])


def test_bytes_of_a_damaged_file_tell_a_terminal_nothing(gploss: Gploss, tmp_path: Path) -> None:
    (tmp_path / "losses.txt").write_bytes(b"square(\x1b]0;title\x07\x1b[2J)\n")
    outcome = gploss(
        "improve", "--dataset", "synthetic", "--start-with", tmp_path / "losses.txt", "--out", tmp_path
    )
    assert outcome.code == 1 and outcome.errors.startswith("Error: ")
    assert outcome.errors.endswith("\n") and outcome.errors.rstrip("\n").isprintable()


def test_a_name_that_no_file_can_have_is_named(gploss: Gploss) -> None:
    outcome = gploss("compare", "--dataset", "x" * 5000)
    assert outcome.code == 1 and len(outcome.errors) < 2000
    assert outcome.errors.startswith('Error: --dataset: dataset is "xxx')
