from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest

from gploss.registry import Registry, discover
from tests.typed import typed


def test_entries_come_back_by_name_in_the_order_of_registration() -> None:
    registry: Registry[object] = Registry("thing")
    first, second = object(), object()
    assert registry.register("b", first) is first
    registry.register("a", second)
    assert registry.names() == tuple(registry) == ("b", "a")
    assert list(registry.items()) == [("b", first), ("a", second)]
    assert registry["a"] is second
    assert len(registry) == 2
    assert "a" in registry and "c" not in registry and 3 not in registry


def test_a_name_of_gplosss_own_is_never_taken_over() -> None:
    registry: Registry[list[int]] = Registry("thing")
    present = registry.register("a", [])
    registry.protect(["a"])
    assert registry.register("a", []) is present
    with pytest.raises(ValueError, match="'a' is taken by another thing"):
        registry.register("a", [1])
    assert registry["a"] is present and registry.removals == 0
    registry.unregister("a")
    assert registry.register("a", [1]) == [1]


CELL = """
def helper(x): return x * {}
class Thing:
    factor = {}
    def run(self, x): return helper(x) * self.factor
"""


def test_a_cell_that_is_run_again_registers_nothing_new() -> None:
    registry: Registry[type] = Registry("thing")
    first = registry.register("a", typed(CELL.format(1, 2))["Thing"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = registry.register("a", typed(CELL.format("1  # as before", 2))["Thing"])
    assert again is first and registry.removals == 0


@pytest.mark.parametrize("numbers", [(1, 3), (2, 2)])
def test_a_cell_that_was_changed_replaces_and_says_so(numbers: tuple[int, int]) -> None:
    registry: Registry[type] = Registry("thing")
    registry.register("a", typed(CELL.format(1, 2))["Thing"])
    registry.register("b", object)
    with pytest.warns(UserWarning, match="thing 'a' is replaced"):
        other = registry.register("a", typed(CELL.format(*numbers))["Thing"])
    assert registry["a"] is other and registry.names() == ("a", "b") and registry.removals == 1


def test_an_unknown_name_gets_the_choices() -> None:
    registry: Registry[int] = Registry("thing")
    with pytest.raises(LookupError, match=r"no thing is named 'a'.*none is registered"):
        registry["a"]
    registry.register("b", 1)
    registry.register("c", 2)
    with pytest.raises(LookupError, match="choose from: b, c"):
        registry["a"]


def test_a_falsy_entry_is_an_entry() -> None:
    registry: Registry[int] = Registry("thing")
    registry.register("zero", 0)
    assert registry["zero"] == 0
    assert "zero" in registry


def test_a_name_is_free_again_after_removal() -> None:
    registry: Registry[int] = Registry("thing")
    registry.register("a", 1)
    assert registry.removals == 0
    registry.unregister("a")
    assert "a" not in registry
    assert registry.removals == 1
    registry.register("a", 2)
    assert registry["a"] == 2
    with pytest.raises(LookupError, match="choose from: a"):
        registry.unregister("b")
    assert registry.removals == 1


def test_discover_imports_every_module_of_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "found_package"
    package.mkdir()
    (package / "__init__.py").write_text("SEEN = []\n")
    for name in ("one", "two"):
        (package / f"{name}.py").write_text(f"from found_package import SEEN\n\nSEEN.append({name!r})\n")
    monkeypatch.syspath_prepend(tmp_path)
    discover("found_package")
    discover("found_package")
    assert sorted(sys.modules["found_package"].SEEN) == ["one", "two"]
    (package / "broken.py").write_text("import nothing_of_that_name\n")
    with pytest.raises(ImportError, match="nothing_of_that_name"):
        discover("found_package")
    with pytest.raises(ImportError, match="absent_package"):
        discover("absent_package")


def test_discovered_entries_are_kept_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "things_package"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from gploss.registry import Registry, discover\n"
        "THINGS = Registry('thing')\n"
        "from things_package import one\n"
        "discover(__name__, THINGS)\n"
    )
    (package / "one.py").write_text("from things_package import THINGS\nTHINGS.register('one', 1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    discover("things_package")
    things = sys.modules["things_package"].THINGS
    things.register("mine", 2)
    discover("things_package", things)
    with pytest.raises(ValueError, match="'one' is taken"):
        things.register("one", 3)
    with pytest.warns(UserWarning, match="'mine' is replaced"):
        things.register("mine", 3)
    assert [one.name for one in things.own()] == ["mine"]


def test_of_two_entries_of_one_name_the_later_one_is_taken_up() -> None:
    here: Registry[int] = Registry("thing")
    there: Registry[int] = Registry("thing")
    here.register("a", 1)
    old = here.own()
    there.receive(old)
    assert there["a"] == 1
    with pytest.warns(UserWarning, match="replaced"):
        here.register("a", 2)
    there.receive(here.own())
    there.receive(old)
    assert there["a"] == 2 and there.removals == 1
