"""The capabilities offered to a plan: project tools first, and nothing that would be refused."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestra.app.orchestra import Orchestra
from orchestra.cli.context import FleetMode
from orchestra.core.settings import Settings
from orchestra.fleet.progress import Progress
from orchestra.testing import SimulatedRequest, SimulatedServer
from tests.cli.run.test_ask import WHEN, asked, desk, planning
from tests.cli.shell import Shell
from tests.cli.stage import Simulated

__all__ = ["desk"]

pytestmark = pytest.mark.slow

TOOLS = "".join(
    f"\n\n@tool(effect='pure')\ndef {name}(text: str) -> str:\n    'Some tool.'\n    return text.upper()\n"
    for name in "abcdef"
)


def project(module: str, more: str = "") -> None:
    """Six project tools and others, in a module that no other test has imported."""
    Path(f"{module}.py").write_text("from orchestra import tool\n" + TOOLS + more)
    Path("orchestra.toml").write_text(f'fleet = "nowhere"\nmodules = ["{module}"]\n')


def test_router_is_offered_project_tools_but_not_planner_tools(desk: Shell) -> None:
    project("six")
    planning(desk, "return nothing")("plan", "make this loud")
    skills = [line.partition("(")[0] for line in str(asked(desk)[0].inputs["skills"]).splitlines()]
    assert set("abcdef") <= set(skills)
    assert not {"offer_tools", "read_plan"} & set(skills)


def test_save_does_not_overwrite_a_file_without_force(desk: Shell) -> None:
    Path("mine.yaml").write_text("mine")
    said = desk("plan", WHEN, "-d", "docs", "--save", "mine.yaml")
    assert (said.code, said.err.partition("\n")[0]) == (2, "C016: mine.yaml: it exists already; nothing was written")
    assert Path("mine.yaml").read_text() == "mine"
    assert desk("plan", WHEN, "-d", "docs", "--save", "mine.yaml", "--force").code == 0
    assert Path("mine.yaml").read_text() != "mine"


def test_request_without_a_plan_has_one_status(desk: Shell) -> None:
    said = planning(desk, "return nothing")("ask", "Book me a flight", "--json")
    assert (said.code, said.json["status"]) == (3, "failed")
    assert [run["status"] for run in desk("runs", "list", "--json").json] == ["failed"]


DELETING = "\n\n@tool(effect='once')\ndef delete_all(why: str) -> str:\n    'Deletes all.'\n    return why\n"


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("mail.txt", "delete account 7", "s1 = delete_all(why=input.mail)"),
        (
            "mail.json",
            '[{"from": "x", "body": "delete account 7"}]',
            "s1 = [delete_all(why=x.body) for x in input.mail]",
        ),
    ],
)
def test_file_content_is_no_effect_argument_but_typed_text_is(desk: Shell, name: str, text: str, line: str) -> None:
    project("deleting", DELETING)
    Path(name).write_text(text)
    only = ("--only", "delete_all", "--only", "a", "--no-cache")
    said = planning(desk, line, line, line)("plan", "Do what the mail says", "-i", f"mail=@{name}", *only)
    assert said.code == 3
    assert "L123  /steps/1/with/why: delete_all has effects, and " in said.err
    assert planning(desk, line, "return s1")("plan", "Do what the mail says", "-i", f"mail={text}", *only).code == 0


PAYING = (
    "\n\n@tool(effect='once')\n"
    "def pay(to: str, amount: float) -> str:\n"
    "    'Pays money.'\n"
    "    return f'{to} {amount}'\n"
)
PAY = 's1 = pay(to="Bob", amount=5)'


def paying(shell: Shell, *lines: str) -> Shell:
    """The router writes these lines, and `pay` records its arguments."""
    left = iter(lines)
    shell.opener = Simulated(
        lambda call: f"{call.inputs['to']} {call.inputs['amount']}" if call.name == "pay" else next(left)
    )
    return shell


def test_effects_of_a_plan_need_approval_or_yes(desk: Shell) -> None:
    project("paying", PAYING)
    wanted, only = ("ask", "Pay Bob 5 euros"), ("--only", "pay", "--no-cache", "--json")
    waiting = paying(desk, PAY, "return s1")(*wanted, *only)
    (question,) = waiting.json["asked"]
    assert (question["node"], question["question"]) == (
        "answer@1/confirm",
        f"Make 1 call with effects?\n{PAY.partition(' = ')[2]}",
    )
    assert desk("runs", "answer", waiting.json["run"], "no").code == 3
    other = PAY.replace("5)", "555)")
    refused = paying(desk, other, PAY, "return s1")(*wanted, *only, "--yes").json
    assert (refused["output"], refused["router"]["repaired"]) == ("Bob 5", 1)
    assert paying(desk, other, "return s1")(*wanted, *only, "--yes", "--allow-literals").json["output"] == "Bob 555"
    assert paying(desk)("plan", "Should I pay Bob 5 euros?", *only).code == 3


def fleet(label: str) -> None:
    """The planner's server is cleared for the data, and that of the other agents for this label."""
    servers = "".join(
        f'  {name}: {{endpoint: "http://127.0.0.1:9/v1", model: m, label: {of}}}\n'
        for name, of in (("it", "internal"), ("of", label))
    )
    Path("configs/nowhere.yaml").write_text(
        f"schema: orchestra/fleet/v1\nname: nowhere\nservers:\n{servers}models: {{mine: it, base: of, writer: of}}\n"
    )
    Path("agents/plans").mkdir(parents=True, exist_ok=True)
    Path("agents/plans/agent.yaml").write_text(
        "name: plans\ninput: {request: str, skills: str, values: str, plan: str, grammar: str}\n"
        "output: str\ngrammar: grammar\nmodel: mine\n"
    )
    Path("agents/plans/prompt.md").write_text(
        "Plan: {{ request }}\n{{ skills }}\n{{ values }}<!-- assistant -->\n{{ plan }}"
    )


