from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gploss.registry import Registry, discover


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


def test_a_name_is_never_taken_over() -> None:
    registry: Registry[list[int]] = Registry("thing")
    present = registry.register("a", [])
    registry.register("a", present)
    with pytest.raises(ValueError, match="'a' is taken by another thing"):
        registry.register("a", [])  # equal, but not the same
    assert registry["a"] is present


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
