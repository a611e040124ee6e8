"""`orchestra runs show RUN --html FILE`: one file that loads and executes nothing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from orchestra.cli.runs.show import MAX_TEXT_LENGTH
from orchestra.core.events import (
    AttemptFinished,
    Event,
    NodeFinished,
    OutputJudged,
    RunFinished,
    RunStarted,
    Usage,
    Verdict,
)
from orchestra.core.outcomes import AbstainedOutcome, Evidence, ValueOutcome
from orchestra.journal.sqlite.journal import SqliteJournal
from orchestra.schema.strict_json import digest
from tests.cli.shell import Shell
from tests.cli.stage import ASK, FLEET, GOOD, TEXT, Simulated, furnish

GRAPH = b'{"schema":"orchestra/v1","name":"ask","input":{"text":{"type":"str"}},"output":"${reading}","nodes":{"reading":{"agent":"answerer"}}}'  # noqa: E501
HOSTILE = [
    "<script>alert(1)</script>",
    "</p></main></html><script src=//evil.example/x.js></script>",
    "<img src=x onerror=alert(1)>",
    "'\"><svg/onload=alert(1)>",
    "{{ 7 * 7 }}{% for x in range(9) %}x{% endfor %}",
    "&lt;script&gt;",
    "\u202egnp.exe\u2066 \u200b\x1b[31m \x00",
    "javascript:alert(1) https://evil.example/",
    "</style><style>body{display:none}</style>",
]
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """A parsed page: its tags in order, all attributes, and the texts of its marks."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source = text
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.open: list[str] = []
        self.marked: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Iterable[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag == "mark":
            self.marked.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes what is not open"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "mark":
            self.marked[-1] += data
        if "style" not in self.open:
            self.words += data


def told(
    text: str, *, answer: str = "1889", quote: str = "in 1889", reason: str = "", accepted: bool = True
) -> list[Event]:
    """A run with one reading that quotes a text."""
    start = text.find(quote)
    evidence = (Evidence("quote", quote, "", start, start + len(quote), "quote"),)
    verdict = Verdict("quote", "pass" if accepted else "fail", float(accepted), reason, evidence=evidence)
    value = {"answer": answer, "quote": quote}
    outcome: Any = ValueOutcome(value, 1.0) if accepted else AbstainedOutcome(reason, "reading")
    usage = Usage(1234, 0, 5, 1, 0.5)
    begun: Any = {"run": "aaaa1111", "workflow": "ask", "graph": digest(GRAPH), "inputs": {"text": text}}
    who: Any = {"node": "reading", "attempt": 1}
    return [
        RunStarted(seq=1, at=1e9, **begun, versions={"card/answerer": "f" * 32}),
        AttemptFinished(
            seq=2, at=1e9 + 1, **who, name="answerer", value=value, usage=usage, server="smol", model="tiny"
        ),
        OutputJudged(
            seq=3, at=1e9 + 1, **who, verdicts=(verdict,), accepted=accepted, score=float(accepted), reason=reason
        ),
        NodeFinished(seq=4, at=1e9 + 2, node="reading", outcome=outcome),
        RunFinished(seq=5, at=1e9 + 2, status="done" if accepted else "abstained", outcome=outcome, usage=usage),
    ]


def page_of(shell: Shell, events: list[Event]) -> Page:
    async def write() -> None:
        async with SqliteJournal.open(".orchestra/journal.db") as journal:
            journal.put_blob(GRAPH)
            journal.append("aaaa1111", events)
            await journal.wait_durable("aaaa1111", len(events))

    Path(".orchestra").mkdir(exist_ok=True)
    asyncio.run(write())
    said = shell("runs", "show", "last", "--html", "run.html")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("run.html: ")
    return Page(Path("run.html").read_text("utf-8"))


def test_page_shows_answer_evidence_and_digests(shell: Shell) -> None:
    page = page_of(shell, told("It was opened in 1889, in May."))
    assert page.marked == ["in 1889"]
    words = " ".join(page.words.split())
    said = ("It was opened in 1889, in May.", "1 of 1 claim supported", "quote: pass", "1,234 in, 5 out")
    for part in (*said, digest(GRAPH), "f" * 32, "tiny"):
        assert part in words
    assert page.open == []


def test_what_was_withheld_stands_there_with_its_reason(shell: Shell) -> None:
    why = "'in 1890' does not occur in the evidence"
    page = page_of(shell, told("It was opened in 1889.", quote="in 1890", reason=why, accepted=False))
    words = " ".join(page.words.split())
    assert f"There is no answer: reading: {why}" in words
    assert "What was withheld, and why" in words
    assert '"quote": "in 1890"' in words
    assert "What it rests on" not in words


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_of_strangers_are_shown_and_do_nothing(shell: Shell, text: str) -> None:
    plain = page_of(shell, told("in 1889 and so on", answer="x", reason="y"))
    Path(".orchestra/journal.db").unlink()
    for side in (".orchestra/journal.db-wal", ".orchestra/journal.db-shm", ".orchestra/journal.db-mark"):
        Path(side).unlink(missing_ok=True)
    page = page_of(shell, told(f"in 1889 {text}", answer=text, quote=f"in 1889 {text}", reason=text))
    assert page.tags == plain.tags, "no text adds an element"
    assert page.attributes == plain.attributes, "nor an attribute"
    assert not {"\u202e", "\u2066", "\u200b", "\x1b", "\x00"} & set(page.source)
    if text.isprintable() and text.isascii():
        assert text in page.words


def test_a_page_fetches_and_runs_nothing(shell: Shell) -> None:
    page = page_of(shell, told("in 1889 https://evil.example/x.png"))
    assert not {"script", "link", "img", "iframe", "object", "embed", "form", "a", "base", "svg"} & set(page.tags)
    assert {name for _, name, _ in page.attributes} <= {
        "lang",
        "charset",
        "name",
        "content",
        "http-equiv",
        "class",
        "style",
    }
    assert not re.search(r"url\(|@import|src=|href=", page.source)
    assert ("meta", "content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def test_a_text_of_a_megabyte_is_cut_and_says_so(shell: Shell) -> None:
    text = "word " * 200_000 + "in 1889"
    page = page_of(shell, told(text))
    assert len(page.source) < 10 * MAX_TEXT_LENGTH
    assert f"and {len(text) - MAX_TEXT_LENGTH} more characters, which are left out here" in page.words
    assert page.marked == ["in 1889"], "the evidence is shown though it stands beyond what is shown of the text"


def test_a_page_of_an_output_that_nobody_checked_says_so_of_each_part(shell: Shell) -> None:
    events = [event for event in told("It was opened in 1889.") if not isinstance(event, OutputJudged)]
    page = page_of(shell, [replace(event, seq=at) for at, event in enumerate(events, 1)])
    words = " ".join(page.words.split())
    assert "0 of 2 claims supported" in words
    assert words.count("not supported") == 2
    assert "nothing checked what reading says" in words


DECIDED = ASK.replace("name: ask", "name: decided").replace(
    "output: ${reading}\nnodes:\n",
    'output: {answer: "${reading.answer}", sure: "${sure}"}\nnodes:\n  sure: {ask: "Sure?"}\n',
)


def test_page_shows_persons_answer_as_given_by_person(shell: Shell) -> None:
    furnish()
    Path("workflows/decided.yaml").write_text(DECIDED)
    on_stage = Shell(shell.home, shell.project, Simulated({"answerer": GOOD}))
    assert on_stage("run", "decided", "-i", "question=when", "-i", f"text={TEXT}").code == 5
    said = on_stage("runs", "answer", "last", "yes")
    assert said.code == 0
    assert "\nsure: answered by a person (sure)\n" in said.out
    assert "not supported" not in said.out
    assert "confidence 1.00" in said.out
    shown = on_stage("runs", "show", "last", "--json").json
    assert ([one["path"] for one in shown["claims"]], shown["unsupported"]) == (["answer", "sure"], [])
    assert on_stage("runs", "show", "last", "--html", "run.html").code == 0
    page = Page(Path("run.html").read_text("utf-8"))
    words = " ".join(page.words.split())
    assert "1 of 2 claims supported by evidence and checks; 1 given by a person" in words
    assert "sure by a person" in words
    assert "not supported" not in words


def test_a_page_is_about_a_whole_run_and_goes_where_it_can_be_written(shell: Shell) -> None:
    page_of(shell, told("in 1889"))
    said = shell("runs", "show", "last", "reading", "--html", "x.html")
    assert (said.code, said.err[:4]) == (2, "C019")
    said = shell("runs", "show", "last", "--html", "no/such/folder.html")
    assert (said.code, said.err[:4]) == (1, "C023")
    said = shell("runs", "show", "last", "--html", "-")
    assert said.out == Path("run.html").read_text("utf-8")


def test_a_run_tells_its_claims_and_so_does_the_journal_later(shell: Shell) -> None:
    furnish()
    on_stage = Shell(shell.home, shell.project, Simulated({"answerer": GOOD}))
    inputs = ("-i", "question=when", "-i", f"text={TEXT}")
    said = on_stage("run", "ask", *inputs)
    assert "answer: 1889\n  “in 1889”  input.text [14:21]\n  checked by quote (reading), score 1.00\n" in said.out
    assert (
        "answer: 1889\n  “in 1889”  input.text [14:21]\n  checked by quote (reading), score 1.00\n"
        in on_stage("runs", "show").out
    )
    found = on_stage("run", "ask", *inputs, "--json").json
    [claim] = found["claims"]
    assert (claim["path"], claim["value"], claim["unsupported"], found["unsupported"]) == ("answer", "1889", "", [])
    assert claim["evidence"] == [
        {"kind": "span", "quote": "in 1889", "source": "", "start": 14, "end": 21, "where": "input.text"}
    ]
    assert on_stage("runs", "show", "--json").json["claims"] == found["claims"]


def test_page_of_the_starter_marks_the_unchecked_title(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell("init", "hello")
    monkeypatch.chdir("hello")
    furnish(files={"configs/nowhere.yaml": FLEET, "orchestra.toml": 'fleet = "nowhere"\n'})
    quote = "the computation of Bernoulli numbers"
    text = f"Note G describes {quote}."
    on_stage = Shell(
        shell.home, shell.project, Simulated({"generative_reader": {"answer": quote}, "title": {"title": "Note G"}})
    )
    said = on_stage("run", "hello", "-i", "question=What does note G describe?", "-i", f"text={text}")
    evidence = f"  “{quote}”  input.text [17:{17 + len(quote)}]\n  checked by quote (reading), score 1.00\n"
    for shown in (said.out, on_stage("runs", "show").out):
        assert f"answer: {quote}\n{evidence}" in shown
        assert "not supported: title: nothing checked what title says" in shown
        assert "no check was run on this answer" not in shown
        assert "quote: these words are in the source. This does not prove that they answer the question." in shown
    claims = on_stage("runs", "show", "--json").json["claims"]
    assert [(one["path"], one["unsupported"]) for one in claims] == [
        ("answer", ""),
        ("title", "nothing checked what title says"),
    ]
    assert [one["quote"] for one in claims[0]["evidence"]] == [quote]
    on_stage("runs", "show", "last", "--html", "run.html")
    page = Page(Path("run.html").read_text("utf-8"))
    assert "1 of 2 claims supported" in " ".join(page.words.split())
    assert quote in page.marked
    assert "This does not prove that they answer the question." in page.words
