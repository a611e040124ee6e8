"""`orchestra runs show RUN --html FILE`: one file that loads nothing, and runs only the studio."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from orchestra.app.html.content import PAGE
from orchestra.app.html.saved_run import FOLDER
from orchestra.core.events import (
    Event,
    OutputJudged,
)
from orchestra.journal.sqlite.journal import SqliteJournal
from orchestra.schema.strict_json import digest
from tests.app.html_pages import GRAPH, HOSTILE, Page, quoting_run
from tests.cli.shell import Shell
from tests.cli.stage import ASK, FLEET, GOOD, TEXT, Simulated, furnish


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
    page = page_of(shell, quoting_run("It was opened in 1889, in May."))
    assert page.marked == ["in 1889"]
    words = " ".join(page.words.split())
    said = ("It was opened in 1889, in May.", "1 of 1 claim supported", "quote: pass", "1,234 in, 5 out")
    for part in (*said, digest(GRAPH), "f" * 32, "tiny"):
        assert part in words
    assert page.open == []


def test_what_was_withheld_stands_there_with_its_reason(shell: Shell) -> None:
    why = "'in 1890' does not occur in the evidence"
    page = page_of(shell, quoting_run("It was opened in 1889.", quote="in 1890", reason=why, accepted=False))
    words = " ".join(page.words.split())
    assert f"There is no answer: reading: {why}" in words
    assert "What was withheld, and why" in words
    assert '"quote": "in 1890"' in words
    assert "What it rests on" not in words


def test_page_has_a_bar_for_each_node_at_its_time(shell: Shell) -> None:
    page = page_of(shell, quoting_run("It was opened in 1889."))
    bars = [value for tag, name, value in page.attributes if (tag, name) == ("div", "style")]
    assert bars == ["margin-left: 50.00%; width: 50.00%"]  # from second 1 to second 2 of 2
    assert "label internal" in " ".join(page.words.split())


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_of_strangers_are_shown_and_do_nothing(shell: Shell, text: str) -> None:
    plain = page_of(shell, quoting_run("in 1889 and so on", answer="x", reason="y"))
    Path(".orchestra/journal.db").unlink()
    for side in (".orchestra/journal.db-wal", ".orchestra/journal.db-shm", ".orchestra/journal.db-mark"):
        Path(side).unlink(missing_ok=True)
    page = page_of(shell, quoting_run(f"in 1889 {text}", answer=text, quote=f"in 1889 {text}", reason=text))
    assert page.tags == plain.tags, "no text adds an element"
    assert page.attributes == plain.attributes, "nor an attribute"
    assert not {"\u202e", "\u2066", "\u200b", "\x1b", "\x00"} & set(page.source)
    if text.isprintable() and text.isascii():
        assert text in page.words


def test_page_fetches_nothing_and_runs_only_the_studio(shell: Shell) -> None:
    page = page_of(shell, quoting_run("in 1889 https://evil.example/x.png"))
    assert page.tags.count("script") == 2
    data, studio = page.scripts
    assert [value for tag, name, value in page.attributes if (tag, name) == ("script", "type")] == [
        "application/json",
        "module",
    ]
    assert studio == (FOLDER / "studio.js").read_text("utf-8")
    assert json.loads(data)["run"] == "aaaa1111"
    assert not {"link", "img", "iframe", "object", "embed", "form", "a", "base", "svg"} & set(page.tags)
    assert {name for _, name, _ in page.attributes} <= {
        "lang",
        "charset",
        "name",
        "content",
        "http-equiv",
        "class",
        "style",
        "id",
        "type",
    }
    assert not re.search(r"url\(|@import|src=|href=", page.without_scripts)
    allowed = base64.b64encode(hashlib.sha256(studio.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{allowed}'; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'"
    )
    assert ("meta", "content", policy) in page.attributes


def test_a_text_of_a_megabyte_is_cut_and_says_so(shell: Shell) -> None:
    text = "word " * 200_000 + "in 1889"
    page = page_of(shell, quoting_run(text))
    assert len(page.without_scripts) < 10 * PAGE.text
    assert json.loads(page.scripts[0])["events"][0]["inputs"]["text"] == text
    assert f"and {len(text) - PAGE.text} more characters, which are left out here" in page.words
    assert page.marked == ["in 1889"], "the evidence is shown though it stands beyond what is shown of the text"


def test_a_page_of_an_output_that_nobody_checked_says_so_of_each_part(shell: Shell) -> None:
    events = [event for event in quoting_run("It was opened in 1889.") if not isinstance(event, OutputJudged)]
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
    page_of(shell, quoting_run("in 1889"))
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
        {
            "kind": "span",
            "quote": "in 1889",
            "source": "",
            "start": 14,
            "end": 21,
            "where": "input.text",
            "location": "",
        }
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
