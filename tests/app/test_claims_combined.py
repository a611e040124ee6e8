"""Claims of outputs that combine verified with unchecked parts.

A seeded generator makes output templates: nested fields and lists of a verified quote, an answer with its quote, an
unchecked text, an input, and texts composed of two parts. Each verified part must be shown with its quote and its
verdict. No other part may be shown as verified.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import msgspec
import pytest

from orchestra import Orchestra
from orchestra.app.claims.claims import OutputClaim
from orchestra.app.claims.locations import TextSpan
from orchestra.app.result import Result
from orchestra.journal.memory import MemoryJournal
from orchestra.testing import SimulatedWorkers
from tests.sizes import sample_size
from tests.unreachable import settings, write

CASES = int(os.environ.get("ORCHESTRA_CLAIM_CASES", "60"))
"""Number of output templates in the quick suite; `test_combined_claims_2000_outputs` has its own number."""
TEXT = "The tower was finished in 1889. It was painted in 1907. The lift was built by Otis."
QUOTED = ("1889", "painted in 1907", "Otis")
LISTED = tuple(f"word{at}" for at in range(120))
"""More quotes than one claim shows as its evidence."""
PAIRED = ("built by Otis", "The tower was finished")

CARD = "name: {name}\ninput: {{context: str}}\noutput: {output}\n"
AGENTS = {
    "quoted": "{answer: Quote | null}",
    "paired": "{answer: str | null, quote: Quote | null}",
    "listed": "{answer: str, quotes: 'list[Quote]'}",
    "unchecked": "{title: str}",
}
CHECKED = 'with: {context: "${input.text}"}, checks: [quote], against: "${input.text}"'
NODES = "".join(
    [
        *(f"  q{at}: {{agent: quoted, {CHECKED}}}\n" for at in range(len(QUOTED))),
        *(f"  p{at}: {{agent: paired, {CHECKED}}}\n" for at in range(len(PAIRED))),
        f"  listed: {{agent: listed, {CHECKED}}}\n",
        *(f'  u{at}: {{agent: unchecked, with: {{context: "${{input.text}}"}}}}\n' for at in range(2)),
    ]
)


@dataclass(frozen=True)
class Verified:
    """A part that a check of `node` verified by `quote`. `pair`: whether the quote is next to its answer in the node's
    value.
    """

    node: str
    quote: str
    pair: bool = False


UNVERIFIED = "unverified"
DERIVED = "derived"
"""Result of an expression over one verified part: its claim may be supported or not, and hides no other claim."""
Expected: TypeAlias = Verified | str
"""Expected claim of one part."""


class Template:
    """A random output template with the expected claim of each part of the output, by path."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.expected: dict[str, Expected] = {}
        self.text = self._record("", depth=0)

    def _record(self, path: str, depth: int) -> str:
        names = self.random.sample("abcdefgh", self.random.randint(1, 5))
        fields = [f"{name}: {self._part(f'{path}.{name}' if path else name, depth)}" for name in names]
        return "{" + ", ".join(fields) + "}"

    def _list(self, path: str, depth: int) -> str:
        return "[" + ", ".join(self._part(f"{path}[{at}]", depth) for at in range(self.random.randint(1, 4))) + "]"

    def _part(self, path: str, depth: int) -> str:
        kinds: list[Callable[[str], str]] = [
            self._quote,
            self._quote,
            self._answer,
            self._quote_of_a_pair,
            self._unchecked,
            self._input,
        ]
        kinds += [self._joined, self._derived]
        if depth < 3 and self.random.random() < 0.35:
            return self.random.choice((self._record, self._list))(path, depth + 1)
        return self.random.choice(kinds)(path)

    def _quote(self, path: str) -> str:
        at = self.random.randrange(len(QUOTED))
        self.expected[path] = Verified(f"q{at}", QUOTED[at])
        return f'"${{q{at}.answer}}"'

    def _answer(self, path: str) -> str:
        at = self.random.randrange(len(PAIRED))
        self.expected[path] = Verified(f"p{at}", PAIRED[at])
        return f'"${{p{at}.answer}}"'

    def _quote_of_a_pair(self, path: str) -> str:
        at = self.random.randrange(len(PAIRED))
        self.expected[path] = Verified(f"p{at}", PAIRED[at], pair=True)
        return f'"${{p{at}.quote}}"'

    def _unchecked(self, path: str) -> str:
        self.expected[path] = UNVERIFIED
        return f'"${{u{self.random.randrange(2)}.title}}"'

    def _input(self, path: str) -> str:
        self.expected[path] = UNVERIFIED
        return '"${input.label}"'

    def _joined(self, path: str) -> str:
        self.expected[path] = UNVERIFIED
        at = self.random.randrange(len(QUOTED))
        return f"\"${{(q{at}.answer != null ? q{at}.answer : '') + ' by ' + u0.title}}\""

    def _derived(self, path: str) -> str:
        at = self.random.randrange(len(QUOTED))
        self.expected[path] = DERIVED
        return f"\"${{(q{at}.answer != null ? q{at}.answer : '') + '!'}}\""


