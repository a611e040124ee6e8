"""The call estimator: valid bounds, and memo keys that contain all that an answer depends on and nothing else."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.agents.card import Card
from orchestra.agents.prompt import ChatMessage
from orchestra.core.protocols import NO_ESTIMATE, CallRequest, EvidenceSource
from orchestra.fleet.call_estimates import CallEstimator, max_prompt_tokens
from orchestra.fleet.config import FleetConfig
from orchestra.fleet.supervisor.folders import Folders
from orchestra.fleet.weights.weights import ModelStore

from .conftest import endpoints, local_config

TEXT = {
    "type": "object",
    "properties": {"text": {"type": "string"}},
    "required": ["text"],
    "additionalProperties": False,
}
READER = Card.declare(
    "reader", input=TEXT, output={"type": "string"}, prompt="Read: {{ text }}", max_output=64, min_output=9
)
REMOTE = endpoints("http://127.0.0.1:1", revision="2026-11-01")


def estimator(config: FleetConfig = REMOTE, *cards: Card, **more: Any) -> CallEstimator:
    return CallEstimator(config=config, cards={card.name: card for card in cards or (READER,)}, **more)


def call(**more: Any) -> CallRequest:
    given: dict[str, Any] = {
        "run": "r",
        "node": "n",
        "attempt": 1,
        "kind": "agent",
        "name": "reader",
        "inputs": {"text": "hello"},
    } | more
    return CallRequest(**given)


def reader(**settings: Any) -> Card:
    return Card.declare("reader", input=TEXT, output={"type": "string"}, prompt="Read: {{ text }}", **settings)


@given(st.lists(st.text(max_size=40)))
def test_prompt_bound_covers_any_normalization(texts: list[str]) -> None:
    most = max_prompt_tokens([ChatMessage("user", text) for text in texts], 0)
    assert most >= sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    assert most >= sum(len(unicodedata.normalize("NFC", text).encode("utf-8", "surrogatepass")) for text in texts)


def test_prompt_bound_covers_all_parts() -> None:
    short, long, again = (
        estimator().estimate(one).prompt_tokens
        for one in (call(), call(inputs={"text": "é" * 100}), call(feedback=("no",)))
    )
    assert short >= len("Read: hello")
    assert long >= short + 200 - len("hello")
    assert again > short


def test_prompt_bound_includes_template_tokens() -> None:
    usual, talkative = (
        estimator(endpoints("http://127.0.0.1:1", template_tokens=tokens)).estimate(call()) for tokens in (96, 400)
    )
    assert talkative.prompt_tokens - usual.prompt_tokens == 304


@pytest.mark.parametrize(("asked", "most", "least"), [(None, 64, 9), (20, 20, 9), (5, 5, 5), (1000, 64, 9)])
def test_output_bound_of_card_and_call(asked: int | None, most: int, least: int) -> None:
    measure = estimator().estimate(call(max_output=asked))
    assert (measure.max_output, measure.min_output) == (most, least)


def test_estimate_without_model_is_empty() -> None:
    broken = Card.declare("broken", input=TEXT, output={"type": "string"}, prompt="{{ text.no.such }}")
    code = reader().model_copy(update={"name": "code", "kind": "python"})
    asked = [call(name="nobody"), call(version="0" * 32), call(name="broken"), call(name="code")]
    assert [estimator(REMOTE, READER, broken, code).estimate(one) for one in asked] == [NO_ESTIMATE] * 4


SAME = [{"node": "m"}, {"run": "s"}, {"attempt": 2}, {"priority": 3}, {"max_output": 7}, {"timeout": 1.0}]


@pytest.mark.parametrize("changed", SAME)
def test_fleet_memo_key_ignores_node_and_run(changed: dict[str, Any]) -> None:
    assert estimator().estimate(call(**changed)).memo_key == estimator().estimate(call()).memo_key != ""


@pytest.mark.parametrize(
    "changed",
    [
        {"inputs": {"text": "hullo"}},
        {"label": "public"},
        {"feedback": ("no",)},
        {"evidence": (EvidenceSource("hello"),)},
        {"sample": 1},
    ],
)
def test_fleet_memo_key_depends_on_content(changed: dict[str, Any]) -> None:
    assert estimator().estimate(call(**changed)).memo_key not in ("", estimator().estimate(call()).memo_key)


@pytest.mark.parametrize(
    "other",
    [
        estimator(tenant="acme"),
        estimator(constraint="none"),
        estimator(endpoints("http://127.0.0.1:1", revision="2026-11-02")),
        estimator(endpoints("http://127.0.0.1:1", revision="2026-11-01", model="n")),
        estimator(endpoints("http://127.0.0.1:1", "http://127.0.0.1:2", revision="2026-11-01")),
        estimator(REMOTE, reader(max_output=65)),
        estimator(REMOTE, reader(adapter="skill")),
        estimator(REMOTE, reader(sampling={"temperature": 0.5, "seed": 1})),
    ],
)
def test_fleet_memo_key_depends_on_callee(other: CallEstimator) -> None:
    assert other.estimate(call()).memo_key not in ("", estimator().estimate(call()).memo_key)


def test_memo_key_escalated_differs() -> None:
    config = endpoints("http://127.0.0.1:1", "http://127.0.0.1:2", revision="1")
    config = config.model_copy(update={"models": {"base": "s0", "big": "s1"}, "escalate": "big"})
    memos = {estimator(config).estimate(call(tier=tier)).memo_key for tier in (0, 1, 2)}
    assert len(memos - {""}) == 2


@pytest.mark.parametrize(
    ("unsure", "asked"),
    [
        (estimator(endpoints("http://127.0.0.1:1")), call()),
        (estimator(REMOTE, reader(sampling={"temperature": 0.5})), call()),
        (estimator(REMOTE, reader(model="bas")), call()),
        (estimator(REMOTE), call(tier=1)),
        (estimator(REMOTE), call(inputs={"text": "\ud800"})),
        (estimator(endpoints("http://127.0.0.1:1", revision="1", label="public")), call()),
    ],
    ids=["no revision", "no seed", "no model", "no larger model", "no JSON", "no clearance"],
)
def test_memo_key_random_answer_has_none(unsure: CallEstimator, asked: CallRequest) -> None:
    assert unsure.estimate(asked).memo_key == ""


def weights(folder: Path, content: bytes = b"{}") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(content)
    os.utime(folder / "model.safetensors", ns=(0, len(content)))
    return folder


def local(folder: Path, tmp_path: Path, **server: Any) -> CallEstimator:
    model_store = ModelStore(Folders(tmp_path, tmp_path, tmp_path))
    return estimator(
        local_config("m", weights={"licence": "none", "sources": [{"folder": str(folder)}]}, **server),
        model_store=model_store,
    )


def test_memo_key_changed_weights_differ(tmp_path: Path) -> None:
    first = local(weights(tmp_path / "w"), tmp_path).estimate(call()).memo_key
    same = local(tmp_path / "w", tmp_path).estimate(call()).memo_key
    other = local(weights(tmp_path / "w", b"{} "), tmp_path).estimate(call()).memo_key
    assert first == same != ""
    assert other not in ("", first)


def test_memo_key_serving_settings_differ(tmp_path: Path) -> None:
    folder = weights(tmp_path / "w")
    servers = [
        local(folder, tmp_path, **more) for more in ({}, {"dtype": "float16"}, {"device": "cpu"}, {"port": 5000})
    ]
    memos = [one.estimate(call()).memo_key for one in servers]
    assert len(set(memos)) == 3
    assert memos[0] == memos[3]


def test_memo_key_missing_weights_has_none(tmp_path: Path) -> None:
    one = local(tmp_path / "w", tmp_path)
    assert one.estimate(call()).memo_key == ""
    weights(tmp_path / "w")
    assert one.estimate(call()).memo_key != ""


def test_memo_key_adapter_by_its_weights(tmp_path: Path) -> None:
    memos = set()
    for content in (b"a", b"b", b"a"):
        folder = tmp_path / "skill"
        folder.mkdir(exist_ok=True)
        (folder / "adapter_model.safetensors").write_bytes(content)
        (folder / "adapter_config.json").write_text("{}")
        config = local_config(
            "m",
            weights={"licence": "none", "sources": [{"folder": str(weights(tmp_path / "w"))}]},
            adapters={"skill": str(folder)},
            max_loras=2,
        )
        memos.add(
            estimator(config, reader(adapter="skill"), model_store=ModelStore(Folders(tmp_path, tmp_path, tmp_path)))
            .estimate(call())
            .memo_key
        )
    assert len(memos - {""}) == 2


def replaced(file: Path, content: bytes) -> None:
    """Replaces a file by a new one, as a promotion does."""
    file.with_name("new").write_bytes(content)
    os.replace(file.with_name("new"), file)


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json"])
def test_memo_key_replaced_adapter_differs(file: str, tmp_path: Path) -> None:
    folder = tmp_path / "skill"
    folder.mkdir()
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (folder / name).write_bytes(b"{}")
    adapted = local(weights(tmp_path / "w"), tmp_path, adapters={"skill": str(folder)}, max_loras=2)
    one = estimator(adapted.config, reader(adapter="skill"), model_store=adapted.model_store)
    before = one.estimate(call()).memo_key
    replaced(folder / file, b"[]")
    after = one.estimate(call()).memo_key
    (folder / file).unlink()
    gone = one.estimate(call()).memo_key
    assert len({before, after, gone}) == 3
    assert gone == ""
    replaced(folder / file, b"{}")
    assert one.estimate(call()).memo_key == before


def test_estimate_old_card_version_is_used() -> None:
    older = reader(max_output=7)
    assert estimator(cards_by_digest={older.digest: older}).estimate(call(version=older.digest)).max_output == 7


@pytest.mark.parametrize("text", ["Example one.", "Example two. " * 100])
def test_estimate_untuned_instructions_are_covered(tmp_path: Path, text: str) -> None:
    (tmp_path / "agent.yaml").write_text("name: reader\ninput: {text: str}\noutput: str\nadapter: a\nuntuned: u.md\n")
    (tmp_path / "prompt.md").write_text("Read: {{ text }}")
    (tmp_path / "u.md").write_text(text)
    card = Card.load(tmp_path)
    bare = estimator(REMOTE, card.with_settings(untuned=None)).estimate(call())
    found = estimator(REMOTE, card).estimate(call())
    assert found.prompt_tokens >= bare.prompt_tokens + len(text.strip())
    assert len({found.memo_key, bare.memo_key, ""}) == 3
