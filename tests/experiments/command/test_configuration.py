"""Configurations: one strict table for file and command line, written back as it was read."""

from __future__ import annotations

import inspect
import os
import shlex
import tomllib
from pathlib import Path
from typing import Annotated

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from experiments.command import options
from experiments.command.configuration import Configuration, ConfigurationError, read_file
from recmodels.verdict.confirmation import confirm


class Bake(options.RunSettings):
    """What is baked."""

    cakes: Annotated[int, Field(ge=1, description="How many.")] = 3
    share_of_sugar: Annotated[float, Field(description="By weight.")] = 0.5
    fillings: Annotated[tuple[str, ...], Field(description="One after the other.")] = ("plum", "nut")
    no_eggs: Annotated[bool, Field(description="For some guests.")] = False
    recipe: Annotated[Path | None, Field(description="A file.")] = None
    out: options.Out = Path("kitchen")


def read(folder: Path, text: str) -> Bake:
    path = folder / "bake.toml"
    path.write_text(text)
    return Bake.of(*read_file(path))


def test_a_file_gives_values_and_the_rest_are_defaults(tmp_path: Path) -> None:
    settings = read(tmp_path, 'cakes = 5\nshare-of-sugar = 1\nfillings = ["jam"]\nrecipe = "mine.txt"\n')
    assert settings == Bake(cakes=5, share_of_sugar=1.0, fillings=("jam",), recipe=Path("mine.txt"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = 1\ncaks = 3\n", "line 2: no option is named 'caks'; the nearest one is 'cakes'"),
        (
            "share_of_sugar = 1.0\n",
            "line 1: no option is named 'share_of_sugar'; the nearest one is 'share-of-sugar'",
        ),
        ("zzz = 3\n", "line 1: no option is named 'zzz'; options: cakes, "),
        ('# cakes = 1\n\ncakes = "3"\n', 'line 3: cakes is "3"; it should be a valid integer'),
        ("cakes = 3.0\n", "line 1: cakes is 3.0; it should be a valid integer"),
        ("cakes = true\n", "line 1: cakes is true; it should be a valid integer"),
        ("cakes = 0\n", "line 1: cakes is 0; it should be greater than or equal to 1"),
        ("no-eggs = 1\n", "line 1: no-eggs is 1; it should be a valid boolean"),
        ('\nfillings = "jam"\n', 'line 2: fillings is "jam"; it should be a valid array'),
        ('\nfillings = [\n  "jam",\n  3,\n]\n', 'line 2: fillings is ["jam", 3]; it should be a valid string'),
        ("[recipe]\nname = 'x'\n", 'line 1: recipe is {"name": "x"}'),
        ("seed = 1\ncakes = \n", "cannot be read as a configuration in TOML: .*line 2"),
        ("cakes = 1\ncakes = 2\n", "cannot be read as a configuration in TOML: .*overwrite"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match="bake.toml.*" + message.replace("[", r"\[").replace("{", r"\{")):
        read(tmp_path, text)


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"No such file.*absent.toml"):
        read_file(tmp_path / "absent.toml")
    (tmp_path / "bytes.toml").write_bytes(b"seed = \xff")
    with pytest.raises(ConfigurationError, match=r"bytes.toml, line 1: is not in UTF-8"):
        read_file(tmp_path / "bytes.toml")
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(ConfigurationError, match=r"pipe.toml: a regular file is needed, and this is a pipe"):
        read_file(tmp_path / "pipe.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = " + "[" * 5000 + "]" * 5000, "cannot be read as a configuration in TOML: .*recursion"),
        ("recipe." + "a." * 5000 + "b = 1", "line 1: recipe is nested too deeply"),
        ("recipe." + "a." * 50_000 + "b = 1", "is larger than 16 KiB"),
        ("share-of-sugar = nan", "line 1: share-of-sugar is nan: give a finite number"),
        ('recipe = "a\\u0000b"', "line 1: recipe is 'a.x00b', with a character that no name has"),
        ("seed = " + "9" * 5000, "cannot be read as a configuration in TOML: .*digits"),
    ],
)
def test_hostile_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"bake.toml.*{message}"):
        read(tmp_path, text)


def test_messages_are_short_however_long_the_values(tmp_path: Path) -> None:
    long = "x" * 9000
    for text in (f'cakes = "{long}"', f"{long} = 1", f'recipe = "{long}\\u0000"', f'no-eggs = ["{long}"]'):
        with pytest.raises(ConfigurationError, match=r"bake.toml, line 1: .*xxx \.\.\. xxx") as caught:
            read(tmp_path, text)
        assert len(str(caught.value)) < 1500


def test_names_that_are_no_text_are_refused_before_anything_is_done() -> None:
    with pytest.raises(ConfigurationError, match=r"--recipe: recipe is 'a.udcff', which is not in UTF-8"):
        Bake.of({"recipe": os.fsdecode(b"a\xff")}, {"recipe": "--recipe"})
    with pytest.raises(ConfigurationError, match=r"fillings is \['jam', '.udcff'\], which is not in UTF-8"):
        Bake.of({"fillings": ["jam", os.fsdecode(b"\xff")]})


def test_an_option_that_was_typed_is_named_as_typed() -> None:
    with pytest.raises(ConfigurationError, match="--cakes: cakes is 0"):
        Bake.of({"cakes": 0}, {"cakes": "--cakes"})


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)


@hypothesis.settings(deadline=None)  # the first check of a class builds it
@given(
    cakes=st.integers(1),
    sugar=st.floats(allow_nan=False, allow_infinity=False),
    fillings=st.lists(TEXTS, max_size=3),
    eggs=st.booleans(),
    recipe=st.none() | TEXTS.filter(bool),
)
def test_what_is_printed_is_read_back(
    cakes: int, sugar: float, fillings: list[str], eggs: bool, recipe: str | None
) -> None:
    given = {"cakes": cakes, "share-of-sugar": sugar, "fillings": fillings, "no-eggs": eggs, "recipe": recipe}
    settings = Bake.of(given)
    text = settings.as_toml()
    assert Bake.of(tomllib.loads(text)) == settings
    assert Bake.of(settings.values()) == settings
    assert "# How many.\ncakes = " in text


def test_words_are_what_differs_from_the_defaults() -> None:
    assert Bake().as_words() == ""
    settings = Bake(cakes=4, fillings=("plum jam", "nut"), no_eggs=True, seed=2)
    assert shlex.split(settings.as_words()) == [
        "--cakes",
        "4",
        "--fillings",
        "plum jam,nut",
        "--no-eggs",
        "--seed",
        "2",
    ]
    off = type("Off", (Bake,), {"__annotations__": {"no_eggs": bool}, "no_eggs": True, "__module__": __name__})
    assert off.of({"no-eggs": False}).as_words() == "--eggs"


def test_sections_are_the_classes_with_the_own_one_first() -> None:
    assert list(Bake.sections()) == ["Options", "The run"]
    assert Bake.sections()["Options"][-1] == "out" and "out" not in Bake.sections()["The run"]
    assert issubclass(Bake, Configuration)


def test_a_verdict_in_code_and_one_on_the_command_line_are_one() -> None:
    defaults = {name: one.default for name, one in inspect.signature(confirm).parameters.items()}
    settings = options.JudgeSettings()
    assert defaults["tuning_seeds"] == settings.tuning_seeds == 3
    assert defaults["fresh_seeds"] == settings.tests == 10
    assert defaults["finalists"] == settings.finalists == 1
    assert defaults["seed"] == settings.seed == 0
