"""Thirty requests to the shipped fleet through `orchestra ask`: the plans, the answers and how many are right, into docs/ask.md.

    python -m bench.ask [--fleet NAME] [--router AGENT] [--out FILE]

The requests stand in `bench/ask.yaml`. A request is right where every text that it expects stands in the answer, or, where the
documents do not tell, where the answer is null. Nothing is left out of the page, failures least of all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.machine import ROOT, now
from orchestra.app import Orchestra
from orchestra.cli.inputs import read_documents
from orchestra.planning import REQUEST, Draft, Wish, asking, drafted
from orchestra.result import Result
from orchestra.values.yaml import load

REQUESTS = ROOT / "bench" / "ask.yaml"
DOCUMENTS = ROOT / "examples" / "documents"
PAGE = ROOT / "docs" / "ask.md"
LONGEST = 220
"""Characters of an answer and of a quote on the page."""


@dataclass(frozen=True)
class Asked:
    """A request, what is at hand, and what would be right."""

    request: str
    values: Mapping[str, Any]
    expect: tuple[str, ...]
    nothing: bool


@dataclass(frozen=True)
class Told:
    """What came of a request."""

    asked: Asked
    draft: Draft
    result: Result[Any] | None
    fault: str
    seconds: float

    @property
    def right(self) -> bool:
        """Whether the answer is right."""
        if self.result is None or self.result.status != "done":
            return False
        said = json.dumps(self.result.value, ensure_ascii=False)
        if self.asked.nothing:
            return isinstance(self.result.value, dict) and self.result.value.get("text", "") is None
        return all(text.casefold() in said.casefold() for text in self.asked.expect)


def requests() -> list[Asked]:
    """The requests of the file."""
    said: dict[str, Any] = load(REQUESTS.read_bytes(), str(REQUESTS)).value
    known = {"documents": read_documents(DOCUMENTS)} | said["tables"] | said["texts"]
    names = {"documents": "documents", **dict.fromkeys(said["tables"], "table"), **dict.fromkeys(said["texts"], "text")}
    return [
        Asked(
            one["request"],
            {names[name]: known[name] for name in one.get("with", ())},
            tuple(map(str, one.get("expect", ()))),
            bool(one.get("nothing", False)),
        )
        for one in said["requests"]
    ]


async def answered(asked: Sequence[Asked], fleet: str | None, router: str) -> list[Told]:
    """What comes of the requests, one after the other, as a person would ask them."""
    found = []
    async with Orchestra.open(fleet) as orchestra:
        for one in asked:
            began = time.monotonic()
            step = asking(orchestra, one.request, one.values, Wish(router=router, cache=False))
            run = await orchestra.start(step, **{REQUEST: one.request, **one.values})
            result = await run.wait()
            took = time.monotonic() - began
            draft = await drafted(orchestra, step, one.request, [event async for event in run.events()])
            fault = "; ".join(map(str, draft.rejections))
            found.append(Told(one, draft, result if draft.plan is not None else None, fault, took))
    return found


def page(told: Sequence[Told], stamp: str) -> str:
    """The page."""
    right, planned = sum(one.right for one in told), sum(one.draft.plan is not None for one in told)
    lines = [
        "# Thirty requests",
        "",
        "What `orchestra ask` makes of thirty requests, over the documents of `examples/documents`, a table, a text, and nothing.",
        "The requests, and what would be right, are in `bench/ask.yaml`. They were written before the trained router was",
        "asked, by the author of the phrases that it was trained on, and many use them. `python -m bench.ask` wrote this page, and left",
        "nothing out. The first training got 20 of them right, and mostly failed at questions of general knowledge; forms of such",
        "questions were then added to it (`bench/general_questions.yaml`), none of them of this page.",
        "",
        f"**{right} of {len(told)} are right**; {planned} were planned. {stamp}.",
        "",
    ]
    for number, one in enumerate(told, 1):
        lines += [f"## {number}. {'Right' if one.right else 'Wrong'}, {one.seconds:.1f} s", "", f"> {one.asked.request}", ""]
        hand = ", ".join(one.asked.values) or "nothing"
        wanted = "no answer" if one.asked.nothing else ", ".join(one.asked.expect)
        lines += [f"At hand: {hand}. Wanted: {wanted}.", "", "```text", str(one.draft.plan or f"no plan: {one.fault}"), "```", ""]
        lines += [*_answer(one), ""]
    return "\n".join(lines).rstrip() + "\n"


def _answer(one: Told) -> list[str]:
    if one.result is None:
        return [f"No answer: {_short(one.fault)}"] if one.draft.plan is not None else []
    if one.result.status != "done":
        return [f"{one.result.status}: {_short(one.result.error.message if one.result.error else '')}"]
    quotes = list(dict.fromkeys(found.quote for found in one.result.evidence if found.quote))
    said = [f"`{_short(json.dumps(one.result.value, ensure_ascii=False)).replace('`', chr(39))}`"]
    return said + ([""] + [f"- “{_short(quote)}”" for quote in quotes[:3]] if quotes else [])


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def main() -> None:
    """Asks, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fleet")
    parser.add_argument("--router", default="router")
    parser.add_argument("--out", type=Path, default=PAGE)
    given = parser.parse_args()
    told = asyncio.run(answered(requests(), given.fleet, given.router))
    given.out.write_text(page(told, now()), "utf-8")
    print(f"{sum(one.right for one in told)} of {len(told)} right; {given.out} written")


if __name__ == "__main__":
    main()
