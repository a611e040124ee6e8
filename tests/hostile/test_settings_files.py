"""Tests that any settings file is read or refused with a code: its size and depth are limited before it is parsed."""

from __future__ import annotations

import tomllib
from pathlib import Path
from random import Random
from typing import Any

import pytest

from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.settings import MAX_BYTES, MAX_LEVELS, SETTING_NAMES, Settings, check_levels
from tests.hostile.projects import BRACKETS, VALUES, hostile_text

FEW, MANY = 500, 10_000


def refused(folder: Path, data: bytes) -> str:
    """Returns the code that refuses the settings; empty if they are valid."""
    (folder / "orchestra.toml").write_bytes(data)
    try:
        settings = Settings.load(start=folder, environ={"HOME": str(folder)}, trusted="recorded")
        settings.resources("agents")
    except OrchestraError as error:
        return str(error).partition(":")[0]
    return ""


@pytest.mark.parametrize(
    "seeds", [range(FEW), pytest.param(range(FEW, MANY), marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_settings_file_is_read_or_refused_with_a_code(seeds: range, tmp_path: Path) -> None:
    codes = {refused(tmp_path, hostile_text(Random(seed))) for seed in seeds}
    assert codes == {"", "C001", "C002", "C003", "C006", "C050"}


@pytest.mark.parametrize("key", SETTING_NAMES)
def test_setting_accepts_or_refuses_each_value(key: str, tmp_path: Path) -> None:
    assert {refused(tmp_path, f"{key} = {given}".encode()) for given in VALUES} <= {"", "C002", "C003", "C006", "C050"}


def levels(value: Any) -> int:
    """Returns the depth of a value in TOML terms: an array of tables counts as its tables."""
    if isinstance(value, dict):
        return max((1 + levels(inner) for inner in value.values()), default=0)
    if isinstance(value, list):
        return max((1 + levels(inner) for inner in value), default=0)
    return 0


NOISE = (
    "'''b''''",
    '"""b""""',
    '"[[["',
    "'{{{'",
    '"""a"""""',
    "'''b'''''",
    '"\\""',
    '"""\\""" [[["""',
    "1.5",
    "1979-05-27",
    '"a.b.c"',
    "'\\'",
)
NAMES = ("a", '"a.b.c"', "'[x]'", "b-c", '"\\"["')


def keys(chance: Random, number: int) -> str:
    """Returns a dotted key."""
    return chance.choice((".", " . ")).join(chance.choice(NAMES) for _ in range(number))


def value(chance: Random, deep: int) -> str:
    """Returns a value of exactly this depth: arrays, and inline tables with dotted keys."""
    if not deep:
        return chance.choice(NOISE)
    if chance.random() < 0.5:
        before = chance.choice(("", " # [[{{.\n", "1.5, ", f"{chance.choice(NOISE)}, "))
        return f"[{before}{value(chance, deep - 1)}]"
    dots = chance.randint(1, deep)
    return f"{{{keys(chance, dots)} = {value(chance, deep - dots)}}}"


def document(chance: Random, deep: int) -> str:
    """Returns a TOML text of exactly this depth, with strings and comments that look deeper."""
    header = chance.randrange(deep)
    dots = chance.randint(1, deep - header)
    lines = ["# [[[[[[[[[[[[[[[[[[[[", f"z = {chance.choice(NOISE)}"]
    lines += [f"  [{keys(chance, header)}] # ]]]] [[[["] if header else []
    return (
        "\n".join([*lines, f"y = {chance.choice(NOISE)}"] * bool(header))
        + f"\n{keys(chance, dots)} = {value(chance, deep - header - dots)}\n"
    )


def accepted(text: str) -> bool:
    try:
        check_levels(Path("orchestra.toml"), text)
    except InputError as error:
        return error.code != "C003" or error.location is None
    return True


@pytest.mark.parametrize(
    "seeds", [range(FEW), pytest.param(range(FEW, MANY), marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_settings_level_count_equals_the_parser(seeds: range) -> None:
    for seed in seeds:
        chance = Random(seed)
        deep = chance.randint(1, 2 * MAX_LEVELS)
        text = document(chance, deep)
        assert levels(tomllib.loads(text)) == deep, text
        assert accepted(text) is (deep <= MAX_LEVELS), (deep, text)


@pytest.mark.parametrize(
    "seeds", [range(FEW), pytest.param(range(FEW, MANY), marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_settings_level_count_holds_for_damaged_texts(seeds: range) -> None:
    """Damaged texts: if the depth check and the parser accept one, its depth is within the limit."""
    for seed in seeds:
        chance = Random(seed)
        text = document(chance, chance.randint(MAX_LEVELS + 1, 2 * MAX_LEVELS))
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(text))
            text = (
                text[:at]
                + chance.choice(('"', "'", "#", "\n", "\\", '"""', "'''", "[", "]", "{", "}", "=", ""))
                + text[at + chance.randrange(2) :]
            )
        if accepted(text):
            try:
                table = tomllib.loads(text)
            except tomllib.TOMLDecodeError:
                continue
            assert levels(table) <= MAX_LEVELS, text


@pytest.mark.parametrize("shape", BRACKETS)
@pytest.mark.parametrize("size", [MAX_LEVELS, 500, 20_000, 400_000])
def test_settings_limits_decide_deep_and_long_texts(shape: Any, size: int, tmp_path: Path) -> None:
    text = shape(size)
    code = refused(tmp_path, text.encode())
    assert code in ("C001", "C002", "C003") or (code == "" and text.startswith("#"))
    if len(text) > MAX_BYTES:
        assert code == "C003"


def test_settings_large_pyproject_without_section_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.other]\nx = '" + "x" * MAX_BYTES + "'\n")
    assert Settings.load(start=tmp_path, environ={"HOME": str(tmp_path)}).project is None
    (tmp_path / "pyproject.toml").write_text("[tool.orchestra]\nfleet = 'x'\n#" + "x" * MAX_BYTES)
    with pytest.raises(InputError, match="larger than 64 KiB") as caught:
        Settings.load(start=tmp_path, environ={"HOME": str(tmp_path)})
    assert "orchestra.toml" in caught.value.hint