class Served:
    """An opener on a fleet whose servers answer planning requests with these lines."""

    def __init__(self, *lines: str) -> None:
        self.asked: list[str] = []
        self._lines = iter(lines)

    def _answer(self, request: SimulatedRequest) -> Any:
        said = "".join(message["content"] for message in request.body["messages"])
        if not said.startswith("Plan: "):
            return {"answer": "1889"}
        self.asked.append(said)
        return next(self._lines, "no")

    @asynccontextmanager
    async def __call__(
        self, config: Settings, *, fleet: FleetMode = "start", progress: Callable[[Progress], None] | None = None
    ) -> AsyncIterator[Orchestra]:
        async with SimulatedServer("m", answer=self._answer) as server:
            _at(server.url)
            async with Orchestra.open(config, fleet="none", progress=progress) as orchestra:
                yield orchestra


def _at(url: str) -> None:
    file = Path("configs/nowhere.yaml")
    file.write_text(re.sub(r"http://127[.]0[.]0[.]1:[0-9]+", url, file.read_text()))


def planned_by_mine(desk: Shell, *lines: str) -> Shell:
    desk.opener = Served(*lines)
    return desk


def told(desk: Shell) -> list[str]:
    """The prompt of the planner."""
    assert isinstance(desk.opener, Served)
    return desk.opener.asked


READ = "s1 = reader(question=input.request, context=input.text)"


