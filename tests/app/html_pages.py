"""HTML for tests: hostile texts, a parser, and the events of a run that quotes a text."""

from __future__ import annotations

from collections.abc import Iterable
from html.parser import HTMLParser
from typing import Any

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
from orchestra.schema.strict_json import digest

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
    """A parsed page: its tags in order, all attributes, the texts of its marks, and its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source = text
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.open: list[str] = []
        self.marked: list[str] = []
        self.words = ""
        self.scripts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Iterable[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag == "mark":
            self.marked.append("")
        if tag == "script":
            self.scripts.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes what is not open"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "mark":
            self.marked[-1] += data
        if "script" in self.open:
            self.scripts[-1] += data
        elif "style" not in self.open:
            self.words += data

    @property
    def without_scripts(self) -> str:
        """The source without the contents of its scripts."""
        text = self.source
        for script in self.scripts:
            text = text.replace(script, "", 1)
        return text


def quoting_run(
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
