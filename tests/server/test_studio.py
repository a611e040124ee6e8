"""The studio in a real browser: the exported file of a run, and the pages of a server with a scripted fleet."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from orchestra.app.html.content import RunContent
from orchestra.app.html.saved_run import render_saved_run
from orchestra.app.run_record import read_run_record
from orchestra.core.events import AttemptFinished, Event, MapExpanded, NodeFinished, RunFinished, RunStarted, Usage
from orchestra.core.outcomes import AbstainedOutcome, ValueOutcome
from orchestra.journal.sqlite.journal import SqliteJournal
from orchestra.schema.strict_json import digest
from tests.app.html_pages import GRAPH, HOSTILE, quoting_run
from tests.server.studio_project import DOCUMENTS, QUESTION, serve_studio

playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
from playwright.sync_api import Browser, Page, expect, sync_playwright  # noqa: E402 - after the check that it is there

CHROMIUM = "/usr/bin/chromium"
pytestmark = pytest.mark.skipif(not os.access(CHROMIUM, os.X_OK), reason=f"there is no browser at {CHROMIUM}")
ELEMENTS, STEPS = 10_000, 500
DRAWN = 200
"""Rows or boxes that are drawn at most, of however many."""
WIDE, NARROW = {"width": 1440, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The distribution's Chromium."""
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the project of `studio_project`."""
    pytest.importorskip("orchestra.server.application", reason="the extra `server` is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        with serve_studio(tmp_path_factory.mktemp("project")) as address:
            yield Server(address)


class Server:
    """A running server and its HTTP interface."""

    def __init__(self, address: str) -> None:
        self.address = address

    def get(self, path: str) -> Any:
        """Returns the JSON of a route."""
        with urllib.request.urlopen(f"{self.address}/{path}") as reply:
            return json.load(reply)

    def post(self, path: str, body: Any) -> Any:
        """Posts JSON and returns the answer."""
        request = urllib.request.Request(
            f"{self.address}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)

    def review(self, *, answer: str = "") -> str:
        """Runs `report_review` until it asks a person, or with an answer to its end; returns the id."""
        inputs = {"question": QUESTION, "documents": DOCUMENTS}
        started = self.post("api/runs", {"workflow": "report_review", "inputs": inputs, "timeout": 60})
        run = str(started["id"])
        assert started["status"] == "waiting"
        if answer:
            self.post(f"api/runs/{run}/answers", {"value": answer, "by": "ada"})
            self.get(f"api/runs/{run}/answer?wait=60")
        return run


class Tab:
    """A page of the browser, with its faults."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.faults: list[str] = []
        self.requests: list[str] = []
        page.on("pageerror", lambda fault: self.faults.append(str(fault)))
        page.on("console", lambda line: self.faults.append(line.text) if line.type == "error" else None)
        page.on("request", lambda request: self.requests.append(request.url))

    def violations(self) -> list[str]:
        """What axe objects to."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        return [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found]


@pytest.fixture
def tab(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Tab]:
    """A new tab; it ends without faults."""
    context = browser.new_context(**{"viewport": WIDE, **getattr(request, "param", {})})
    opened = Tab(context.new_page())
    yield opened
    context.close()
    assert opened.faults == []


def save_run(folder: Path, events: list[Event], graph: bytes = GRAPH) -> Path:
    """Writes the exported file of a run with these events."""

    async def write() -> str:
        async with SqliteJournal.open(folder / "journal.db") as journal:
            journal.put_blob(graph)
            journal.append("aaaa1111", events)
            await journal.wait_durable("aaaa1111", len(events))
            record = await read_run_record(journal, "aaaa1111", time.time(), with_blobs=True)
            return render_saved_run(RunContent(events, record.status), record)

    file = folder / "run.html"
    with ThreadPoolExecutor(1) as thread:  # a loop of Playwright runs in this one
        file.write_text(thread.submit(lambda: asyncio.run(write())).result(), "utf-8")
    return file


def test_saved_run_shows_answer_with_evidence(tmp_path: Path, tab: Tab) -> None:
    file = save_run(tmp_path, quoting_run("It was opened in 1889, in May."))
    tab.page.goto(file.as_uri())
    expect(tab.page.get_by_role("heading", level=1)).to_have_text("ask")
    expect(tab.page.locator(".inspector mark").first).to_have_text("in 1889")
    expect(tab.page.get_by_text("supported by evidence and checks").first).to_be_visible()
    assert tab.requests == [file.as_uri()], "the file loads nothing else"
    assert tab.violations() == []


def test_saved_run_without_answer_says_why(tmp_path: Path, tab: Tab) -> None:
    why = "'in 1890' does not occur in the evidence"
    file = save_run(tmp_path, quoting_run("It was opened in 1889.", quote="in 1890", reason=why, accepted=False))
    tab.page.goto(file.as_uri())
    expect(tab.page.get_by_role("heading", name="The answer is withheld")).to_be_visible()
    expect(tab.page.locator(".no-answer-why")).to_have_text(why)
    tab.page.get_by_role("button", name="See where it began").click()
    expect(tab.page.get_by_role("heading", name="reading")).to_be_focused()
    expect(tab.page.locator(".verdict").first).to_contain_text("fail")
    assert tab.violations() == []


@pytest.mark.parametrize("text", HOSTILE)
def test_saved_run_shows_hostile_text_as_text(tmp_path: Path, tab: Tab, text: str) -> None:
    events = quoting_run(f"in 1889 {text}", answer=text, quote=f"in 1889 {text}", reason=text)
    tab.page.goto(save_run(tmp_path, events).as_uri())
    expect(tab.page.locator(".claim").first).to_be_visible()
    assert tab.page.locator("img, iframe, svg[onload], .inspector script").count() == 0
    words = tab.page.locator(".inspector").inner_text()
    assert not {"\u202e", "\u2066", "\u200b", "\x1b", "\x00"} & set(words)
    if text.isascii() and text.isprintable():
        assert text in words


def long_list() -> list[Event]:
    """A run whose only node has 10,000 elements, one of them withheld."""
    made = itertools.count(1)
    events: list[Event] = [
        RunStarted(seq=next(made), at=1e9, run="aaaa1111", workflow="ask", graph=digest(GRAPH), inputs={"text": "x"}),
        MapExpanded(seq=next(made), at=1e9, node="reading", count=ELEMENTS),
    ]
    for number in range(ELEMENTS):
        node, at = f"reading[{number}]", 1e9 + number / 100
        value = {"answer": f"value {number}"}
        outcome = AbstainedOutcome("no evidence", node) if number == 7_777 else ValueOutcome(value)
        events += [
            AttemptFinished(seq=next(made), at=at, node=node, attempt=1, name="answerer", value=value),
            NodeFinished(seq=next(made), at=at, node=node, outcome=outcome),
        ]
    return events


def test_list_of_10000_elements_draws_only_what_is_in_view(tmp_path: Path, tab: Tab) -> None:
    tab.page.goto(f"{save_run(tmp_path, long_list()).as_uri()}#/?node=reading")
    expect(tab.page.get_by_role("heading", name="10,000 elements")).to_be_visible(timeout=60_000)
    tab.page.get_by_role("button", name="1 withheld").click()
    expect(tab.page.locator(".element")).to_have_count(1)
    tab.page.locator(".element").click()
    expect(tab.page.get_by_role("heading", name="reading[7777]")).to_be_visible()
    expect(tab.page.get_by_role("treeitem", name="reading[7777]")).to_be_visible()
    assert 0 < tab.page.get_by_role("treeitem").count() < DRAWN


def test_graph_of_500_nodes_draws_only_what_is_in_view(tmp_path: Path, tab: Tab) -> None:
    nodes: dict[str, Any] = {"step0": {"agent": "answerer"}}
    nodes |= {
        f"step{number}": {"agent": "answerer", "with": {"text": f"${{step{(number - 1) // 2}}}"}}
        for number in range(1, STEPS)
    }
    graph = json.dumps({"name": "ask", "output": "${step1}", "nodes": nodes}).encode()
    started = RunStarted(seq=1, at=1e9, run="aaaa1111", workflow="ask", graph=digest(graph), inputs={})
    events: list[Event] = [started]
    for number in range(STEPS):
        finished = AttemptFinished(
            seq=number + 2, at=1e9 + number, node=f"step{number}", attempt=1, value=1, final=True
        )
        events.append(finished)
    tab.page.goto(save_run(tmp_path, events, graph).as_uri())
    expect(tab.page.locator(".react-flow__node").first).to_be_visible(timeout=60_000)
    tab.page.get_by_role("treeitem").nth(5).click()
    expect(tab.page.get_by_role("heading", name="step5", exact=True)).to_be_visible()
    assert tab.page.get_by_role("treeitem").count() < DRAWN


def test_run_page_shows_why_value_may_be_believed(studio: Server, tab: Tab) -> None:
    run = studio.review(answer="yes")
    tab.page.goto(f"{studio.address}/#/runs/{run}")
    expect(tab.page.locator(".run-title .status")).to_have_text("done")
    revenue = tab.page.get_by_label("claim revenue")
    expect(revenue).to_contain_text("$612 million")
    expect(revenue).to_contain_text("supported")
    expect(revenue.locator("mark")).to_have_text("was $612 million, up from $574 million in 2024")
    expect(tab.page.get_by_label("claim outlook")).to_contain_text("not supported")
    expect(tab.page.get_by_label("claim published")).to_contain_text("given by a person")
    assert tab.violations() == []


def test_node_drawer_shows_attempts_checks_and_exact_prompt(studio: Server, tab: Tab) -> None:
    run = studio.review(answer="yes")
    tab.page.goto(f"{studio.address}/#/runs/{run}?node=revenue")
    expect(tab.page.get_by_role("heading", name="3 attempts")).to_be_visible()
    for number, state in enumerate(("rejected", "rejected", "accepted")):
        expect(tab.page.get_by_role("tab").nth(number)).to_contain_text(state)
    tab.page.get_by_role("tab").first.click()
    panel = tab.page.get_by_role("tabpanel")
    expect(panel).to_contain_text("'was $621 million' does not occur in the evidence")
    expect(panel).to_contain_text("$621 million")
    panel.get_by_role("button", name="Prompt and response").click()
    expect(panel.get_by_label("Prompt", exact=True)).to_contain_text("Answer the question from the passage only.")
    panel.get_by_role("button", name="Exact bytes").click()
    node = studio.get(f"api/runs/{run}/nodes/revenue")
    sent = node["attempts"][0]["sent"]["text"]
    expect(panel.get_by_label("Prompt", exact=True).locator("pre")).to_have_js_property("innerText", sent)
    tab.page.get_by_role("tab").last.click()
    expect(panel).to_contain_text("escalated to large")
    assert tab.violations() == []


def test_question_is_answered_in_the_page_and_run_ends(studio: Server, tab: Tab) -> None:
    run = studio.review()
    tab.page.goto(f"{studio.address}/#/runs/{run}")
    question = tab.page.get_by_role("heading", name="May this headline be published?")
    expect(question).to_be_visible()
    assert tab.violations() == []
    tab.page.get_by_label("Your name").fill("ada")
    tab.page.get_by_role("button", name="yes", exact=True).click()
    expect(tab.page.locator(".run-title .status")).to_have_text("done")
    expect(tab.page.get_by_label("claim published")).to_contain_text("given by a person")
    assert studio.get(f"api/runs/{run}/answer")["output"]["published"] == "yes"


def test_form_starts_a_run(studio: Server, tab: Tab) -> None:
    tab.page.goto(f"{studio.address}/#/start/read_one")
    tab.page.get_by_label("question").fill("How much did it earn?")
    tab.page.get_by_label("text", exact=True).fill(DOCUMENTS[0]["text"])
    assert tab.violations() == []
    tab.page.get_by_role("button", name="Run", exact=True).click()
    expect(tab.page.locator(".run-title .status")).to_have_text("done")
    expect(tab.page.get_by_label("claim answer")).to_contain_text("$612 million")


def test_error_of_server_is_shown_in_the_form(studio: Server, tab: Tab) -> None:
    tab.page.goto(f"{studio.address}/#/start/read_one")
    tab.page.get_by_role("button", name="as JSON").click()
    tab.page.get_by_label("inputs as JSON").fill('{"question": 7}')
    tab.page.get_by_role("button", name="Run", exact=True).click()
    expect(tab.page.get_by_role("alert")).to_contain_text("E013: the input 'question' of read_one")
    assert [fault for fault in tab.faults if "422" not in fault] == []
    tab.faults.clear()  # the browser logs each refused request


def test_fork_with_another_value_runs_only_what_depends_on_it(studio: Server, tab: Tab) -> None:
    run = studio.review(answer="yes")
    tab.page.goto(f"{studio.address}/#/runs/{run}?node=forecast")
    tab.page.get_by_role("button", name="Fork from here").click()
    assert tab.violations() == []
    value = {"answer": "about $600 million", "quote": "about $600 million"}
    tab.page.get_by_label("its value in the fork, as JSON").fill(json.dumps(value))
    tab.page.get_by_role("button", name="Fork", exact=True).click()
    expect(tab.page.get_by_text(f"fork of {run}")).to_be_visible()
    fork = tab.page.url.rpartition("/")[2].partition("?")[0]
    assert fork != run
    studio.get(f"api/runs/{fork}/answer?wait=60")
    tab.page.goto(f"{studio.address}/#/compare?a={run}&b={fork}")
    expect(tab.page.locator(".change").first).to_be_visible()
    expect(tab.page.get_by_text("forecast", exact=True)).to_be_visible()
    assert tab.violations() == []


def test_fork_with_another_prompt_is_shown_in_the_comparison(studio: Server, tab: Tab) -> None:
    run = studio.review(answer="yes")
    tab.page.goto(f"{studio.address}/#/runs/{run}/fork?node=forecast")
    tab.page.get_by_text("The prompt of passage_reader").click()
    field = tab.page.get_by_label("its prompt in the fork")
    field.fill(f"{field.input_value()}\nAnswer in one word.")
    assert tab.violations() == []
    with tab.page.expect_response(lambda reply: reply.url.endswith("/fork")) as sent:
        tab.page.get_by_role("button", name="Fork", exact=True).click()
    fork = sent.value.json()["id"]
    expect(tab.page.get_by_text(f"fork of {run}")).to_be_visible()
    tab.page.goto(f"{studio.address}/#/compare?a={run}&b={fork}")
    expect(tab.page.get_by_role("heading", name="Prompts")).to_be_visible()
    expect(tab.page.locator("ins").filter(has_text="word.")).to_be_visible()
    assert tab.violations() == []


def ids(studio: Server, verdict: str) -> set[str]:
    """The latest runs with a verdict."""
    return {str(one["id"]) for one in studio.get(f"api/runs?verdict={verdict}&limit=200")["items"]}


def test_list_of_runs_filters_by_verdict_and_cost(studio: Server, tab: Tab) -> None:
    run = studio.review(answer="yes")
    tab.page.goto(f"{studio.address}/#/runs?verdict=none")
    expect(tab.page.get_by_text("No run matches")).to_be_visible()
    verdict = next(one for one in ("pass", "fail") if run in ids(studio, one))
    tab.page.get_by_label("verdict").select_option(verdict)
    expect(tab.page.locator("tbody").get_by_text(run, exact=True)).to_be_visible()
    tab.page.get_by_label("tokens from").fill("999999999")
    expect(tab.page.get_by_text("No run matches")).to_be_visible()
    tab.page.get_by_role("button", name="clear").click()
    expect(tab.page.locator("tbody").get_by_text(run, exact=True)).to_be_visible()
    assert tab.violations() == []


def test_list_of_runs_filters_by_status_and_words(studio: Server, tab: Tab) -> None:
    done, waiting = studio.review(answer="yes"), studio.review()
    tab.page.goto(f"{studio.address}/#/runs")
    expect(tab.page.get_by_text(done)).to_be_visible()
    tab.page.get_by_role("group", name="status").get_by_role("button", name="waiting").click()
    expect(tab.page.get_by_text(waiting)).to_be_visible()
    expect(tab.page.get_by_text(done)).to_have_count(0)
    tab.page.get_by_label("text", exact=True).fill("no such words")
    expect(tab.page.get_by_text("No run matches")).to_be_visible()
    assert tab.violations() == []


def null_run(folder: Path) -> Path:
    """The exported file of a run that found nothing: one node is withheld, and another says what is missing."""
    reply = {"text": None, "missing": ["the price of the tower"], "findings": [], "citations": [], "cells": []}
    graph = {
        "name": "ask",
        "output": {"year": "${reading.year}", "price": "${lookup}", "reply": "${finding}"},
        "nodes": {"reading": {"agent": "answerer"}, "lookup": {"tool": "search"}, "finding": {"tool": "cite"}},
    }
    data = json.dumps(graph).encode()
    value = {"year": None, "price": None, "reply": reply}
    usage = Usage(calls=2, prompt_tokens=1234, output_tokens=56, money=0.25)
    events: list[Event] = [
        RunStarted(seq=1, at=1e9, run="aaaa1111", workflow="ask", graph=digest(data), inputs={"text": "x"}),
        AttemptFinished(
            seq=2, at=1e9 + 1, node="reading", attempt=1, value={"year": None}, usage=usage, model="m", final=True
        ),
        NodeFinished(seq=3, at=1e9 + 2, node="lookup", outcome=AbstainedOutcome("no table has a price", "lookup")),
        AttemptFinished(seq=4, at=1e9 + 3, node="finding", attempt=1, value=reply, final=True),
        RunFinished(seq=5, at=1e9 + 4, status="done", outcome=ValueOutcome(value), usage=usage),
    ]
    return save_run(folder, events, data)


SCREENS = {
    "light": {"viewport": WIDE, "color_scheme": "light"},
    "dark": {"viewport": WIDE, "color_scheme": "dark"},
    "narrow": {"viewport": NARROW, "color_scheme": "light"},
}


@pytest.mark.parametrize("tab", SCREENS.values(), ids=SCREENS, indirect=True)
def test_answer_without_a_value_says_what_is_missing(tmp_path: Path, tab: Tab) -> None:
    tab.page.goto(null_run(tmp_path).as_uri())
    missing = tab.page.get_by_role("region", name="No answer was found")
    expect(missing).to_be_visible()
    expect(missing.get_by_role("listitem")).to_have_text(
        [
            "year: reading found nothing: its value is null see reading",
            "price: no table has a price see lookup",
            "reply: not found: the price of the tower see finding",
        ]
    )
    expect(tab.page.get_by_text("The output claims nothing")).to_have_count(0)
    expect(tab.page.get_by_role("heading", name="Why this answer may be believed")).to_have_count(0)
    assert tab.violations() == []
    assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    missing.get_by_role("button", name="see lookup").click()
    expect(tab.page.get_by_role("heading", name="lookup")).to_be_visible()


@pytest.mark.parametrize("tab", SCREENS.values(), ids=SCREENS, indirect=True)
def test_run_page_shows_usage_in_total_and_by_node(studio: Server, tab: Tab) -> None:
    run = studio.review(answer="yes")
    total = studio.get(f"api/runs/{run}/answer")["usage"]
    nodes = {one["path"]: one["usage"] for one in studio.get(f"api/runs/{run}/nodes")["items"]}
    model_calls = total["calls"] - nodes["passages"]["calls"]  # That node calls a tool.
    tab.page.goto(f"{studio.address}/#/runs/{run}")
    section = tab.page.get_by_role("region", name="Usage", exact=True)
    expect(section).to_be_visible()
    facts = section.locator(".fact").all_inner_texts()
    assert [one.split("\n") for one in facts][:2] == [
        ["model calls", f"{model_calls:,}"],
        ["tokens in", f"{total['prompt_tokens']:,}"],
    ]
    assert {one.split("\n")[0] for one in facts} >= {"tokens out", "cost", "time"}
    row = section.get_by_role("row", name="revenue").get_by_role("cell").all_inner_texts()
    used = nodes["revenue"]
    assert row[:3] == [f"{used[name]:,}" for name in ("calls", "prompt_tokens", "output_tokens")]
    table = section.get_by_role("region", name="usage by node")
    assert table.evaluate("box => box.scrollWidth <= box.clientWidth")
    section.get_by_role("button", name="revenue").click()
    expect(tab.page.get_by_role("region", name="Usage", exact=True)).to_contain_text(f"{used['prompt_tokens']:,}")
    assert tab.violations() == []
    assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("page", ["runs", "start", "ask", "agents", "fleet", "costs", "compare", "start/report_review"])
@pytest.mark.parametrize(
    "tab", [{}, {"viewport": NARROW, "color_scheme": "dark"}], ids=["wide", "narrow"], indirect=True
)
def test_page_is_accessible_and_fits(studio: Server, tab: Tab, page: str) -> None:
    tab.page.goto(f"{studio.address}/#/{page}")
    expect(tab.page.get_by_role("heading", level=1)).to_be_visible()
    expect(tab.page.locator("p.empty[role=status]")).to_have_count(0)
    assert tab.violations() == []
    assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("tab", [{"viewport": NARROW, "color_scheme": "dark"}], indirect=True)
def test_run_page_on_a_narrow_dark_screen(studio: Server, tab: Tab) -> None:
    run = studio.review(answer="yes")
    tab.page.goto(f"{studio.address}/#/runs/{run}")
    for part in ("Answer", "Graph", "Timeline"):
        tab.page.get_by_role("button", name=part, exact=True).click()
        assert tab.violations() == []
        assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_timeline_is_operated_by_keys(studio: Server, tab: Tab) -> None:
    run = studio.review(answer="yes")
    tab.page.goto(f"{studio.address}/#/runs/{run}")
    tree = tab.page.get_by_role("tree")
    tree.focus()
    tab.page.keyboard.press("Home")
    first = tab.page.get_by_role("treeitem", selected=True)
    name = first.get_attribute("aria-label")
    expect(tab.page.locator(".node-title")).to_be_visible()
    tree.focus()
    tab.page.keyboard.press("ArrowDown")
    assert name is not None
    expect(tab.page.get_by_role("treeitem", selected=True)).not_to_have_attribute("aria-label", name)
    tree.focus()
    tab.page.keyboard.press("Escape")
    expect(tab.page.get_by_role("heading", name="Why this answer may be believed")).to_be_visible()


def test_earlier_moment_shows_nodes_as_they_were(studio: Server, tab: Tab) -> None:
    run = studio.review(answer="yes")
    tab.page.goto(f"{studio.address}/#/runs/{run}")
    tab.page.get_by_role("slider").focus()
    tab.page.keyboard.press("Home")
    expect(tab.page.get_by_role("button", name="Back to the end")).to_be_visible()
    expect(tab.page.locator(".node-box.status-pending")).not_to_have_count(0)
    tab.page.keyboard.press("End")
    expect(tab.page.locator(".node-box.status-pending")).to_have_count(0)


def test_ask_shows_plan_with_its_rejected_line(studio: Server, tab: Tab) -> None:
    tab.page.goto(f"{studio.address}/#/ask")
    tab.page.get_by_label("Your request").fill("When does the tariff of Northwind Grid take effect?")
    tab.page.get_by_role("button", name="Write a text").click()
    tab.page.get_by_label("text of document 1").fill(DOCUMENTS[2]["text"])
    tab.page.get_by_text("Options").click()
    tab.page.get_by_label("use only these").fill("search")
    assert tab.violations() == []
    tab.page.get_by_role("button", name="Ask", exact=True).click()
    expect(tab.page.locator(".run-title .status")).not_to_have_text("running")
    tab.page.get_by_role("treeitem").first.click()
    expect(tab.page.locator(".plan-lines")).to_contain_text("s1 = search(query=input.request")
    expect(tab.page.get_by_text("there is no 'serch'")).to_be_visible()
    expect(tab.page.get_by_text("did you mean search?")).to_be_visible()
    assert tab.violations() == []


def test_run_page_is_live_while_the_run_works(studio: Server, tab: Tab) -> None:
    inputs = {"texts": [f"This is item {number} of the list." for number in range(60)]}
    run = studio.post("api/runs", {"workflow": "read_many", "inputs": inputs, "mode": "background"})["id"]
    tab.page.goto(f"{studio.address}/#/runs/{run}")
    expect(tab.page.locator(".run-title .status")).to_have_text("done")
    expect(tab.page.locator(".run-facts")).to_contain_text("60 calls")
    expect(tab.page.locator(".node-count")).to_have_text("60 elements")


def test_statuses_of_nodes_are_those_of_the_server(studio: Server, tab: Tab) -> None:
    run = studio.review(answer="yes")
    tab.page.goto(f"{studio.address}/#/runs/{run}")
    expect(tab.page.get_by_role("treeitem").first).to_be_visible()
    tab.page.evaluate("document.querySelectorAll('[aria-expanded=false] .fold').forEach((one) => one.click())")
    words = {"abstained": "withheld", "given": "by a person"}
    expected = {
        row["path"]: words.get(row["display_status"], row["display_status"])
        for row in studio.get(f"api/runs/{run}/nodes?limit=200")["items"]
    }
    expected["approval"] = "by a person"  # the server calls the answer of a person done
    shown = [str(one.get_attribute("aria-label")) for one in tab.page.get_by_role("treeitem").all()]
    found = {path: rest.partition(",")[0] for path, _, rest in (one.partition(": ") for one in shown)}
    assert expected.items() >= found.items()
    assert {"revenue", "readings[2]", "headline?1", "approval"} <= found.keys()


def test_lost_connection_is_shown_and_recovers(studio: Server, tab: Tab) -> None:
    run = studio.review()
    tab.page.goto(f"{studio.address}/#/runs")
    expect(tab.page.get_by_text(run)).to_be_visible()
    tab.page.context.set_offline(True)
    expect(tab.page.get_by_text("The server cannot be reached")).to_be_visible(timeout=20_000)
    expect(tab.page.get_by_text(run)).to_be_visible()
    assert tab.violations() == []
    tab.page.context.set_offline(False)
    expect(tab.page.get_by_text("The server cannot be reached")).to_have_count(0, timeout=20_000)
    assert [fault for fault in tab.faults if "ERR_INTERNET_DISCONNECTED" not in fault] == []
    tab.faults.clear()


def test_locked_server_asks_for_key_and_hides_forms_of_a_reader(tmp_path: Path, tab: Tab) -> None:
    pytest.importorskip("orchestra.server.application", reason="the extra `server` is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        project = tmp_path / "project"
        project.mkdir()
        with serve_studio(project, locked=True) as address:
            tab.page.goto(address)
            expect(tab.page.get_by_role("heading", name="This server asks for a key")).to_be_visible()
            assert tab.violations() == []
            tab.page.get_by_label("API key").fill("wrong")
            tab.page.get_by_role("button", name="Continue").click()
            expect(tab.page.get_by_role("alert")).to_contain_text("did not accept this key")
            tab.page.get_by_label("API key").fill((project / "key").read_text())
            tab.page.get_by_role("button", name="Continue").click()
            expect(tab.page.get_by_text("There is no run yet")).to_be_visible()
            tab.page.goto(f"{address}/#/start/read_one")
            expect(tab.page.get_by_role("button", name="Run", exact=True)).to_be_disabled()
            expect(tab.page.get_by_text("Your key may not start runs")).to_be_visible()
    assert [fault for fault in tab.faults if "401" not in fault] == []
    tab.faults.clear()


def test_pages_keep_to_the_policy_of_the_server(studio: Server, tab: Tab) -> None:
    with urllib.request.urlopen(studio.address) as reply:
        assert "default-src 'self'" in reply.headers["content-security-policy"]
    run = studio.review(answer="yes")
    tab.page.goto(f"{studio.address}/#/runs/{run}")
    expect(tab.page.get_by_label("claim revenue")).to_be_visible()
    assert all(url.startswith(studio.address) for url in tab.requests)
