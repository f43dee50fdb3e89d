"""Kernels on disk are trusted code: their owner alone can have written them, and damaged ones are compiled anew."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from gploss.compute.cpu import import_source
from gploss.compute.kernel_files import KernelError

SOURCE = "from numba import njit\n\n@njit(cache=True)\ndef double(x):\n    return 2 * x\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPLOSS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kernels"


def load() -> ModuleType:
    """As another process does: nothing of the module is left in this one."""
    module = import_source("gploss_test", SOURCE, "nothing")
    del sys.modules[module.__name__]
    return module


def was_compiled(module: ModuleType) -> bool:
    assert module.double(21) == 42
    return sum(module.double.stats.cache_hits.values()) == 0


def test_a_kernel_is_compiled_once_in_a_folder_of_its_owners(folder: Path) -> None:
    module = load()
    assert was_compiled(module) and not was_compiled(load())
    assert {path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir())} == {0o700}
    assert module.double(2.5) == 5.0
    assert not was_compiled(load())


def _flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[: len(content) // 2],
    "one bit": _flipped,
    "something else": lambda content: b"cos\nsystem\n(S'touch /tmp/owned'\ntR.",
}


@pytest.mark.parametrize("ending", ["nbi", "nbc", "py"])
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_not_looked_into(folder: Path, name: str, ending: str) -> None:
    assert was_compiled(load())
    (path,) = folder.rglob(f"*.{ending}")
    path.write_bytes(DAMAGES[name](path.read_bytes()))
    assert was_compiled(load()) or ending == "py"  # a source is written anew, to the byte
    assert not was_compiled(load())
    assert (next(folder.glob("*")) / f"{load().__name__}.py").read_text() == SOURCE


def test_pythons_own_compiled_files_are_not_used(folder: Path) -> None:
    load()
    assert not list(folder.rglob("*.pyc"))


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
@pytest.mark.parametrize("mode", [0o777, 0o720, 0o702])
def test_a_folder_that_others_can_write_to_is_refused(folder: Path, mode: int) -> None:
    load()
    for place in (folder, next(folder.iterdir())):
        place.chmod(mode)
        with pytest.raises(KernelError, match=r"others can write to .* delete it, or set .* GPLOSS_CACHE"):
            load()
        place.chmod(0o700)
    load()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="files have no owner")
def test_a_folder_of_another_user_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load()
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(KernelError, match="belongs to another user"):
        load()


#: numba can write beneath GPLOSS_CACHE alone, as where neither HOME nor the package's folder is writable.
ELSEWHERE_NOTHING = """
import os
from numba.core import caching

within = os.environ["GPLOSS_CACHE"]

class OnlyThere(caching.InTreeCacheLocator):
    @classmethod
    def from_function(cls, function, path):
        return super().from_function(function, path) if path.startswith(within) else None

caching.CacheImpl._locator_classes = [OnlyThere]
import torch
import recmodels.metrics
from recmodels.metrics.targets import Targets

assert not os.path.exists(within)
found = recmodels.metrics.evaluate(["auc"], torch.tensor([[2.0, 1.0, 0.5]]), Targets([1, 0, 1]))
assert float(found["auc"][0]) == 0.5 and os.path.exists(within)
print("fine")
"""


def test_metrics_need_no_other_folder_than_the_named_one() -> None:
    done = subprocess.run([sys.executable, "-c", ELSEWHERE_NOTHING], capture_output=True, text=True, timeout=300)
    assert done.stdout == "fine\n", done.stderr
