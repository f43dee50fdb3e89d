"""Run folders: nothing is lost unasked, one process at a time, and run.json tells the whole story."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from experiments.command.folder import FolderError, Interrupted, Mode, Record, RunFolder
from gploss.report.page import Page, Section, Table

DATA = {"cakes": {"name": "cakes, as baked", "content_hash": "abc"}}


def folder(path: Path, mode: Mode = Mode.NEW, command: str = "bake") -> RunFolder:
    return RunFolder(path, Record(command, f"{command} --cakes 3", {"cakes": 3}), mode)


def bake(path: Path, mode: Mode = Mode.NEW, names: tuple[str, ...] = ("cake.txt", "runs/inner.txt")) -> None:
    run = folder(path, mode)
    with run.open(DATA):
        for name in names:
            run.file(name).write_text("cake")


def content(path: Path) -> dict[str, bytes]:
    return {str(one.relative_to(path)): one.read_bytes() for one in path.rglob("*") if one.is_file()}


def test_the_record_has_all_that_was_asked_and_how_it_ended(tmp_path: Path) -> None:
    run = folder(tmp_path / "out")
    assert not (tmp_path / "out").exists(), "nothing is made before the run begins"
    with run.open(DATA):
        during = json.loads((tmp_path / "out/run.json").read_text())
        assert (during["state"], during["process"]) == ("running", os.getpid())
        run.file("cake.txt").write_text("cake")
        run.note(eggs=4)
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert set(record) == {
        "version", "command", "words", "configuration", "environment", "versions", "data", "state", "process",
        "times", "files", "details",
    }  # fmt: skip
    assert record["state"] == "finished" and record["configuration"] == {"cakes": 3} and record["data"] == DATA
    assert record["files"] == ["cake.txt"] and record["details"] == {"eggs": 4}
    (session,) = record["times"]
    assert session["started"] <= session["ended"]


def test_a_second_run_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    bake(tmp_path / "out")
    before = content(tmp_path / "out")
    with pytest.raises(
        FolderError, match=r"holds a run of `gploss bake` \(finished\).*--resume.*--overwrite.*--out"
    ):
        folder(tmp_path / "out")
    with pytest.raises(FolderError, match=r"holds a run of `gploss bake`, which `gploss fry` cannot resume"):
        folder(tmp_path / "out", Mode.RESUME, "fry")
    assert content(tmp_path / "out") == before


def test_overwriting_deletes_what_gploss_made_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    bake(out, names=("cake.txt", "runs/inner.sqlite", "old/one.txt"))
    for name in ("notes.txt", "runs/mine.sqlite", "cake.txt.bak"):
        (out / name).write_text("mine")
    (out / "runs/inner.sqlite-journal").write_text("left over by a killed process")
    bake(out, Mode.OVERWRITE, names=("other.txt",))
    assert set(content(out)) == {"run.json", ".lock", "notes.txt", "runs/mine.sqlite", "cake.txt.bak", "other.txt"}
    assert not (out / "old").exists()


def test_resuming_keeps_files_and_adds_a_session(tmp_path: Path) -> None:
    bake(tmp_path)
    bake(tmp_path, Mode.RESUME, names=("cake.txt", "more.txt"))
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["files"] == ["cake.txt", "runs/inner.txt", "more.txt"] and len(record["times"]) == 2
    changed = folder(tmp_path, Mode.RESUME)
    before = content(tmp_path)
    with (
        pytest.raises(FolderError, match=r"run on other data named 'cakes' .hash abc, now xyz"),
        changed.open({"cakes": {"content_hash": "xyz"}}),
    ):
        pass
    assert content(tmp_path) == before


@pytest.mark.parametrize("mode", list(Mode))
def test_folders_with_foreign_files_are_refused_and_kept(tmp_path: Path, mode: Mode) -> None:
    (tmp_path / "summary.md").write_text("of an older version, or of somebody else")
    with pytest.raises(FolderError, match=r"holds summary.md but no run.json"):
        folder(tmp_path, mode)
    assert content(tmp_path) == {"summary.md": b"of an older version, or of somebody else"}


def test_a_foreign_file_is_never_written_over(tmp_path: Path) -> None:
    run = folder(tmp_path)
    with pytest.raises(FolderError, match=r"cake.txt was not made by gploss"), run.open(DATA):
        (tmp_path / "cake.txt").write_text("mine")
        run.file("cake.txt")
    assert (tmp_path / "cake.txt").read_text() == "mine"
    assert json.loads((tmp_path / "run.json").read_text())["state"] == "failed"
    bake(tmp_path / "sub")  # a run that made nothing is no obstacle
    (tmp_path / "cake.txt").unlink()
    bake(tmp_path)


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize(
    ("record", "message"),
    [
        ('{"version": 0}', "is of version 0, this gploss writes version 1"),
        ('{"version": 1}', "is damaged or no record"),
        ("[]", "is damaged or no record"),
        ("{", "is damaged or no record"),
    ],
)
def test_records_that_cannot_be_understood_are_refused(
    tmp_path: Path, record: str, message: str, mode: Mode
) -> None:
    (tmp_path / "run.json").write_text(record)
    with pytest.raises(FolderError, match=rf"run.json {message}.*--out"):
        folder(tmp_path, mode)


def test_a_record_cannot_make_files_elsewhere_disappear(tmp_path: Path) -> None:
    bake(tmp_path / "out")
    (tmp_path / "precious.txt").write_text("mine")
    record = json.loads((tmp_path / "out/run.json").read_text())
    (tmp_path / "out/run.json").write_text(json.dumps(record | {"files": ["../precious.txt"]}))
    with pytest.raises(FolderError, match="names a file outside of the folder"):
        bake(tmp_path / "out", Mode.OVERWRITE)
    assert (tmp_path / "precious.txt").exists()


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(FolderError, match="out is a file, not a folder: choose another --out"):
        folder(tmp_path / "out")
    with pytest.raises(FolderError, match="cannot be written"), folder(tmp_path / "out" / "inner").open(DATA):
        pass
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FolderError, match="cannot be written"), folder(tmp_path / "out").open(DATA):
        pass


def test_interruptions_and_failures_are_recorded(tmp_path: Path) -> None:
    with (
        pytest.raises(Interrupted, match=f"--resume goes on with the run in {tmp_path}"),
        folder(tmp_path).open(DATA),
    ):
        raise KeyboardInterrupt
    assert json.loads((tmp_path / "run.json").read_text())["state"] == "interrupted"
    with pytest.raises(ZeroDivisionError), folder(tmp_path, Mode.RESUME).open(DATA):
        raise ZeroDivisionError
    assert json.loads((tmp_path / "run.json").read_text())["state"] == "failed"


def test_a_run_killed_before_its_record_was_there_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            "pathlib.Path.replace", lambda *_: os._exit(9)
        )  # what comes after the file under its own name
        process = os.fork()
        if not process:
            with folder(tmp_path).open(DATA):
                pass
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9
    left = {path.name for path in tmp_path.iterdir()}
    assert len(left) == 2 and ".lock" in left and not (tmp_path / "run.json").exists()
    bake(tmp_path, Mode.RESUME)
    assert json.loads((tmp_path / "run.json").read_text())["state"] == "finished"


def test_the_record_of_this_release_is_read(tmp_path: Path) -> None:
    """A file that was written once, and is kept as it is: another format needs another version."""
    content = (Path(__file__).parent / "released/run-1.json").read_bytes()
    (tmp_path / "run.json").write_bytes(content)
    record = Record.of(tmp_path)
    assert record is not None
    assert (record.command, record.state, record.process) == ("bake", "interrupted", 4711)
    assert record.configuration == {"cakes": 3, "out": "results"} and record.data == DATA
    assert record.files == ["cake.txt", "runs/inner.sqlite"] and record.details == {"eggs": 4}
    record.write(tmp_path)
    assert (tmp_path / "run.json").read_bytes() == content


HOLDER = """
import sys, time
from pathlib import Path
from experiments.command.folder import Mode, Record, RunFolder

run = RunFolder(Path(sys.argv[1]), Record("bake", "bake", {}), Mode.NEW)
with run.open({}):
    run.file("cake.txt").write_text("half a cake")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_told_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    project = Path(__file__).parents[3]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=project, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "ready\n"
        for mode in Mode:
            with pytest.raises(FolderError, match=f"is in use by process {holder.pid}"):
                folder(tmp_path, mode)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with pytest.raises(FolderError, match="cut off"):
        folder(tmp_path)
    bake(tmp_path, Mode.RESUME)


def test_a_page_is_saved_with_command_and_machine(tmp_path: Path) -> None:
    run = folder(tmp_path)
    with run.open(DATA):
        run.save(Page("Cakes", "They rose.", [Section("All", [Table(pd.DataFrame({"cake": ["plum"]}))])]))
    text = (tmp_path / "summary.md").read_text()
    assert text.startswith("# Cakes\n\nThey rose.\n") and "`gploss bake --cakes 3`" in text and "numpy: " in text