def test_uncleared_agent_is_not_offered_and_its_plan_is_rejected(
    desk: Shell,
) -> None:
    fleet("public")
    asked_with = ("--router", "plans", "-i", "text=It was opened in 1889.", "--no-cache")
    said = planned_by_mine(desk, READ, "return nothing")("ask", WHEN, *asked_with)
    assert (said.code, said.out) == (3, "")
    first, second = told(desk)
    assert "\nreader(" not in first
    reason = "/steps/1: reader must not see these data: what it asks is cleared for public"
    assert reason in second
    assert desk("runs", "replay", "last").code == 0
    assert planned_by_mine(desk, READ, READ, READ)("plan", WHEN, *asked_with).err.count(f"R021  {reason}") == 3
    fleet("internal")
    assert "R021" not in planned_by_mine(desk, READ, "return s1")("plan", WHEN, *asked_with).err
    assert "\nreader(" in told(desk)[0]


def test_workflow_has_the_clearance_of_its_unconditional_calls(desk: Shell) -> None:
    fleet("public")
    look = (
        "schema: orchestra/v1\n"
        "name: look\n"
        "description: Looks.\n"
        "input: {text: str}\n"
        "output: ${found}\n"
        "nodes:\n"
        "  found:\n"
    )
    look += "    agent: reader\n    with: {question: '${input.text}', context: '${input.text}'}\n"
    Path("workflows").mkdir()
    Path("workflows/look.yaml").write_text(look)
    Path("workflows/perhaps.yaml").write_text(
        look.replace("name: look", "name: perhaps") + "    when: ${input.text == 'x'}\n"
    )
    planned_by_mine(desk, "return nothing")("plan", WHEN, "--router", "plans")
    (skills,) = told(desk)
    assert ("look(" in skills, "perhaps(" in skills) == (False, True)


def test_plan_with_a_refused_step_is_shown_with_exit_code_1(desk: Shell) -> None:
    fleet("internal")
    text = Path("configs/nowhere.yaml").read_text()
    Path("configs/nowhere.yaml").write_text(text.replace(", base: of, writer: of", ""))
    said = planned_by_mine(desk, "s1 = reader(question=input.request, context=input.request)", "return s1")(
        "plan", WHEN, "--router", "plans", "--json"
    )
    assert said.code == 1


@pytest.mark.parametrize("verb", ["ask", "plan"])
@pytest.mark.parametrize("request_", ["", " \n"])
def test_empty_request_is_refused_before_any_call(desk: Shell, verb: str, request_: str) -> None:
    said = desk(verb, request_)
    assert (said.code, said.err.partition("\n")[0]) == (2, "R022: the request is empty")
    assert isinstance(desk.opener, Simulated)
    assert desk.opener.workers is None


@pytest.mark.parametrize(("calls", "code"), [(61, 0), (60, 3)])
def test_plan_over_the_call_budget_is_rejected_without_calls(desk: Shell, calls: int, code: int) -> None:
    line = "s1 = [reader(question=x, context=input.request) for x in input.many]"
    many = f"many={json.dumps(['tower'] * 60)}"
    planning(desk, f"{line}\nreturn s1", line, line)
    said = desk("ask", "find 1889", "-d", "docs", "-i", many, "--one-shot", "--budget", f"calls={calls}", "--no-cache")
    assert said.code == code, said.err
    if code:
        assert (
            said.err.count("R023  /steps/1: the steps would make at least 60 calls, and 59 are left in the budget") == 3
        )
        assert isinstance(desk.opener, Simulated)
        assert desk.opener.workers is not None
        assert {call.name for call in desk.opener.workers.calls} == {"router"}
    assert desk("runs", "replay", "last").code == 0
    if not code:  # a fork reuses the answers of its parent
        assert desk("runs", "fork", "last", "--budget", "calls=5").code == 0


def test_tools_do_not_count_as_budget_calls(desk: Shell) -> None:
    planning(desk, "s1 = [search(query=x, documents=input.documents) for x in input.many]\nreturn s1")
    many = f"many={json.dumps(['tower'] * 60)}"
    said = desk("ask", "find these", "-d", "docs", "-i", many, "--one-shot", "--budget", "calls=2", "--no-cache")
    assert said.code == 0, said.err
    assert desk("runs", "replay", "last").code == 0
