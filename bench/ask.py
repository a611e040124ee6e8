"""Requests to the shipped fleet through `orchestra ask`: plans, answers and accuracy, written into a page of docs/.

    python -m bench.ask [FILE] [--part PART] [--fleet NAME] [--router AGENT] [--out FILE]

The requests of docs/evaluation/ask.md are in `bench/ask.yaml`. Those of `bench/ask_strangers.yaml` are by another
author, who had not seen the router's training rows; its `shown` part makes its page. A request is correct if every
expected text occurs in the answer (a number as a complete number) or, if the documents have no answer, if the answer is
null. A withheld answer is not a wrong one. A page includes all requests, also failures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

from bench.machine import ROOT, now
from orchestra.app.orchestra import Orchestra
from orchestra.app.planning import PlanOptions, PlanResult, plan_result, request_workflow
from orchestra.app.result import Result
from orchestra.cli.files import read_documents
from orchestra.schema.strict_yaml import load_yaml
from orchestra.workflows.model import REQUEST

REQUESTS = ROOT / "bench" / "ask.yaml"
DOCUMENTS = ROOT / "examples" / "documents"
_NUMBER = re.compile(r"(?<![\d.,-])\d+\.\d+(?![.,]?\d)")
PLACES = frozenset({"row", "column", "start", "end"})
"""Numeric fields that are positions and not content."""
SAID, SHOWN = ("text", "answer"), frozenset({"quote", "quotes", "cells"})
"""Fields with an answer, and fields with its evidence: a cell's heading or the remaining sentence is not part of the
answer.
"""
LONGEST = 220
"""Maximal number of characters of an answer or a quote on the page."""


@dataclass(frozen=True)
class Asked:
    """A request, its inputs, and the expected answer."""

    request: str
    values: Mapping[str, Any]
    expect: tuple[str, ...]
    nothing: bool


@dataclass(frozen=True)
class Told:
    """The result of a request."""

    asked: Asked
    draft: PlanResult
    result: Result[Any] | None
    fault: str
    seconds: float

    @property
    def right(self) -> bool:
        """Returns whether the answer is correct."""
        if self.result is None or self.result.status != "done":
            return False
        if self.asked.nothing:
            return isinstance(self.result.value, dict) and self.result.value.get("text", "") is None
        return stands(self.asked.expect, self.result.value)

    @property
    def verdict(self) -> str:
        """Correct, wrong, or no answer: not planned, withheld, or null although there is an answer."""
        if self.right:
            return "Right"
        return (
            "Wrong"
            if self.result is not None and self.result.status == "done" and _says(self.result.value)
            else "No answer"
        )


def stands(expect: Sequence[str], value: Any) -> bool:
    """Returns whether every expected text occurs in an answer."""
    said = "\n".join(_leaves(value))
    return all(_stands(text, said) for text in expect)


def _says(value: Any) -> bool:
    """Returns whether a value is an answer: it may be null in its field `text` or `answer`, or in each element of a
    list.
    """
    if isinstance(value, Mapping):
        told = [value[name] for name in SAID if name in value]
        return any(map(_says, told or value.values()))
    if isinstance(value, list | tuple):
        return any(map(_says, value))
    return value not in (None, "")


def _leaves(value: Any) -> Iterator[str]:
    """Returns the leaves of an answer, without field names, positions and evidence."""
    if isinstance(value, Mapping):
        aside = SHOWN if any(name in value for name in SAID) else ()
        value = [
            item
            for name, item in value.items()
            if name not in aside and (name not in PLACES or not isinstance(item, int))
        ]
    if isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield value if isinstance(value, str) else json.dumps(value)


def _stands(text: str, said: str) -> bool:
    """Returns whether a text occurs in another; a number not inside another number, a word or label not inside a longer
    one.
    """
    if not text.replace(".", "", 1).isdecimal():
        return re.search(rf"(?<!\w){re.escape(text.casefold())}(?!\w)", said.casefold()) is not None
    if "." in text and any(_rounds(number, text) for number in _NUMBER.findall(said)):
        return True
    zeros = "0*" if "." in text else r"(?:\.0+)?"
    return re.search(rf"(?<![\d.,-]){re.escape(text)}{zeros}(?![.,]?\d)", said) is not None


def _rounds(number: str, text: str) -> bool:
    """Returns whether a number equals a decimal one at its precision: an average of 1.3833 is 1.38, and 153.7 is
    153.70.
    """
    return Decimal(number).quantize(Decimal(text), ROUND_HALF_UP) == Decimal(text)


def requests(file: Path = REQUESTS, part: str = "") -> list[Asked]:
    """Reads the requests of a file, or of a part of it."""
    said: dict[str, Any] = load_yaml(file.read_bytes(), str(file)).value
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
        if not part or one["part"] == part
    ]


async def answered(asked: Sequence[Asked], fleet: str | None, router: str) -> list[Told]:
    """Runs the requests one after the other, as a user would."""
    found = []
    async with Orchestra.open(fleet) as orchestra:
        for one in asked:
            began = time.monotonic()
            step = request_workflow(orchestra, one.request, one.values, PlanOptions(router=router, cache=False))
            run = await orchestra.start(step, **{REQUEST: one.request, **one.values})
            result = await run.wait()
            took = time.monotonic() - began
            draft = await plan_result(orchestra, step, one.request, [event async for event in run.events()])
            fault = "; ".join(map(str, draft.rejections))
            found.append(Told(one, draft, result if draft.plan is not None else None, fault, took))
    return found


def page(told: Sequence[Told], about: str, stamp: str) -> str:
    """Returns the page: `about` is its title and introduction from the file of requests."""
    planned = sum(one.draft.plan is not None for one in told)
    right, nothing, wrong = (sum(one.verdict == said for one in told) for said in ("Right", "No answer", "Wrong"))
    lines = [
        about.strip(),
        "",
        (
            f"**{right} of {len(told)} are right**, {wrong} wrong, and {nothing} without an answer; {planned} were "
            f"planned. {stamp}."
        ),
        "",
    ]
    for number, one in enumerate(told, 1):
        lines += [f"## {number}. {one.verdict}, {one.seconds:.1f} s", "", f"> {one.asked.request}", ""]
        hand = ", ".join(one.asked.values) or "nothing"
        wanted = "no answer" if one.asked.nothing else ", ".join(one.asked.expect)
        lines += [
            f"Input: {hand}. Expected: {wanted}.",
            "",
            "```text",
            str(one.draft.plan or f"no plan: {one.fault}"),
            "```",
            "",
        ]
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
    """Runs the requests and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=REQUESTS)
    parser.add_argument("--part", default="", help="only this part of the requests")
    parser.add_argument("--fleet")
    parser.add_argument("--router", default="router")
    parser.add_argument("--out", type=Path, help="the page; default: docs/FILE.md")
    given = parser.parse_args()
    said = load_yaml(given.file.read_bytes(), str(given.file)).value
    if given.out is None and given.part != (shown := said.get("shown", "")):
        parser.error(f"the page of docs/ is of {f'the part {shown!r}' if shown else 'the whole file'}: --out FILE")
    told = asyncio.run(answered(requests(given.file, given.part), given.fleet, given.router))
    out = given.out or ROOT / "docs" / "evaluation" / f"{given.file.stem}.md"
    out.write_text(page(told, said["about"], now()), "utf-8")
    print(
        f"{sum(one.right for one in told)} of {len(told)} right, {sum(one.verdict == 'Wrong' for one in told)} "
        f"wrong; {out} written"
    )


if __name__ == "__main__":
    main()