async def result_of(folder: Path, output: str) -> Result[Any]:
    agents = {f"agents/{name}/agent.yaml": CARD.format(name=name, output=type_) for name, type_ in AGENTS.items()}
    prompts = {f"agents/{name}/prompt.md": "{{ context }}\n" for name in AGENTS}
    workflow = (
        f"schema: orchestra/v1\nname: combined\ninput: {{text: str, label: str}}\noutput: {output}\nnodes:\n{NODES}"
    )
    write(folder, {**agents, **prompts, "workflows/combined.yaml": workflow})
    answers = {
        "quoted": lambda call: {"answer": QUOTED[int(call.node[1:])]},
        "paired": lambda call: {"answer": f"answer {call.node}", "quote": PAIRED[int(call.node[1:])]},
        "listed": {"answer": "words", "quotes": list(LISTED)},
        "unchecked": lambda call: {"title": "1889"},
    }
    async with Orchestra.open(
        settings(folder), workers=SimulatedWorkers(answers), journal=MemoryJournal()
    ) as orchestra:
        return await orchestra.run(
            orchestra.find("combined"), text=f"{TEXT} {' '.join(LISTED)}", label="painted in 1907"
        )


def shows(claim: OutputClaim, wanted: Verified) -> bool:
    """Returns whether a claim is supported by that quote, with the verdict of the node that verified it."""
    quotes = {one.quote for one in claim.evidence if isinstance(one, TextSpan)}
    verdicts = {(one.node, one.check, one.outcome) for one in claim.verdicts}
    return not claim.unsupported and wanted.quote in quotes and (wanted.node, "quote", "pass") in verdicts


def faults(result: Result[Any], expected: dict[str, Expected]) -> list[str]:
    """Returns the errors in the claims of an output."""
    claims = {claim.path: claim for claim in result.claims}
    found = [f"{path} is no part of the output" for path in claims.keys() - expected.keys()]
    for path, wanted in expected.items():
        claim = claims.get(path)
        if isinstance(wanted, str):
            if claim is None or (wanted == UNVERIFIED and not claim.unsupported):
                found.append(f"{path} is {wanted}, and is {'not shown' if claim is None else 'shown as verified'}")
        elif claim is None:
            if not (wanted.pair and any(shows(one, wanted) for one in claims.values())):
                found.append(f"{path} was verified, and is not shown")
        elif not shows(claim, wanted):
            found.append(f"{path} was verified, and is shown as {claim.unsupported or claim.evidence}")
    return found


async def assert_verified_parts_shown(folder: Path, seeds: range) -> None:
    for seed in seeds:
        template = Template(Random(seed))
        result = await result_of(folder, template.text)
        assert result.status == "done", (seed, template.text, result.outcome)
        assert faults(result, template.expected) == [], (seed, template.text)


async def test_combined_claims_exactly_verified_parts_shown(tmp_path: Path) -> None:
    await assert_verified_parts_shown(tmp_path, range(CASES))


@pytest.mark.slow
async def test_combined_claims_2000_outputs(tmp_path: Path) -> None:
    await assert_verified_parts_shown(tmp_path, range(10_000, 10_000 + sample_size(2_000)))


async def test_combined_claims_quote_beside_unchecked_part_shown(tmp_path: Path) -> None:
    result = await result_of(tmp_path, '{answer: "${q0.answer}", title: "${u0.title}"}')
    answer, title = result.claims
    assert (answer.path, answer.value, answer.unsupported, answer.score) == ("answer", "1889", "", 1.0)
    assert [one.quote for one in answer.evidence if isinstance(one, TextSpan)] == ["1889"]
    assert (title.path, title.unsupported) == ("title", "nothing checked what u0 says")


async def test_combined_claims_quote_of_answer_is_evidence_only(tmp_path: Path) -> None:
    result = await result_of(tmp_path, '"${p0}"')
    [claim] = result.claims
    assert (claim.path, claim.unsupported) == ("answer", "")
    assert [one.quote for one in claim.evidence if isinstance(one, TextSpan)] == [PAIRED[0]]


async def test_combined_claims_quote_of_other_node_kept(tmp_path: Path) -> None:
    result = await result_of(tmp_path, '{answer: "${p0.answer}", quote: "${p1.quote}"}')
    assert [claim.path for claim in result.claims if not claim.unsupported] == ["answer", "quote"]


async def test_combined_claims_extra_quotes_are_separate_claims(tmp_path: Path) -> None:
    result = await result_of(tmp_path, '"${listed}"')
    answer, *rest = result.claims
    assert [one.quote for one in answer.evidence if isinstance(one, TextSpan)] == list(LISTED[:100])
    assert [(claim.path, claim.value, claim.unsupported) for claim in rest] == [
        (f"quotes[{at}]", f"word{at}", "") for at in range(100, 120)
    ]


async def test_combined_claims_encode_as_json(tmp_path: Path) -> None:
    result = await result_of(tmp_path, '{answer: "${q0.answer}", title: "${u0.title}"}')
    data = msgspec.json.decode(msgspec.json.encode(result.claims))
    assert [(one["path"], bool(one["unsupported"])) for one in data] == [("answer", False), ("title", True)]
