"""Tools and agents without a server: values, errors and labels."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestra.agents.card import Card
from orchestra.agents.contract import Contract
from orchestra.agents.inference.array_files import pack_arrays
from orchestra.agents.registry import Registry
from orchestra.agents.tools import ToolFunction, signature_schemas
from orchestra.core.protocols import CallError, CallRequest, CallResult
from orchestra.fleet.local_workers import LocalWorkers
from orchestra.schema.builtin_models import Document


def shout(text: str) -> str:
    if text == "boom":
        raise RuntimeError("out of breath")
    return text.upper()


async def whisper(text: str) -> str:
    await asyncio.sleep(0 if text != "long" else 60)
    return text.lower()


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    """A typical decorator: it keeps the name and the types of the wrapped function."""

    @functools.wraps(function)
    def logging(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return logging


@logged
async def murmur(text: str) -> str:
    return await whisper(text)


def first(documents: list[Document]) -> Document:
    return documents[0]


def lies(text: str) -> int:
    return text  # type: ignore[return-value]


def add(left: int, right: int) -> int:
    return left + right


@dataclass
class Known:
    registry: Registry


def workers() -> LocalWorkers:
    inputs, outputs = signature_schemas(add)
    code = ToolFunction(Contract("adder", "agent", inputs, outputs, label="internal"), add)
    tools = [ToolFunction.from_function(function, effect="pure") for function in (shout, whisper, murmur, first, lies)]
    return LocalWorkers(Known(Registry().with_tools([*tools, code])))


async def run(name: str, inputs: dict[str, Any], **more: Any) -> CallResult | CallError:
    given: dict[str, Any] = {
        "run": "r",
        "node": "n",
        "attempt": 1,
        "kind": "tool",
        "name": name,
        "inputs": inputs,
    } | more
    return await workers().call(CallRequest(**given))


@pytest.mark.parametrize(
    ("name", "inputs", "value"),
    [
        ("shout", {"text": "hi"}, "HI"),
        ("whisper", {"text": "HI"}, "hi"),
        ("murmur", {"text": "HI"}, "hi"),
        ("first", {"documents": [{"source": "a", "text": "b"}]}, {"source": "a", "text": "b", "locations": []}),
    ],
)
async def test_tool_gets_typed_inputs_and_returns_json(name: str, inputs: dict[str, Any], value: Any) -> None:
    done = await run(name, inputs)
    assert isinstance(done, CallResult)
    assert (done.value, done.usage.calls, done.server) == (value, 1, "local")


@pytest.mark.parametrize(
    ("name", "inputs", "code", "retryable"),
    [
        ("shout", {"text": 5}, "T002", False),
        ("shout", {}, "T002", False),
        ("shout", {"text": "boom"}, "T003", True),
        ("lies", {"text": "x"}, "T004", False),
        ("shuot", {"text": "x"}, "T005", False),
    ],
)
async def test_tool_failure_is_call_error(name: str, inputs: dict[str, Any], code: str, retryable: bool) -> None:
    refused = await run(name, inputs)
    assert isinstance(refused, CallError)
    assert (refused.code, refused.retryable) == (code, retryable)


@pytest.mark.parametrize(
    ("error", "lasting"),
    [
        (KeyError("n"), True),
        (TypeError("no"), True),
        (json.JSONDecodeError("no", "", 0), True),
        (FileNotFoundError(2, "no"), True),
        (ConnectionRefusedError(111, "no"), False),
        (TimeoutError(), False),
        (OSError("no route"), False),
        (RuntimeError("no"), False),
        (type("TheirError", (Exception,), {})(), False),
    ],
)
async def test_tool_permanent_errors_are_not_retryable(error: Exception, lasting: bool) -> None:
    def broken(text: str) -> str:
        raise error

    local = known(ToolFunction.from_function(broken, effect="pure"))
    refused = await local.call(asked("broken", inputs={"text": "x"}))
    assert isinstance(refused, CallError)
    assert (refused.code, refused.retryable, refused.permanent) == ("T003", True, lasting)


async def test_tool_exception_of_user_is_named() -> None:
    refused = await run("shout", {"text": "boom"})
    assert isinstance(refused, CallError)
    assert "RuntimeError: out of breath" in refused.reason


async def test_tool_timeout_is_error() -> None:
    refused = await run("whisper", {"text": "long"}, timeout=0.05)
    assert isinstance(refused, CallError)
    assert (refused.code, refused.retryable) == ("T007", True)


async def test_python_agent_label_is_enforced() -> None:
    done = await run("adder", {"left": 1, "right": 2}, kind="agent")
    refused = await run("adder", {"left": 1, "right": 2}, kind="agent", label="restricted")
    assert isinstance(done, CallResult)
    assert done.value == 3
    assert isinstance(refused, CallError)
    assert refused.code == "F202"


async def test_model_agent_is_not_run_locally() -> None:
    text = {"type": "object", "properties": {}, "required": []}
    card = Card.declare("reader", input=text, output={"type": "string"}, prompt="hi")
    known = Known(Registry().with_cards([card]))
    call = CallRequest(run="r", node="n", attempt=1, kind="agent", name="reader", inputs={})
    reply = await LocalWorkers(known).call(call)
    assert isinstance(reply, CallError)
    assert reply.code == "F201"


def charge(cents: int, *, idempotency_key: str = "") -> str:
    return idempotency_key


async def double(number: int) -> int:
    return 2 * number


CHARGE = ToolFunction.from_function(charge, effect="keyed", version="1")
DOUBLE = ToolFunction.from_function(double, effect="pure", version="1")
UNVERSIONED = ToolFunction.from_function(double, effect="pure", name="unversioned")
CLASSICAL = Registry.load().card("banking_intent").model_copy(update={"kind": "sklearn", "data": "linear.json"})


def known(*tools: ToolFunction) -> LocalWorkers:
    return LocalWorkers(Known(Registry().with_tools(tools).with_cards([CLASSICAL])))


def asked(name: str, **more: Any) -> CallRequest:
    given: dict[str, Any] = {
        "run": "r",
        "node": "n",
        "attempt": 1,
        "kind": "tool",
        "name": name,
        "inputs": {"number": 1},
    } | more
    return CallRequest(**given)


async def test_keyed_tool_gets_same_key_each_attempt() -> None:
    local = known(CHARGE)
    given = [await local.call(asked("charge", inputs={"cents": 1}, attempt=n)) for n in (1, 2)]
    assert [done.value for done in given if isinstance(done, CallResult)] == ["r/n", "r/n"]


async def test_tool_changed_version_is_refused() -> None:
    done = await known(DOUBLE).call(asked("double", version=DOUBLE.contract.digest))
    newer = ToolFunction.from_function(double, effect="pure", version="2")
    refused = await known(newer).call(asked("double", version=DOUBLE.contract.digest))
    assert isinstance(done, CallResult)
    assert isinstance(refused, CallError)
    assert (refused.code, refused.hint, refused.retryable) == ("T009", "orchestra runs fork", False)


async def test_python_agent_unknown_version_is_refused() -> None:
    refused = await known().call(asked("banking_intent", kind="agent", version="0" * 32, inputs={"text": "hi"}))
    assert isinstance(refused, CallError)
    assert (refused.code, refused.hint) == ("F221", "orchestra runs fork")


async def test_agent_stored_earlier_version_is_used() -> None:
    older = CLASSICAL.model_copy(update={"digest": "0" * 32})
    local = LocalWorkers(Known(Registry().with_cards([CLASSICAL])), {older.digest: older})
    inputs = {"text": "my card was stolen"}
    done = await local.call(asked("banking_intent", kind="agent", version=older.digest, inputs=inputs))
    assert isinstance(done, CallResult)
    assert done.model == older.digest


def test_memo_key_only_for_versioned_pure_code() -> None:
    local = known(DOUBLE, CHARGE, UNVERSIONED)
    memos = [local.estimate(asked(name)).memo_key for name in ("double", "charge", "unversioned", "nobody")]
    assert [bool(memo) for memo in memos] == [True, False, False, False]


def test_memo_key_of_classical_agent_is_by_card() -> None:
    local = known()
    asking = asked("banking_intent", kind="agent", inputs={"text": "hi"})
    assert local.estimate(asking).memo_key
    assert not local.estimate(msgspec.structs.replace(asking, version="0" * 32)).memo_key


async def test_trained_agent_nan_has_no_confidence(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    # both are finite, and their product is not
    one, steep = numpy.ones(1, numpy.float32), numpy.full(2, 3e38, numpy.float32)
    arrays = {
        "vocabulary": numpy.frombuffer(b"wa", numpy.uint8),
        "idf": one,
        "weights": numpy.full((1, 2), 127, numpy.int8),
    }
    layout: dict[str, Any] = {"format": "orchestra/linear-text/v1", "input": "text", "output": "label", "features": {}}
    layout |= {"labels": ["a", "b"], "arrays": "linear.npz"}
    text, data = pack_arrays(layout, {**arrays, "scale": steep, "intercept": steep})
    (tmp_path / "agent.yaml").write_text(
        "name: steep\nkind: sklearn\ninput: {text: str}\noutput: {label: \"Literal['a', 'b']\"}\n"
    )
    (tmp_path / "model.json").write_text(text)
    (tmp_path / "linear.npz").write_bytes(data)
    local = LocalWorkers(Known(Registry().with_cards([Card.load(tmp_path)])))
    with numpy.errstate(all="ignore"):
        done = await local.call(asked("steep", kind="agent", inputs={"text": "a"}))
    assert isinstance(done, CallResult)
    assert done.confidence is None


@pytest.mark.parametrize(
    "changed", [{"node": "other"}, {"run": "other"}, {"attempt": 2}, {"priority": 3}, {"timeout": 1.0}]
)
def test_local_memo_key_ignores_node_and_run(changed: dict[str, Any]) -> None:
    local = known(DOUBLE)
    assert local.estimate(asked("double", **changed)) == local.estimate(asked("double"))


@pytest.mark.parametrize("changed", [{"inputs": {"number": 2}}, {"label": "public"}])
def test_local_memo_key_depends_on_content(changed: dict[str, Any]) -> None:
    local = known(DOUBLE)
    assert local.estimate(asked("double", **changed)).memo_key != local.estimate(asked("double")).memo_key


def test_local_memo_key_separates_tenants_and_versions() -> None:
    newer = ToolFunction.from_function(double, effect="pure", version="2")
    registry = Known(Registry().with_tools([DOUBLE]))
    memos = [
        LocalWorkers(registry).estimate(asked("double")).memo_key,
        LocalWorkers(registry, tenant="acme").estimate(asked("double")).memo_key,
    ]
    assert len({*memos, known(newer).estimate(asked("double")).memo_key}) == 3
