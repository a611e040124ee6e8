"""Tests cards: their content and their errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.agents.card import Card
from orchestra.agents.prompt import CompiledPrompt
from orchestra.agents.registry import builtin_folder
from orchestra.agents.template import RESERVED_NAMES
from orchestra.core.agent_weights import INDEX_FILE
from orchestra.core.errors import FleetError, InputError, InputErrors
from orchestra.schema.json_schema import format_field
from orchestra.schema.types import Validator, parse_type
from tests.agents.tables import CARD

GOOD = """\
name: reader
description: Reads.
input: {question: str, context: str}
output: {answer: str | null, quote: Quote | null}
evidence: context
max_output: 99
checks: [quote]
"""
PROMPT = "Context: {{ context }}\nQuestion: {{ question }}\n"


def folder(tmp_path: Path, card: str = GOOD, prompt: str | None = PROMPT) -> Path:
    (tmp_path / "agent.yaml").write_text(card, "utf-8")
    if prompt is not None:
        (tmp_path / "prompt.md").write_text(prompt, "utf-8")
    return tmp_path


def refused(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        Card.load(path)
    return caught.value


ADAPTED = GOOD + "adapter: tuned\nuntuned: untuned.md\n"


def test_card_untuned_prompt_extends_system_message(tmp_path: Path) -> None:
    (tmp_path / "untuned.md").write_text("Example.\n")
    for prompt, text in (
        (PROMPT, f"<!-- system -->\nExample.\n<!-- user -->\n{PROMPT}"),
        (
            f"<!-- system -->\nRead.\n<!-- user -->\n{PROMPT}",
            f"<!-- system -->\nRead.\n\nExample.\n<!-- user -->\n{PROMPT}",
        ),
    ):
        card = Card.load(folder(tmp_path, ADAPTED, prompt))
        assert card.untuned_card is not None
        assert (card.template, card.untuned_card.template) == (prompt, text)
        assert card.digest == card.untuned_card.digest == card.with_settings(untuned=None).digest
        assert Card.restore(card.dump(), tmp_path).untuned_card == card.untuned_card


@pytest.mark.parametrize(
    ("card", "text", "code"),
    [
        (ADAPTED, None, "A004"),
        (ADAPTED.replace("untuned.md", "../untuned.md"), "Example.", "A003"),
        (ADAPTED, "{{ unknown }}", "A006"),
        (GOOD + "untuned: untuned.md\n", "Example.", "A002"),
    ],
)
def test_card_untuned_invalid_is_refused(tmp_path: Path, card: str, text: str | None, code: str) -> None:
    if text is not None:
        (tmp_path / "untuned.md").write_text(text)
    assert refused(folder(tmp_path, card)).code == code


def test_a_card_is_read(tmp_path: Path) -> None:
    card = Card.load(folder(tmp_path))
    assert (card.name, card.kind, card.model, card.template) == ("reader", "model", "base", PROMPT)
    contract = card.contract
    assert list(contract.input["properties"]) == ["question", "context"]
    assert list(contract.output["properties"]) == ["answer", "quote"]
    assert contract.output["properties"]["quote"]["anyOf"][0]["format"] == "quote"
    assert (contract.kind, contract.max_output, contract.checks, contract.evidence) == (
        "agent",
        99,
        ("quote",),
        "context",
    )
    assert contract.digest == card.digest


@pytest.mark.parametrize(
    "change", [("Reads.", "Writes."), ("99", "98"), ("Question", "Ask"), ("[quote]", "[quote, numbers]")]
)
def test_card_digest_changes_with_each_field(tmp_path: Path, change: tuple[str, str]) -> None:
    first = Card.load(folder(tmp_path)).digest
    assert Card.load(folder(tmp_path)).digest == first
    assert Card.load(folder(tmp_path, GOOD.replace(*change), PROMPT.replace(*change))).digest != first


@pytest.mark.parametrize(
    ("old", "new", "code", "line", "column", "hint"),
    [
        ("evidence: context", "evidense: context", "A002", 5, 1, "did you mean 'evidence'?"),
        ("name: reader\n", "", "A002", 1, 1, "add `name:`"),
        ("max_output: 99", "max_output: many", "A002", 6, 13, ""),
        ("max_output: 99", "sampling: {temperature: 9}", "A002", 6, 25, ""),
        ("max_output: 99", "sampling: {temprature: 0.5}", "A002", 6, 12, "did you mean 'temperature'?"),
        ("max_output: 99", "temperature: 0.5", "A002", 6, 1, "it belongs in another key: `sampling: {temperature: …}`"),
        ("name: reader", "name: Reader", "A002", 1, 7, ""),
        ("context: str}", "context: strr}", "L040", 3, 33, "did you mean 'str'?"),
        ("Quote | null", "Qote | null", "L040", 4, 37, "did you mean 'Quote'?"),
        ("evidence: context", "evidence: contxt", "A008", 5, 11, "did you mean 'context'?"),
        ("[quote]", "[quote]\nname: again", "L009", 8, 1, ""),
        ("max_output: 99", "prompt: ../secret.md", "A003", 6, 9, "put the file beside agent.yaml"),
        ("max_output: 99", "prompt: none.md", "A004", 6, 9, ""),
        ("max_output: 99", "kind: pickle", "A002", 6, 7, ""),
        ("max_output: 99", "output_schema: {}", "A002", 6, 1, ""),
        ("context: str}", "context: {type: str}}", "A002", 3, 33, "add `default:`"),
        ("context: str}", "none: str}", "A002", 3, 30, "rename it to none_: none is a reserved word of templates"),
        ("context: str}", "not: str}", "A002", 3, 29, "rename it to not_: not is a reserved word of templates"),
        ("context: str}", "other: {type: str, default: 3}}", "A002", 3, 31, "a default is a value of the input's type"),
        ("context: str}", "context: {type: strr, default: ''}}", "L040", 3, 40, "did you mean 'str'?"),
        ("answer: str | null", "answer: Long", "A002", 6, 13, "max_output: 134"),
        ("context: str}", "context: 3}", "A002", 3, 33, ""),
        ("context: str}", "context: {type: str, default: ''}}", "A002", 3, 33, "context: str"),
    ],
)
def test_card_error_shows_its_position(
    tmp_path: Path, old: str, new: str, code: str, line: int, column: int, hint: str
) -> None:
    error = refused(
        folder(tmp_path, GOOD.replace(old, new) + "types: {Long: {type: string, minLength: 177}}\n" * ("Long" in new))
    )
    assert error.location is not None
    assert (error.code, error.location.line, error.location.column) == (code, line, column), str(error)
    if hint:
        assert error.hint == hint


def test_card_input_with_default_is_optional(tmp_path: Path) -> None:
    text = GOOD.replace("context: str}", "context: {type: str | null, default: 'Paris'}}").replace(
        "evidence: context\n", ""
    )
    card = Card.load(folder(tmp_path, text))
    assert (card.contract.input["required"], card.contract.input["properties"]["context"]["default"]) == (
        ["question"],
        "Paris",
    )
    assert Card.restore(card.dump(), card.folder) == card
    assert (
        CompiledPrompt(card).render({"question": "Where?"}).messages[-1].content == "Context: Paris\nQuestion: Where?"
    )
    assert (
        CompiledPrompt(card).render({"question": "Where?", "context": "Rome"}).messages[-1].content
        == "Context: Rome\nQuestion: Where?"
    )
    assert "Context: None" in CompiledPrompt(card).render({"question": "Where?", "context": None}).messages[-1].content


def test_card_optional_field_is_shown_with_default() -> None:
    fields = {"a": {"type": "string"}, "b": {"type": "string", "default": "é"}, "c": {"type": "integer", "default": 3}}
    record = {"type": "object", "properties": fields, "required": ["a", "c"]}
    assert [format_field(record, name) for name in fields] == ["str", 'str = "é"', "int"]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("output: str\ngrammar: rules\n", "`grammar:` names 'rules', so every call needs it"),
        ("output: {made: 'list[str]'}\ncalls: {made: rules}\n", "`calls:` names 'rules', so every call needs it"),
        ("output: str\nkind: sklearn\n", "an agent of kind sklearn always needs 'rules'"),
        ("output: str\nkind: ensemble\nmembers: [a, b]\n", "an agent of kind ensemble always needs 'rules'"),
    ],
)
def test_card_input_read_by_code_has_no_default(tmp_path: Path, more: str, why: str) -> None:
    error = refused(folder(tmp_path, f"name: reader\ninput: {{rules: {{type: str, default: x}}}}\n{more}"))
    assert (error.code, error.message) == ("A002", f"{why}: it must not have a default")


GRAMMATICAL = GOOD.partition("output:")[0]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("output: str\ngrammar: rules\n", "there is no input 'rules' that is a text"),
        ("output: {answer: str}\ngrammar: question\n", "the output is {answer}, but a grammar needs a text output"),
        ("kind: sklearn\noutput: str\ngrammar: question\n", "an agent of kind sklearn does not generate text"),
    ],
)
def test_card_grammar_incompatible_with_output_is_refused(tmp_path: Path, more: str, why: str) -> None:
    error = refused(folder(tmp_path, GRAMMATICAL + more))
    assert (error.code, error.message) == ("A017", f"grammar: {why}")


def test_card_of_table_encoder_needs_computed_field(tmp_path: Path) -> None:
    card = Card.load(folder(tmp_path, CARD, None))
    assert (card.kind, card.output_form.field_order[-1], "answer" in card.output_form.schema["properties"]) == (
        "encoder",
        "answer",
        False,
    )
    written = {"expression": "2 * 3", "quotes": ["six"]}
    assert card.output_form.fill(written, None)["answer"] == 6
    assert card.output_form.fill(written | {"expression": None}, None)["answer"] == ["six"]


POINTS = "name: finder\nkind: encoder\nmodel: tiny\ninput: {question: str, context: str}\nevidence: context\n"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (
            POINTS + "output: {answer: Quote | null, words: Quote | null}\ncomputed: {words: {value: answer}}\n",
            "encoder",
        ),
        (CARD.replace("  rows: list[Index]\n", ""), "encoder"),
        (CARD.replace("kind: encoder\nmodel: tiny\n", "kind: sklearn\n"), "sklearn"),
    ],
)
def test_card_of_whole_output_kind_has_no_computed_field(tmp_path: Path, text: str, kind: str) -> None:
    error = refused(folder(tmp_path, text, None))
    assert (error.code, error.message) == ("A013", f"computed: an agent of kind {kind} returns its whole output")


def test_card_of_table_encoder_accepts_further_computed_sources(tmp_path: Path) -> None:
    error = refused(folder(tmp_path, CARD.replace("value: expression", "value: expresion"), None))
    assert (error.code, error.hint) == ("A013", "did you mean 'expression'?")


def test_card_without_table_field_error_names_the_field(tmp_path: Path) -> None:
    error = refused(folder(tmp_path, CARD.replace("  also: Condition | null\n", ""), None))
    assert (error.code, error.hint) == ("A013", "to read tables its output lacks also: orchestra explain N147")


def test_card_errors_are_all_reported(tmp_path: Path) -> None:
    error = refused(folder(tmp_path, GOOD.replace("max_output: 99", "max_output: x\nmodle: y")))
    assert isinstance(error, InputErrors)
    assert [one.location.line for one in error.errors if one.location] == [6, 7]


@pytest.mark.parametrize(
    ("prompt", "code", "line", "column"),
    [
        ("a\n{{ question", "A005", 2, 1),
        ("a\n{% if %}", "A005", 2, 1),
        ("Wörter: {{ question }\nand more", "A005", 1, 9),
        ("<!-- system -->\nBe brief.\n<!-- user -->\nText: {{ question\n\nand more", "A005", 4, 7),
        ("", "A005", 1, 1),
        ("<!-- user -->\n{{ question }}\n<!-- system -->\nBe brief.\n", "A005", 4, 1),
        ("<!-- system -->\nBe brief.\n<!-- assistant -->\n{{ question }}\n", "A005", 4, 1),
        ("{{ context }}\n<!-- user -->\n{{ context }} {{ qestion }}", "A006", 3, 18),
        ("{% include 'other' %}", "A007", 0, 0),
    ],
)
def test_card_prompt_with_invalid_template_is_refused(
    tmp_path: Path, prompt: str, code: str, line: int, column: int
) -> None:
    if code == "A007":
        Card.load(folder(tmp_path, prompt=prompt))  # found at rendering: there is no template to include
        return
    error = refused(folder(tmp_path, prompt=prompt))
    assert error.location is not None
    assert (error.code, error.location.line, error.location.column) == (code, line, column)


WORDS = (
    "true false none not and or in is if else elif for loop self super range dict namespace with include import set do"
    " block"
)


@pytest.mark.parametrize("name", WORDS.split())
def test_prompt_input_with_any_accepted_name_is_rendered(name: str) -> None:
    given = parse_type("str", {})
    inputs = {"type": "object", "properties": {name: given}, "required": [name]}
    prompt = f"{{{{ {name} }}}}{{% for one in [{name}] %}} {{{{ one }}}}{{% endfor %}}"
    try:
        made = Card.declare("reader", input=inputs, output=given, prompt=prompt)
    except InputError as error:
        assert error.code in {"A002", "A005"}  # noqa: PT017 - depends on the first fault
        assert name in RESERVED_NAMES
    else:
        assert CompiledPrompt(made).render({name: "Dewar"}).messages[0].content == "Dewar Dewar"


@pytest.mark.parametrize(("system", "code"), [("Answer in {{ language }}.", "A006"), ("{% if %}", "A005")])
def test_card_system_text_with_invalid_template_is_refused(tmp_path: Path, system: str, code: str) -> None:
    error = refused(folder(tmp_path, GOOD + f'system: "{system}"\n'))
    assert error.location is not None
    assert (error.code, error.location.line, error.location.column) == (code, 8, 9)
    with pytest.raises(InputError, match=code):
        Card.declare(
            "reader", input=parse_type("dict[str, str]", {}), output={"type": "string"}, prompt="Read.", system=system
        )
    good = Card.load(folder(tmp_path, GOOD + "system: Be brief.\n"))
    with pytest.raises(InputError, match="A012"):
        Card.restore(good.dump().replace(b"Be brief.", system.encode()))


def test_card_link_out_of_folder_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside.md"
    outside.write_text("secret {{ question }}")
    inside = tmp_path / "card"
    inside.mkdir()
    (inside / "prompt.md").symlink_to(outside)
    assert refused(folder(inside, prompt=None)).code == "A003"


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    assert refused(folder(tmp_path, prompt="x" * (1 << 20) + "x")).code == "A004"
    assert (
        refused(folder(tmp_path, prompt="x\udcff".encode("utf-8", "replace").decode() + "{{ nothing }}")).code == "A006"
    )


@pytest.mark.parametrize("name", ["x" * 300, "."])
@pytest.mark.parametrize("key", ["calibration", "data", "prompt"])
def test_card_impossible_file_name_is_reported_with_position(tmp_path: Path, key: str, name: str) -> None:
    kind = "model" if key == "prompt" else "sklearn"
    card = (
        "name: teller\n"
        f"kind: {kind}\n"
        "input: {text: str}\n"
        "output: {label: \"Literal['a', 'b']\"}\n"
        f'{key}: "{name}"\n'
    )
    error = refused(folder(tmp_path, card, "{{ text }}"))
    assert error.location is not None
    assert (error.code, error.location.line) == ("A004", 5)
    with pytest.raises(InputError, match="A004"):
        Card.load(builtin_folder("agents") / "crf_extractor").read("a\0b")


def test_card_file_of_missing_weights_names_the_installation(tmp_path: Path) -> None:
    desk = tmp_path / "desk"
    desk.mkdir()
    (desk / "agent.yaml").write_text("name: desk\nkind: sklearn\ninput: {text: str}\noutput: {label: str}\n")
    index = {"format": "1", "cards": "c", "files": {"desk/weights.npz": {"sha256": "a", "bytes": 7}}}
    (tmp_path / INDEX_FILE).write_text(json.dumps(index))
    card = Card.load(desk)
    assert card.missing_weights == 7
    with pytest.raises(FleetError) as caught:
        card.read("weights.npz")
    assert caught.value.code == "A025"
    (desk / "weights.npz").write_bytes(b"weights")
    assert (card.missing_weights, card.read("weights.npz")) == (0, b"weights")


def test_card_optional_files_may_be_missing(tmp_path: Path) -> None:
    for name in ("none.json", "agent.yaml/none.json"):
        card = Card.load(folder(tmp_path, GOOD + f"calibration: {name}\n"))
        assert (card.data_digest, card.current_calibration) == ("", None)


def test_card_types_accept_records_and_json_schema(tmp_path: Path) -> None:
    card = GOOD.replace("Quote | null}", "Fact}").replace(
        "evidence: context", "types: {Kind: {enum: [a, b]}, Fact: {kind: Kind, text: Quote}}\nevidence: context"
    )
    schema = Card.load(folder(tmp_path, card)).output_schema
    fact = schema["properties"]["quote"]
    assert fact["properties"]["kind"] == {"enum": ["a", "b"]}
    assert fact["properties"]["text"]["format"] == "quote"


@pytest.mark.parametrize("name", ["str", "null", "None", "list", "dict", "Literal"])
def test_card_type_with_reserved_name_is_refused(tmp_path: Path, name: str) -> None:
    error = refused(folder(tmp_path, GOOD + f"types: {{'{name}': {{kind: str}}}}\n"))
    assert error.location is not None
    assert (error.code, error.location.line) == ("L105", 8)


def test_card_recursive_type_validates_alone_and_nested(tmp_path: Path) -> None:
    tree = "{type: object, properties: {kids: {type: array, items: {$ref: '#'}}}, additionalProperties: false}"
    for output, wrap in (
        ("Tree", lambda one: one),
        ("{tree: Tree}", lambda one: {"tree": one}),
        ("list[Tree]", lambda one: [one]),
    ):
        card = GOOD.replace("{answer: str | null, quote: Quote | null}", output).replace(
            "evidence: context", f"types: {{Tree: {tree}}}"
        )
        found = Validator(Card.load(folder(tmp_path, card)).output_schema)
        assert found.check(wrap({"kids": [{"kids": [{}]}]})) is None
        assert found.check(wrap({"kids": [wrap({"kids": [{"other": 1}]})]})) is not None


def test_card_hint_has_token_count_for_long_text(tmp_path: Path) -> None:
    long = (
        GOOD.replace("answer: str | null", "answer: 'list[Long] | null'")
        + "types: {Long: {type: string, minLength: 177}}\n"
    )
    card = Card.load(folder(tmp_path, long.replace("max_output: 99", "max_output: 134")))
    constraint = CompiledPrompt(card).render({"question": "Who?", "context": ""}, constraint="schema").constraint
    assert constraint is not None
    assert constraint.value["properties"]["answer"]["anyOf"][0]["items"] == {
        "type": "string",
        "minLength": 177,
        "maxLength": 177,
    }
    assert refused(folder(tmp_path, long.replace("max_output: 99", "max_output: 133"))).code == "A002"


def test_a_card_declared_in_python_is_a_card() -> None:
    text, quote = parse_type("str", {}), {"type": "string", "format": "quote"}
    inputs = {"type": "object", "properties": {"context": text}, "required": ["context"]}
    card = Card.declare("teller", input=inputs, output=quote, prompt="{{ context }}", max_output=9, evidence="context")
    assert (card.contract.output, card.max_output, card.folder) == (quote, 9, None)
    with pytest.raises(InputError, match="max_ouput") as caught:
        Card.declare("teller", input=inputs, output=quote, prompt="{{ context }}", max_ouput=9)
    assert (caught.value.code, caught.value.hint) == ("A002", "did you mean 'max_output'?")
    with pytest.raises(InputError, match="no input 'contxt'"):
        Card.declare("teller", input=inputs, output=quote, prompt="{{ contxt }}")


QUESTION = {
    "type": "object",
    "properties": {"question": {"type": "string"}, "context": {"type": "string", "default": ""}},
}
ASKED: dict[str, Any] = {"input": QUESTION, "output": {"type": "string"}, "prompt": "{{ context }} {{ question }}"}
LONG = {"type": "object", "properties": {"a": {"type": "string", "minLength": 999}}, "required": ["a"]}


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"output": {"type": "strnig"}}, "L042", "not a schema"),
        (
            {"evidence": "context"},
            "A002",
            "`evidence:` names 'context', so every call needs it: it must not have a default",
        ),
        ({"output": LONG}, "A002", "max_output"),
    ],
)
def test_declared_card_is_refused_like_agent_yaml(change: dict[str, Any], code: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Card.declare("reader", **{**ASKED, **change})
    assert caught.value.code == code


def test_stored_card_with_invalid_schema_is_refused() -> None:
    stored = msgspec.json.decode(Card.declare("reader", **ASKED).dump())
    with pytest.raises(InputError, match="not a schema") as caught:
        Card.restore(msgspec.json.encode(stored | {"output": {"type": "strnig"}}))
    assert caught.value.code == "A012"


def test_stored_card_is_exempt_from_newer_rules() -> None:
    for before in (
        Card.declare("reader", **ASKED).with_settings(evidence="context"),
        Card.declare("reader", **{**ASKED, "output": LONG}, max_output=1_000).with_settings(max_output=40),
    ):
        assert Card.restore(before.dump()) == before


def test_an_encoder_declared_in_python_needs_no_prompt() -> None:
    inputs = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    card = Card.declare("sorter", input=inputs, output={"enum": ["a", "b"]}, prompt="", kind="encoder", model="minilm")
    assert (card.kind, card.template, Card.restore(card.dump())) == ("encoder", "", card)


@pytest.mark.parametrize("name", ["reader", "banking_intent", "assistant_intent"])
def test_packaged_cards_are_loaded(name: str) -> None:
    card = Card.load(builtin_folder("agents") / name)
    assert card.name == name
    assert (builtin_folder("agents") / name / "card.md").is_file()


TEXT = {
    "type": "object",
    "properties": {"text": {"type": "string"}},
    "required": ["text"],
    "additionalProperties": False,
}
DECLARED = Card.declare(
    "writer", input=TEXT, output={"type": "string"}, prompt="Say: {{ text }}", sampling={"temperature": 0.5, "seed": 7}
)


@pytest.mark.parametrize("name", sorted(path.name for path in builtin_folder("agents").iterdir() if path.is_dir()))
def test_stored_card_round_trips(name: str) -> None:
    card = Card.load(builtin_folder("agents") / name)
    assert Card.restore(card.dump(), card.folder) == card


def test_declared_card_round_trips() -> None:
    assert Card.restore(DECLARED.dump()) == DECLARED


def test_card_digest_includes_order_of_output_fields(tmp_path: Path) -> None:
    one = Card.load(folder(tmp_path))
    other = Card.load(
        folder(
            tmp_path, GOOD.replace("answer: str | null, quote: Quote | null", "quote: Quote | null, answer: str | null")
        )
    )
    assert one.digest != other.digest
    assert list(Card.restore(other.dump()).output_schema["properties"]) == ["quote", "answer"]


def test_card_changed_data_file_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path, "name: sorter\nkind: sklearn\ninput: {text: str}\noutput: str\n")
    (path / "model.json").write_text("{}")
    stored = Card.load(path).dump()
    (path / "model.json").write_text("{ }")
    with pytest.raises(InputError) as caught:
        Card.restore(stored, path)
    assert (caught.value.code, caught.value.hint) == ("A012", "orchestra runs fork RUN")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Say: ", b"Sag: "),
        (b"{{ text }}", b"{{ other }}"),
        (b"orchestra/card/v1", b"orchestra/card/v9"),
        (b'"seed":7', b'"seed":"7"'),
        (b'"prompt":"Say', b'"more":1,"prompt":"Say'),
        (b'"type":"object"', b'"type":"objekt"'),
        (b'"properties":{', b'"properties":5,"p":{'),
    ],
)
def test_stored_card_changed_bytes_are_refused(old: bytes, new: bytes) -> None:
    assert old in DECLARED.dump()
    with pytest.raises(InputError) as caught:
        Card.restore(DECLARED.dump().replace(old, new))
    assert caught.value.code == "A012"


@given(st.binary(max_size=20), st.integers(0, len(DECLARED.dump())), st.integers(0, 40))
def test_stored_card_any_bytes_give_the_card_or_a_coded_error(piece: bytes, at: int, width: int) -> None:
    data = DECLARED.dump()
    assert restored(data[:at] + piece + data[at + width :]) in (DECLARED, "A012")


def restored(data: bytes) -> Card | str:
    """Returns the card, or the code of the error."""
    try:
        return Card.restore(data)
    except InputError as error:
        return error.code


def test_card_misplaced_sampling_key_error_names_sampling() -> None:
    with pytest.raises(InputError) as caught:
        Card.declare(
            "reader", input=parse_type("dict[str, str]", {}), output={"type": "string"}, prompt="Read.", temperature=0.2
        )
    assert (caught.value.code, caught.value.hint) == ("A002", "it belongs in another key: sampling={'temperature': …}")


@pytest.mark.parametrize(
    "prompt", ["{{text}}  Say\n\nit.", "{{ text }} Say it. \n", "{#- mine -#}\n{{- text -}} Say it."]
)
def test_card_digest_ignores_blanks_and_comments_of_prompt(prompt: str) -> None:
    """A judge whose prompt differs from the producer's only by these is the same agent."""
    one, two = (card_of("one", said) for said in ("{{ text }} Say it.", prompt))
    assert one.digest != two.digest
    assert one.contract.model_identity == two.contract.model_identity
    assert one.contract.model_identity != card_of("one", "{{ text }} Tell it.").contract.model_identity


def card_of(name: str, prompt: str) -> Card:
    return Card.declare(
        name,
        input={"type": "object", "properties": {"text": {"type": "string"}}},
        output={"type": "string"},
        prompt=prompt,
    )
