"""HTML of results and runs in a notebook: complete, escaped, self-contained and small."""

from __future__ import annotations

import re
from typing import Any

import pytest
from msgspec.structs import replace

from orchestra import Result, RunView
from orchestra.app.html.content import CELL
from orchestra.app.result import build_result, identity
from orchestra.core.events import Event, NodeFinished, QuestionAsked, RunFinished, RunStarted
from orchestra.core.labels import Label
from orchestra.core.outcomes import ValueOutcome
from tests.app.html_pages import GRAPH, HOSTILE, Page, quoting_run


def result_of(events: list[Event]) -> Result[Any]:
    finished = events[-1]
    assert isinstance(finished, RunFinished)
    return build_result(finished, events, "aaaa1111", identity, {"": GRAPH})


def view_of(events: list[Event], label: Label = "internal") -> RunView:
    result = result_of(events)
    return RunView("aaaa1111", "ask", result.status, label, 1e9, 1e9 + 2, (), result, {}, events)


def words_of(page: Page) -> str:
    return " ".join(page.words.split())


def test_result_shows_value_evidence_verdicts_and_cost() -> None:
    page = Page(result_of(quoting_run("It was opened in 1889, in May."))._repr_html_())
    assert page.open == []
    assert page.marked == ["in 1889"]
    texts = ("ask done", "1889", "It was opened in 1889, in May.", "quote: pass", "confidence 1.00", "1,234 in, 5 out")
    for text in (*texts, "run aaaa1111", "input.text, characters 14 to 21"):
        assert text in words_of(page)


def test_result_shows_guarantee_without_certificate() -> None:
    events = quoting_run("It was opened in 1889.")
    events[2] = replace(events[2], guarantee="at most 5 % of accepted answers are wrong")
    words = words_of(Page(result_of(events)._repr_html_()))
    assert "reading: at most 5 % of accepted answers are wrong" in words
    assert "missing or unreadable" not in words


def test_withheld_result_shows_reason() -> None:
    events = quoting_run("It was opened in 1889.", reason="the words are not there", accepted=False)
    words = words_of(Page(result_of(events)._repr_html_()))
    assert "ask abstained" in words
    assert "There is no answer: reading: the words are not there" in words


def test_run_shows_timeline_request_and_evidence() -> None:
    page = Page(view_of(quoting_run("It was opened in 1889, in May."))._repr_html_())
    bars = [value for tag, name, value in page.attributes if (tag, name) == ("div", "style")]
    assert bars == ["margin-left: 50.00%; width: 50.00%"]
    assert page.marked == ["in 1889"]
    assert all(text in words_of(page) for text in ("Timeline", "readinganswererdone", "Request", "quote: pass"))


def test_waiting_run_shows_question_and_no_answer() -> None:
    asked = QuestionAsked(seq=2, at=1e9 + 1, node="permit", question="May <b>I</b>?", schema={}, question_digest="d")
    events = [quoting_run("in 1889")[0], asked]
    view = RunView("aaaa1111", "ask", "waiting", "internal", 1e9, None, (asked,), None, {}, events)
    words = words_of(Page(view._repr_html_()))
    assert "ask waiting" in words
    assert "permit: May <b>I</b>?" in words
    assert "There is no answer" not in words


@pytest.mark.parametrize("show", [result_of, view_of], ids=["result", "run"])
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_add_no_element_or_attribute(show: Any, text: str) -> None:
    plain = Page(show(quoting_run("in 1889 and so on", answer="x", reason="y"))._repr_html_())
    page = Page(show(quoting_run(f"in 1889 {text}", answer=text, quote=f"in 1889 {text}", reason=text))._repr_html_())
    assert page.tags == plain.tags
    assert page.attributes == plain.attributes
    assert not {"\u202e", "\u2066", "\u200b", "\x1b", "\x00"} & set(page.source)
    if text.isprintable() and text.isascii():
        assert text in page.words


@pytest.mark.parametrize("show", [result_of, view_of], ids=["result", "run"])
def test_output_of_cell_fetches_and_runs_nothing(show: Any) -> None:
    page = Page(show(quoting_run("in 1889 https://evil.example/x.png"))._repr_html_())
    assert not {"script", "link", "img", "iframe", "object", "embed", "form", "a", "base"} & set(page.tags)
    assert {name for _, name, _ in page.attributes} <= {"class", "style"}
    assert not re.search(r"url\(|@import|src=|href=", page.source)
    assert not {"h1", "h2", "h3"} & set(page.tags)  # Jupyter would list them in the contents of the notebook


@pytest.mark.parametrize("show", [result_of, view_of], ids=["result", "run"])
def test_output_of_cell_changes_no_other_element(show: Any) -> None:
    style = show(quoting_run("in 1889"))._repr_html_().partition("<style>")[2].partition("</style>")[0]
    selectors = [
        one.strip()
        for group in re.findall(r"([^{}]+)\{[^{}]*\}", re.sub(r"@media [^{]*\{(.*)\}", r"\1", style))
        for one in group.split(",")
    ]
    assert len(selectors) > 30
    assert [one for one in selectors if ".orchestra" not in one] == []


@pytest.mark.parametrize("show", [result_of, view_of], ids=["result", "run"])
def test_output_of_cell_has_light_and_dark_colours(show: Any) -> None:
    source = show(quoting_run("in 1889"))._repr_html_()
    assert "@media (prefers-color-scheme: dark)" in source
    assert source.index('[data-jp-theme-light="true"]') < source.index('[data-jp-theme-light="false"]')
    assert source.count("color-scheme: light;") == source.count("color-scheme: dark;") == 2


def large_run() -> list[Event]:
    """A run with a megabyte of text, two thousand claims and two thousand nodes."""
    text = "word & <b> " * 100_000 + "in 1889"
    events = quoting_run(text)
    value = {f"part{number}": "word & <b> " * 500 for number in range(2_000)}
    outcome: Any = ValueOutcome(value, 1.0)
    nodes: list[Event] = [
        NodeFinished(seq=0, at=1e9 + 1, node=f"n{number}", outcome=outcome) for number in range(2_000)
    ]
    last = events[-1]
    assert isinstance(last, RunFinished)
    events = [*events[:-1], *nodes, replace(last, outcome=outcome)]
    return [replace(event, seq=at) for at, event in enumerate(events, 1)]


@pytest.mark.parametrize("show", [result_of, view_of], ids=["result", "run"])
def test_large_run_is_cut_with_counts(show: Any) -> None:
    page = Page(show(large_run())._repr_html_())
    assert len(page.source) < 120_000
    assert re.search(r"and \d+ more characters, which are left out here", page.words)
    assert re.search(r"and \d+ more claims", page.words)
    assert page.tags.count("section") <= CELL.claims + CELL.withheld
    if show is view_of:
        assert f"and {2_001 - CELL.rows} more nodes" in words_of(page)


def test_restricted_run_warns_that_notebook_stores_it() -> None:
    first, *rest = quoting_run("in 1889")
    assert isinstance(first, RunStarted)
    for label, count in (("internal", 0), ("restricted", 1)):
        events = [replace(first, label=label), *rest]
        for page in (result_of(events)._repr_html_(), view_of(events)._repr_html_()):
            assert f"label {label}" in words_of(Page(page))
            assert page.count("A notebook stores its outputs") == count
