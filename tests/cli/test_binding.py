"""Bound agents: Python source whose types are those of the cards."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from orchestra.agent.card import Card
from orchestra.cli.binding import source

CARD = """\
schema: orchestra/v1
name: read_facts
input: {documents: "list[Document]", from: "str | null", kind: "Literal['null', 'a']"}
output: {facts: "list[Fact]", quote: Quote | null}
types:
  Fact: {subject: str, sure: bool}
  Loose: {type: object}
"""
OPTIONAL = """\
name: title
input:
  documents: {type: Document, default: {source: a, text: b}}
  kind: {type: str, default: a=b}
  from: {type: str | null, default: null}
output: str
"""
PROMPT = "{{ documents }} {{ kind }} {{ from }}\n"
STUB = "from typing import Any\ndef agent(name: str, input: Any, output: Any, /) -> Any: ...\n"


def load(folder: Path, card: str = CARD) -> Card:
    folder.mkdir(exist_ok=True)
    (folder / "agent.yaml").write_text(card)
    (folder / "prompt.md").write_text(PROMPT)
    return Card.load(folder)


def test_types_are_written_as_python_writes_them(tmp_path: Path) -> None:
    card = load(tmp_path / "read_facts")
    text = source([card])
    assert "    documents: list[Document]\n" in text
    assert '    from_: str | None = Field(alias="from")\n' in text
    assert "    kind: Literal['null', 'a']\n" in text
    assert "    facts: list[ReadFactsFact]\n" in text
    assert f'read_facts = agent("read_facts", ReadFactsInput, ReadFactsOutput)  # {card.digest}' in text


def test_a_bound_module_is_python_that_mypy_takes(tmp_path: Path) -> None:
    other = 'name: title\ninput: {documents: str, kind: str, from: str}\noutput: "str | null"\n'
    text = source([load(tmp_path / "a"), load(tmp_path / "b", other), load(tmp_path / "c", OPTIONAL.replace("title", "other"))])
    ast.parse(text)
    (tmp_path / "bound.py").write_text(text.replace("from orchestra import agent", "from stub import agent"))
    (tmp_path / "stub.py").write_text(STUB)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(tmp_path / "cache"), "bound.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env={"MYPYPATH": str(Path.cwd()), "PATH": ""})
    assert done.returncode == 0, done.stdout


def test_an_input_that_may_be_left_out_has_its_default(tmp_path: Path) -> None:
    text = source([load(tmp_path / "a", OPTIONAL)])
    assert '    kind: str = "a=b"\n'.replace('"', "'") in text
    assert '    from_: str | None = Field(None, alias="from")\n' in text
    assert "    documents: Document = Field({'source': 'a', 'text': 'b'}, validate_default=True)\n" in text


def test_only_what_is_used_is_imported(tmp_path: Path) -> None:
    text = source([load(tmp_path / "a", "name: title\ninput: {documents: str, kind: str, from: str}\noutput: str\n")])
    assert "Document" not in text
    assert "Literal" not in text
