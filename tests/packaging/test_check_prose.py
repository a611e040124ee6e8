"""`scripts/check_prose.py` finds each phrase of `scripts/prose.toml`, in the right kinds of text, and skips data."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from scripts import check_prose
from scripts.check_prose import PHRASES, Phrase, Rules, check_text, find_files, read_passages, read_rules

ROOT = Path(__file__).resolve().parents[2]
RULES = read_rules()
WORD = Rules((Phrase(re.compile(r"\bbad\s+word\b"), "good", frozenset({"text", "message"}), False, (), ()),), ())


def found(path: str, text: str, rules: Rules = WORD) -> list[int]:
    """The lines of the findings in a text."""
    return [one.line for one in check_text(path, text, rules)]


@pytest.mark.parametrize("phrase", RULES.phrases, ids=lambda phrase: phrase.pattern.pattern[:40])
def test_phrase_matches_its_examples_only(phrase: Phrase) -> None:
    assert phrase.hit
    assert [text for text in phrase.hit if not phrase.pattern.search(text)] == []
    assert [text for text in phrase.miss if phrase.pattern.search(text)] == []


def test_rules_cover_the_banned_words() -> None:
    words = ["whoever", "nobody", "somebody", "whatever:", "told", "purse", "troupe", "parcel"]
    words += ["room", "rooms", "door", "doors", "house"]
    words += ["what stands in it", "it stands behind it", "is told", "what it came to", "as was said"]  # prose: ok
    required = Rules(tuple(phrase for phrase in RULES.phrases if not phrase.strict), ())
    assert [word for word in words if not check_text("page.md", word, required)] == []


@pytest.mark.parametrize(
    ("path", "text", "lines"),
    [
        ("docs/page.md", "One.\n\nA bad word, and\na bad\nword.", [3, 4]),
        ("docs/page.md", "A `bad word` and [this](bad/word.md).\n<!-- bad word -->", []),
        ("docs/page.md", "One.\n```python\na bad word\n```\na bad word", [5]),
        ("orchestra/one.py", '"""One.\n\nA bad word.\n"""\n', [3]),
        ("orchestra/one.py", "X = 1\n# a bad\n# word\nY = 2  # a bad word\n", [2, 4]),
        ("orchestra/one.py", 'X = 1\n"""A bad word."""\n', [2]),
        ("orchestra/one.py", 'raise ValueError(\n    "one"\n    f"a bad word {x}"\n)\n', [3]),
        ("orchestra/one.py", 'X = f"{bad word}"\n'.replace("bad word", "bad_word(1)"), []),
        ("orchestra/one.py", "X = f\"{'a bad word' if y else f'{bad(word)} b'} c\"\n", [1]),
        ("orchestra/one.py", "X = f\"{bad + f'(a {word})' if word else ''} c\"\n", []),
        ("orchestra/one.py", "def bad_word() -> None: ...\n", []),
        ("tests/test_one.py", 'X = "a bad word"\n', []),
        ("tests/test_one.py", 'X = "a bad word"  # a bad word\n', [1]),
        ("orchestra/core/error_texts/one.toml", '[A001]\ntitle = "a bad word"\n', [2]),
        ("Makefile", "help:  ## a bad word\n\tbad word\n", [1]),
    ],
)
def test_phrase_is_reported_with_its_line(path: str, text: str, lines: list[int]) -> None:
    assert found(path, text) == lines


@pytest.mark.parametrize("text", ["a bad word  # prose: ok", "a bad\nword <!-- prose: ok -->"])
def test_marked_line_is_not_reported(text: str) -> None:
    assert found("docs/page.md", text) == []


def test_mark_behind_a_docstring_covers_it() -> None:
    text = '"""A\n\nbad word.\n"""{}\nX = 1  # bad word\n'
    assert found("orchestra/one.py", text.format("  # prose: ok")) == [5]
    assert found("orchestra/one.py", text.format("  # a comment")) == [3, 5]


def test_data_is_read_where_a_phrase_reaches_it() -> None:
    kinds = {
        passage.kind for passage in read_passages("tests/test_one.py", '"""One."""\nX = "two words"\nY = "word"\n')
    }
    assert kinds == {"text", "data"}


def test_strict_phrases_are_reported_on_request_only() -> None:
    rules = Rules((Phrase(re.compile("often"), "x", frozenset({"text"}), True, (), ()),), ())
    assert [check_text("page.md", "often", rules), len(check_text("page.md", "often", rules, strict=True))] == [[], 1]


def test_allowed_files_are_data_that_exists() -> None:
    paths = [path for folder in check_prose.FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    files = [path.relative_to(ROOT).as_posix() for path in paths]
    assert [
        pattern for pattern in RULES.allowed if not any(Rules((), (pattern,)).is_allowed(file) for file in files)
    ] == []
    assert RULES.is_allowed("agents/router/data/requests/one.yaml")
    assert not RULES.is_allowed("docs/index.md")


def test_every_package_is_read() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in find_files([])}
    assert {"README.md", "Makefile", "orchestra/__init__.py", "tests/conftest.py", "docs/index.md"} <= names
    assert {"orchestra/core/error_texts/engine.toml", "scripts/check_prose.py", "bench/engine.py"} <= names


def test_command_prints_findings_and_exits_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "page.md").write_text("Whoever reads it.\n")  # prose: ok
    monkeypatch.setattr(check_prose, "ROOT", tmp_path)
    assert check_prose.main([str(tmp_path / "page.md")]) == 1
    assert capsys.readouterr().out.startswith("page.md:1: Whoever -> use the role")  # prose: ok
    assert check_prose.main([str(tmp_path / "page.md"), "--summary"]) == 1
    assert capsys.readouterr().out.endswith("1  in 1 of 1 files\n")
    (tmp_path / "page.md").write_text("The reader.\n")
    assert check_prose.main([str(tmp_path / "page.md")]) == 0


def test_command_refuses_phrases_that_are_no_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prose.toml").write_text('[[phrase]]\npattern = "("\nuse = "x"\nhit = []\nmiss = []\n')
    monkeypatch.setattr(read_rules, "__defaults__", (tmp_path / "prose.toml",))
    assert check_prose.main([]) == 2


def test_the_checker_needs_no_packages() -> None:
    names = re.findall(
        r"^(?:import|from) (\w+)", (ROOT / "scripts" / "check_prose.py").read_text("utf-8"), re.MULTILINE
    )
    assert set(names) <= {*sys.stdlib_module_names}
    assert PHRASES.exists()
