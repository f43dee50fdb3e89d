"""The project as a whole: packages, public names, pinned versions, and imports that go one way."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.documents import PROJECT

PACKAGES = ("gploss", "rl", "recmodels")
#: Of the project's own packages, those that each may import.
MAY_IMPORT = {"gploss": {"gploss"}, "rl": {"rl", "gploss"}, "recmodels": {"recmodels", "gploss"}}
SETTINGS = tomllib.loads((PROJECT / "pyproject.toml").read_text())


def source_files() -> dict[str, Path]:
    """Every module of the packages by its dotted name."""
    files = {}
    for package in PACKAGES:
        for path in (PROJECT / package).rglob("*.py"):
            parts = path.relative_to(PROJECT).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


MODULES = source_files()


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Modules of the project that a file imports, and whether it does so at its top level."""
    tree = ast.parse(path.read_text())
    at_top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: imports are absolute"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in inner]
        else:
            continue
        for name in dict.fromkeys(names):
            if name.partition(".")[0] in PACKAGES:
                yield name, id(node) in at_top


def test_packages_are_all_listed() -> None:
    found = {".".join(path.relative_to(PROJECT).parent.parts) for path in MODULES.values()}
    assert set(SETTINGS["tool"]["setuptools"]["packages"]) == found


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_marked_as_typed(package: str) -> None:
    assert (PROJECT / package / "py.typed").exists()


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_exist_and_are_documented(package: str) -> None:
    module = importlib.import_module(package)
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        thing = getattr(module, name)
        own = isinstance(thing, type) or type(thing).__name__ == "function"
        assert not own or thing.__doc__, f"{package}.{name} has no docstring"


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_imports_alone(package: str) -> None:
    allowed = MAY_IMPORT[package]
    code = f"import sys, {package}; print(*sorted(set({PACKAGES!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) <= allowed


@pytest.mark.parametrize("module", MODULES)
def test_imports_stay_within_bounds(module: str) -> None:
    for imported, at_top in imports(MODULES[module]):
        assert at_top, f"{module} defers the import of {imported}"
        assert imported.partition(".")[0] in MAY_IMPORT[module.partition(".")[0]], f"{module} imports {imported}"
        # What a package's __init__ exports is for users: modules import from where things are.
        assert imported not in PACKAGES, f"{module} imports from {imported}'s public names"


def test_imports_go_one_way() -> None:
    graph = {name: {imported for imported, _ in imports(path)} for name, path in MODULES.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, with the cycle


def test_nothing_is_evaluated_or_unpickled() -> None:
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "__import__"}, f"{module}, line {node.lineno}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & {"pickle", "cPickle", "dill", "cloudpickle"}, f"{module}, line {node.lineno}"


def pinned() -> dict[str, Version]:
    lines = (PROJECT / "constraints.txt").read_text().splitlines()
    rows = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pins: dict[str, Version] = {}
    for row in rows:
        (pin,) = row.specifier
        assert pin.operator == "==" and row.url is None
        assert canonicalize_name(row.name) not in pins, f"{row.name} stands there twice"
        pins[canonicalize_name(row.name)] = Version(pin.version)
    return pins


def test_every_requirement_is_pinned_to_a_version_that_it_allows() -> None:
    pins = pinned()
    project = SETTINGS["project"]
    for text in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        requirement = Requirement(text)
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, text


def test_pins_name_no_build() -> None:
    assert not [name for name, version in pinned().items() if version.local]
    assert pinned()["torch"] == Version("2.13.0")


def test_versions_agree() -> None:
    version = SETTINGS["project"]["version"]
    assert re.search(rf"^## {re.escape(version)}", (PROJECT / "CHANGELOG.md").read_text(), re.MULTILINE)
    oldest = SpecifierSet(SETTINGS["project"]["requires-python"])
    assert "3.11" in oldest and "3.10" not in oldest
    assert "sys.version_info < (3, 11)" in (PROJECT / "Makefile").read_text()
