"""Agent selection on the command line: in dry runs and in finished runs."""

from __future__ import annotations

import html
from pathlib import Path

import pytest

from orchestra.core.protocols import CallRequest
from tests.cli.shell import Shell
from tests.cli.stage import Simulated

FLEET = """\
schema: orchestra/fleet/v1
name: nowhere
servers: {small: {endpoint: "http://127.0.0.1:9/v1", model: m, max_model_len: 4096, external: false, label: restricted}}
models: {base: small}
"""
CARD = """\
schema: orchestra/v1
name: NAME
description: Answers.
input: {text: str}
output: OUT
prompt: prompt.md
model: base
max_output: MOST
"""
FLOW = """\
schema: orchestra/v1
name: desk
input: {text: str}
output: ${reply}
nodes:
  intent: {agent: intent, with: {text: "${input.text}"}}
  reply:
    agent: {by: "${intent}", of: {lost: card, stolen: card}, otherwise: general}
    with: {text: "${input.text}"}
    checks: [schema]
"""


@pytest.fixture
def desk(shell: Shell) -> Shell:
    """A workflow that calls one of two agents, by an intent that is the text's first word."""
    cards = {"intent": ("\"Literal['lost', 'stolen', 'other']\"", "4"), "card": ("str", "10"), "general": ("str", "90")}
    files = {
        f"agents/{name}/agent.yaml": CARD.replace("NAME", name).replace("OUT", out).replace("MOST", n)
        for name, (out, n) in cards.items()
    }
    files |= {f"agents/{name}/prompt.md": "{{ text }}\n" for name in cards}
    files |= {"configs/nowhere.yaml": FLEET, "workflows/desk.yaml": FLOW, "orchestra.toml": 'fleet = "nowhere"\n'}
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)

    def answer(call: CallRequest) -> str:
        word = str(call.inputs["text"]).partition(" ")[0]
        return word if call.name == "intent" else f"{call.name} says"

    shell.opener = Simulated(answer)
    return shell


def test_dry_run_counts_only_the_most_expensive_alternative(desk: Shell) -> None:
    said = desk("run", "desk", "-i", "text=lost", "--dry-run")
    told = " ".join(said.out.split())
    assert said.code == 0, said.err
    assert "reply/card where ${intent} is lost or stolen" in told
    assert "reply/general where ${intent} is not lost or stolen" in told
    found = desk("run", "desk", "-i", "text=lost", "--dry-run", "--json").json
    nodes = {one["node"]: one for one in found["nodes"]}
    assert set(nodes) == {"intent", "reply/card", "reply/general"}
    assert nodes["reply/card"]["choice_labels"] == "${intent} is lost or stolen"
    assert found["calls"] == nodes["intent"]["calls"] + nodes["reply/general"]["calls"]
    assert found["output_tokens"] == nodes["intent"]["output_tokens"] + nodes["reply/general"]["output_tokens"]


def test_a_run_says_which_agent_was_chosen_and_why(desk: Shell) -> None:
    run = str(desk("run", "desk", "-i", "text=stolen today", "--json").json["run"])
    assert 'reply: chose card, for intent is "stolen"' in desk("runs", "show", run).out
    assert 'reply: chooses card, for intent is "stolen"' in desk("runs", "tail", run, "--no-follow").out
    assert desk("runs", "show", run, "reply", "--json").json["because"] == 'card, for intent is "stolen"'
    assert 'chose card, for intent is "stolen"' in desk("runs", "show", run, "reply").out
    explained = " ".join(desk("runs", "show", run, "--explain").out.split())
    assert "general general" in explained
    assert "skipped" in explained


def test_page_shows_the_chosen_agent(desk: Shell) -> None:
    run = str(desk("run", "desk", "-i", "text=other things", "--json").json["run"])
    assert desk("runs", "show", run, "--html", "page.html").code == 0
    assert 'reply: chose general, for intent is "other"' in html.unescape(Path("page.html").read_text("utf-8"))


def test_labels_without_an_agent_are_reported_before_the_run(desk: Shell) -> None:
    Path("workflows/desk.yaml").write_text(FLOW.replace(", otherwise: general", ""))
    said = desk("validate", "workflows/desk.yaml")
    assert said.code == 2
    assert "L122: no agent for 1 label: other" in said.err
