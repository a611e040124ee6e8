"""Generated Python source has the types of the cards."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchestra.agents.card import Card
from orchestra.cli.agents import generate_source
from orchestra.core.errors import InputError

pytestmark = pytest.mark.slow

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
    text = generate_source([card])
    assert "    documents: list[Document]\n" in text
    assert '    from_: str | None = Field(alias="from")\n' in text
    assert "    kind: Literal['null', 'a']\n" in text
    assert "    facts: list[ReadFactsFact]\n" in text
    assert f'read_facts = agent("read_facts", ReadFactsInput, ReadFactsOutput)  # {card.digest}' in text


def test_a_bound_module_is_python_that_mypy_takes(tmp_path: Path) -> None:
    other = 'name: title\ninput: {documents: str, kind: str, from: str}\noutput: "str | null"\n'
    text = generate_source(
        [load(tmp_path / "a"), load(tmp_path / "b", other), load(tmp_path / "c", OPTIONAL.replace("title", "other"))]
    )
    ast.parse(text)
    (tmp_path / "bound.py").write_text(text.replace("from orchestra import agent", "from stub import agent"))
    (tmp_path / "stub.py").write_text(STUB)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        "--cache-dir",
        str(tmp_path / "cache"),
        "bound.py",
    ]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={"MYPYPATH": str(Path.cwd()), "PATH": ""},
    )
    assert done.returncode == 0, done.stdout


def test_an_input_that_may_be_left_out_has_its_default(tmp_path: Path) -> None:
    text = generate_source([load(tmp_path / "a", OPTIONAL)])
    assert '    kind: str = "a=b"\n'.replace('"', "'") in text
    assert '    from_: str | None = Field(None, alias="from")\n' in text
    assert "    documents: Document = Field({'source': 'a', 'text': 'b'}, validate_default=True)\n" in text


def test_only_what_is_used_is_imported(tmp_path: Path) -> None:
    text = generate_source(
        [load(tmp_path / "a", "name: title\ninput: {documents: str, kind: str, from: str}\noutput: str\n")]
    )
    assert "Document" not in text
    assert "Literal" not in text


def test_nothing_of_a_card_becomes_code(tmp_path: Path) -> None:
    """Field names become aliases, type names are checked, and texts of a `Literal` are escaped again, for any card."""
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "prompt.md").write_text("{{ kind }}")
    literal = "Literal['x\n    y: int = print(\"PWNED\")  #']"
    fields = {"first-name": "str", "class": "str", "_own": "str", "model_config": "str", "2": "int"}
    card = {"name": "title", "input": {"kind": literal}, "output": {"told": "Told"}, "types": {"Told": fields}}
    (folder / "agent.yaml").write_text(json.dumps(card))
    text = generate_source([Card.load(folder)])
    told = next(node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == "TitleTold")
    names = [
        field.target.id
        for field in told.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    ]
    assert names == ["first_name_", "class_", "own_", "model_config_", "field_2_"]
    assert 'first_name_: str = Field(alias="first-name")' in text
    assert not [
        node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
    ]


@pytest.mark.parametrize(
    ("types", "code"),
    [
        ({"T": {'a: int = print("PWNED")\n    b': "str"}}, "A002"),
        ({"U(object):\n    pass\nprint(1)\nclass X": {"a": "str"}}, "L105"),
    ],
)
def test_names_that_hold_more_than_a_name_are_refused(tmp_path: Path, types: object, code: str) -> None:
    (tmp_path / "prompt.md").write_text("{{ kind }}")
    (tmp_path / "agent.yaml").write_text(
        json.dumps({"name": "title", "input": {"kind": "str"}, "output": "str", "types": types})
    )
    with pytest.raises(InputError) as caught:
        Card.load(tmp_path)
    assert caught.value.code == code
