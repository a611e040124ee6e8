"""Tests the registry and tools."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from orchestra.agents.contract import Effect
from orchestra.agents.registry import Registry
from orchestra.agents.tools import ToolError, ToolFunction
from orchestra.core.errors import InputError
from orchestra.schema.builtin_models import Document
from orchestra.workflows.model import ToolNode
from orchestra.workflows.python.steps import tool, workflow

CARD = "name: NAME\ndescription: mine\ninput: {text: str}\noutput: str\n"


def agents(tmp_path: Path, **cards: str) -> Path:
    for folder, name in cards.items():
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "agent.yaml").write_text(CARD.replace("NAME", name))
        (tmp_path / folder / "prompt.md").write_text("{{ text }}")
    return tmp_path


def test_registry_user_agents_precede_packaged_ones(tmp_path: Path) -> None:
    registry = Registry.load([agents(tmp_path, reader="reader")])
    assert registry.card("reader").description == "mine"
    assert "banking_intent" in registry.cards


def test_registry_folder_of_training_data_is_no_agent(tmp_path: Path) -> None:
    folder = agents(tmp_path, mine="mine") / "mine" / "data"
    agents(folder, inner="inner")
    (folder / "build.py").write_text("raise SystemExit\n")
    assert Registry.load([tmp_path]).cards.keys() - Registry.load().cards.keys() == {"mine"}


def test_registry_unknown_name_error_suggests_nearest() -> None:
    registry = Registry.load()
    with pytest.raises(InputError) as caught:
        registry.card("reeder")
    assert (caught.value.code, caught.value.hint) == ("A001", "did you mean 'reader'?")
    with pytest.raises(InputError) as caught:
        registry.tool("zzz")
    assert (caught.value.code, caught.value.hint) == ("T005", "tools: none")


def test_registry_broken_card_raises_on_access(tmp_path: Path) -> None:
    folder = agents(tmp_path, a="reader", b="reader", c="Wrong", d="good")
    registry = Registry.load([folder])
    assert {name: error.code for name, error in registry.broken.items()} == {"reader": "A009", "c": "A002"}
    assert registry.card("good").description == "mine"
    for name, code in (("reader", "A009"), ("c", "A002")):
        with pytest.raises(InputError) as caught:
            registry.card(name)
        assert caught.value.code == code
    assert "reader" not in registry.agents, "the package's does not take its place"


def test_registry_shadowed_broken_card_is_ignored(tmp_path: Path) -> None:
    sound, other = agents(tmp_path / "sound", x="desk"), agents(tmp_path / "other", x="desk")
    (other / "x" / "prompt.md").write_text("{{ txt }}")
    assert Registry.load([sound, other], builtin=False).broken == {}
    assert Registry.load([other, sound], builtin=False).broken["desk"].code == "A006"


def test_registry_python_card_replaces_broken_one(tmp_path: Path) -> None:
    folder = agents(tmp_path, x="desk")
    mine = Registry.load([folder]).card("desk")
    (folder / "x" / "prompt.md").write_text("{{ txt }}")
    registry = Registry.load([folder]).with_cards([mine])
    assert registry.card("desk") is mine
    assert "desk" in registry.agents


def test_registry_code_of_broken_card_is_excluded(tmp_path: Path) -> None:
    code = ToolFunction(TOOL.contract.__class__("shout", "agent", {}, {}), str.upper)
    (folder := agents(tmp_path, x="shout")).joinpath("x", "agent.yaml").write_text("name: shout\nkind: python\n")
    assert "shout" not in Registry.load([folder]).with_tools([code]).agents


def test_registry_missing_folder_has_no_agents(tmp_path: Path) -> None:
    assert Registry.load([tmp_path / "none"], builtin=False).cards == {}


def test_registry_catalog_is_complete_by_name() -> None:
    catalog = Registry.load().with_tools([TOOL]).catalog()
    assert set(catalog.agents) >= {"reader", "banking_intent"}
    assert catalog.tools["longest"].effect == "pure"
    assert {"Document", "Passage", "Quote", "Answer"} <= set(catalog.models)


def test_registry_separates_code_of_agents_and_tools() -> None:
    code = ToolFunction(TOOL.contract.__class__("shout", "agent", {}, {}), str.upper)
    registry = Registry().with_tools([TOOL, code])
    assert set(registry.tools) == {"longest"}
    assert registry.python_agent("shout") is code
    assert "shout" in registry.agents
    with pytest.raises(InputError) as caught:
        registry.python_agent("whisper")
    assert caught.value.code == "A010"


class Found(BaseModel):
    """The result of a tool."""

    source: str
    length: int


def longest(documents: Sequence[Document], least: int = 0) -> Found | None:
    """The longest document.

    More words.
    """
    found = max(documents, key=lambda document: len(document.text), default=None)
    if found is None or len(found.text) < least:
        return None
    assert isinstance(found, Document)
    return Found(source=found.source, length=len(found.text))


TOOL = ToolFunction.from_function(longest, effect="pure")


def test_tool_contract_comes_from_signature() -> None:
    contract = TOOL.contract
    assert (contract.name, contract.kind, contract.description) == ("longest", "tool", "The longest document.")
    assert contract.input["required"] == ["documents"]
    assert list(contract.input["properties"]) == ["documents", "least"]
    assert contract.input["additionalProperties"] is False


async def test_tool_json_is_converted_to_parameter_types_and_back() -> None:
    documents = [{"source": "a", "text": "x"}, {"source": "b", "text": "xx"}]
    assert await TOOL.call({"documents": documents}, "internal") == {"source": "b", "length": 2}
    assert await TOOL.call({"documents": documents, "least": 3}, "internal") is None


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"documents": "x"},
        {"documents": [{"source": "a"}]},
        {"documents": [], "least": "3"},
        {"documents": [], "most": 1},
    ],
)
async def test_tool_inputs_of_wrong_type_are_refused_before_call(inputs: dict[str, Any]) -> None:
    with pytest.raises(ToolError) as caught:
        await TOOL.call(inputs, "internal")
    assert caught.value.code == "T002"


async def test_tool_coroutine_function_is_awaited() -> None:
    async def double(n: int) -> int:
        return 2 * n

    assert await ToolFunction.from_function(double, effect="pure").call({"n": 4}, "internal") == 8


async def test_tool_exception_fails_the_call() -> None:
    def broken(n: int) -> int:
        raise ZeroDivisionError("no")

    with pytest.raises(ToolError, match="broken raised ZeroDivisionError: no") as caught:
        await ToolFunction.from_function(broken, effect="pure").call({"n": 4}, "internal")
    assert caught.value.code == "T003"


async def test_tool_result_of_wrong_type_fails_the_call() -> None:
    def lies(n: int) -> int:
        return "text"  # type: ignore[return-value]  # the point of the test

    with pytest.raises(ToolError) as caught:
        await ToolFunction.from_function(lies, effect="pure").call({"n": 4}, "internal")
    assert (caught.value.code, caught.value.reason) == ("T004", "lies returned str: expected int, got str")


class Pair(BaseModel):
    one: int
    two: list[str]


@pytest.mark.parametrize(
    ("annotation", "value", "says"),
    [
        (Pair, Pair.model_construct(one="a secret", two=[]), "one: expected int, got str"),
        (Pair, {"one": 1}, "expected Pair, got dict"),
        (int | str, [1], "expected int or str, got list"),
        (list[str], ["a", 2, 3.0], "expected str, got int"),
    ],
)
def test_tool_type_error_is_described_in_words(annotation: Any, value: Any, says: str) -> None:
    def lies() -> Any:
        return value

    lies.__annotations__["return"] = annotation
    with pytest.raises(ToolError) as caught:
        ToolFunction.from_function(lies, effect="pure").convert_result(value)
    assert caught.value.reason == f"lies returned {type(value).__name__}: {says}"


class Doubled:
    def __call__(self, n: int) -> int:
        return 2 * n


def unknown(n: Missing) -> int:  # type: ignore[name-defined]  # noqa: F821 - the name is missing
    return 1


@pytest.mark.parametrize("effect", ["pure", "keyed"])
@pytest.mark.parametrize("function", [lambda x: x, print, partial(max, 1), Doubled(), unknown, dict])
def test_tool_function_without_annotations_is_refused(function: Any, effect: Effect) -> None:
    with pytest.raises(InputError) as caught:
        ToolFunction.from_function(function, effect=effect)
    assert caught.value.code == "T001"


def test_tool_accepts_each_of_five_effects() -> None:
    def charge(cents: int, idempotency_key: str = "") -> str:
        return idempotency_key

    effects: tuple[Effect, ...] = ("pure", "idempotent", "keyed", "transactional", "once")
    assert [ToolFunction.from_function(charge, effect=effect).contract.effect for effect in effects] == list(effects)


async def test_keyed_tool_key_is_passed_and_is_no_input() -> None:
    def charge(cents: int, *, idempotency_key: str) -> str:
        return idempotency_key

    made = ToolFunction.from_function(charge, effect="keyed")
    assert list(made.contract.input["properties"]) == ["cents"]
    assert await made.call({"cents": 5}, "internal", "k1") == "k1"


async def test_keyed_tool_key_from_caller_is_refused() -> None:
    def charge(cents: int, *, idempotency_key: str = "") -> str:
        return idempotency_key

    with pytest.raises(ToolError) as caught:
        await ToolFunction.from_function(charge, effect="keyed").call(
            {"cents": 5, "idempotency_key": "mine"}, "internal", "k1"
        )
    assert caught.value.code == "T002"


def no_key(cents: int) -> str:
    return ""


def odd_key(cents: int, idempotency_key: int) -> str:
    return ""


@pytest.mark.parametrize("function", [no_key, odd_key])
def test_keyed_tool_needs_key_parameter(function: Any) -> None:
    with pytest.raises(InputError) as caught:
        ToolFunction.from_function(function, effect="keyed")
    assert caught.value.code == "T008"
    with pytest.raises(InputError) as declared:
        tool(effect="keyed")(function)
    assert declared.value.code == "T008"
    assert declared.value.location is not None


def test_registry_keyed_tool_contract_has_no_key() -> None:
    @tool(effect="keyed", version="2")
    def charge(cents: int, *, idempotency_key: str = "") -> str:
        """Charges."""
        return idempotency_key

    known = Registry().with_tools([charge]).tool("charge")
    assert list(known.contract.input["properties"]) == ["cents"]
    assert (known.version, known.contract) == ("2", charge.contract)


def test_tool_digest_covers_its_contract() -> None:
    def longest(documents: list[Document]) -> Found | None:  # other types
        return None

    same = ToolFunction.from_function(longest, effect="pure")
    others = [
        TOOL,
        same,
        ToolFunction.from_function(longest, effect="once"),
        ToolFunction.from_function(longest, effect="pure", version="1"),
        ToolFunction.from_function(longest, effect="pure", name="other"),
    ]
    assert len({made.contract.digest for made in others}) == len(others)
    assert ToolFunction.from_function(longest, effect="pure").contract.digest == same.contract.digest


def test_workflow_calls_keyed_tool_without_key() -> None:
    @tool(effect="keyed")
    def charge(cents: int, *, idempotency_key: str = "") -> str:
        """Charges."""
        return idempotency_key

    @workflow()
    def pay(cents: int) -> str:
        """Pays."""
        return charge(cents=cents)

    @workflow()
    def chosen(cents: int) -> str:
        """Pays, under a key of its own."""
        return charge(cents=cents, idempotency_key="mine")

    (node,) = pay.graph.nodes.values()
    assert isinstance(node, ToolNode)
    assert node.with_ == {"cents": "${input.cents}"}
    with pytest.raises(InputError) as caught:
        _ = chosen.graph
    assert caught.value.code == "W010"
