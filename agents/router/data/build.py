"""The training data set of the agent `router`: generated requests to the shipped fleet with the plans that answer them.

    python -m agents.router.data.build --data FOLDER --out FOLDER [--rows 1800] [--seed 11] [--times 2]
                                       [--whole absent ...]

A request is one to three pieces of work in sequence, each with its step: a question to documents, a question to a
table, an arithmetic story, a claim to check against documents or a text, a message to classify, a booking to read, a
message for the support desk. The words around the pieces and the additional values are drawn at random. The plan's
texts are pieces of the request, as decoding requires. The shortlist and the descriptions of capabilities are those of
`orchestra.app.planning`.

The pieces are the training splits of pubmedqa (MIT, Jin et al. 2019), tatqa (MIT, Zhu et al. 2021), factcheckgpt
(Apache-2.0, Wang et al. 2023), banking77 (CC BY 4.0, Casanueva et al. 2020), clinc150 (CC BY 3.0, Larson et al. 2019),
restaurant8k (CC BY 4.0, Coope et al. 2020), and, of this project (Apache-2.0), the stories of
`agents.calculator.data.stories`, the forms of `general_questions.yaml`, and the requests of `requests/`: forms around
the pieces, and complete written requests beside the generated ones. Rows with a common piece are in one split.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agents.calculator.data.stories import stories
from agents.router.data.general_questions import general_questions, other_tasks
from agents.router.data.request_forms import Forms, bare_messages
from bench.data_sets import command_line, write
from orchestra.app.orchestra import Orchestra
from orchestra.app.planning import PlanOptions, capabilities_of
from orchestra.core.settings import Settings
from orchestra.learn.compatibility import contract_digest
from orchestra.learn.data.dataset import Dataset, DatasetRow, DatasetSource, SplitShares, split
from orchestra.router import prompt
from orchestra.router.capabilities import Capabilities
from orchestra.router.multi_part import find_uncovered, split_request, with_request_parts
from orchestra.router.plan import build_plan
from orchestra.router.plan_grammar import MAX_ITEM_LENGTH
from orchestra.router.plan_syntax import ELEMENT, PlanAnswer, PlanStep, parse_plan
from orchestra.router.planner import PlannerQuestion, PlanRequest, advance, start
from orchestra.router.validation import validate_line
from orchestra.schema.strict_json import digest

SEED = 11
SHARES = SplitShares(tune=0.06, test=0.0)
LONGEST = 200
"""Maximal number of characters of a piece: of a text that a plan states
(`orchestra.router.plan_grammar.MAX_TEXT_LENGTH`).
"""
LISTED = MAX_ITEM_LENGTH
"""Maximal number of characters of a piece in a list of a plan's line."""
DOCUMENTS = [{"source": "a.txt", "text": "a"}]
TABLE = [["a", "b"]]
SETS = {
    "pubmedqa": ("MIT", "question"),
    "tatqa": ("MIT", "question"),
    "factcheckgpt": ("Apache-2.0", "claim"),
    "banking77": ("CC BY 4.0", "text"),
    "clinc150": ("CC BY 3.0", "text"),
    "restaurant8k": ("CC BY 4.0", "text"),
}


@dataclass(frozen=True)
class Kind:
    """A kind of work: the source of its words, its request forms, its values, and its steps."""

    source: str
    asks: tuple[str, ...]
    """`{}` is the piece."""
    name: str
    """Its name in `agents.router.data.request_forms`."""
    steps: tuple[str, ...]
    """`{text}` is the piece as in the plan, `{0}` and `{1}` are the names of the piece's own steps."""
    needs: tuple[str, ...] = ()
    weight: int = 2
    whole: bool = False
    """Whether the plan has the complete request if it has no other piece: words around the question often select the
    row.
    """


KINDS = (
    Kind(
        "pubmedqa",
        (
            "{}",
            "{}",
            "What do the documents say: {}",
            "Look it up: {}",
            "Find out from the documents: {}",
            "From my files, please: {}",
        ),
        "documents",
        ("{0} = answer_from_documents(question={text}, documents=input.documents)",),
        ("documents",),
        2,
    ),
    Kind(
        "questions",
        (
            "{}",
            "{}",
            "{}",
            "What do the documents say: {}",
            "Look it up: {}",
            "Look in my files: {}",
            "Find out from the documents: {}",
            "From my files, please: {}",
            "According to the documents: {}",
            "Search the documents. {}",
            "I have a question. {}",
        ),
        "documents",
        ("{0} = answer_from_documents(question={text}, documents=input.documents)",),
        ("documents",),
        6,
    ),
    Kind(
        "questions",
        (
            "From the text: {}",
            "According to the text: {}",
            "What does the text say: {}",
            "Read the text and tell me: {}",
        ),
        "text_question",
        ("{0} = reader(question={text}, context=input.text)",),
        ("text",),
    ),
    Kind(
        "tatqa",
        (
            "{}",
            "{}",
            "Look at the table: {}",
            "From the table: {}",
            "According to the figures: {}",
            "Read it off the table: {}",
        ),
        "table",
        ("{0} = financial_question(question={text}, table=input.table)",),
        ("table",),
        3,
        whole=True,
    ),
    Kind(
        "stories",
        ("{}", "{}", "Work this out: {}", "Calculate: {}", "A sum for you: {}", "Please reckon this: {}"),
        "sum",
        ("{0} = calculator(question={text})",),
        (),
        4,
    ),
    Kind(
        "factcheckgpt",
        (
            "Do the documents support this claim: {}",
            "Is it true according to the documents? {}",
            "Check this against my files: {}",
            "Verify with the documents: {}",
            "Do my files say so? {}",
            "True or not, by the documents: {}",
        ),
        "claim_documents",
        (
            "{0} = search(query={text}, documents=input.documents)",
            "{1} = entailment(claim={text}, evidence={0}[0].text)",
        ),
        ("documents",),
        3,
    ),
    Kind(
        "factcheckgpt",
        (
            "Does the text say this? {}",
            "Is this backed by the text: {}",
            "Hold this against the text: {}",
            "Is that what the text says? {}",
        ),
        "claim_text",
        ("{0} = entailment(claim={text}, evidence=input.text)",),
        ("text",),
    ),
    Kind(
        "banking77",
        (
            "What does this customer of the bank want: {}",
            "A customer of our bank writes: {} What is it about?",
            "Sort this banking message: {}",
            "Which banking intent is this? {}",
        ),
        "bank_intent",
        ("{0} = banking_intent(text={text})",),
    ),
    Kind(
        "clinc150",
        (
            "What does somebody want who says: {}",
            "Which intent is this? {}",
            "To an assistant somebody said: {} What is meant?",
        ),
        "assistant_intent",
        ("{0} = assistant_intent(text={text})",),
    ),
    Kind(
        "restaurant8k",
        ("Read the booking: {}", "Get date, time and people out of this: {}", "Which slots are in this booking? {}"),
        "booking",
        ("{0} = extractor(text={text}, requested=[])",),
    ),
    Kind(
        "banking77",
        ("Deal with this message: {}", "Handle this for the support desk: {}", "Answer this customer: {}"),
        "desk",
        ("{0} = support_desk(message={text})",),
        (),
        1,
    ),
    Kind("matters", ("{}",), "desk", ("{0} = support_desk(message={text})",), (), 2),
)
STRANGE = tuple(
    Kind(source, ("{}",), "nothing", (), (), weight) for source, weight in (("tasks", 3), ("talk", 1), ("commands", 3))
)
"""Work that no agent of the fleet does: other tasks, small talk, and commands for a voice assistant."""
BY_HAND = 0.7
"""Share of the forms and joins that are taken from `agents.router.data.request_forms` instead of this module."""
TIMES = 2
"""Default number of rows of each complete request, each with other values."""
DECLINED = 0.14
"""Share of requests that no agent serves, or for which a value is missing."""
ALONE = 0.3
"""Share of the unserved commands of `agents.router.data.request_forms` without values. Questions among them never
have values: the documents or the table might answer them.
"""
_ASKS = re.compile(r"\?|^(?:so |and )?(?:wh\w+|how|is|are|am|do|does|did|has|have|should|any)\b", re.IGNORECASE)
"""Marks a question, as opposed to a command."""
VALUES: Mapping[str, Any] = {"documents": DOCUMENTS, "table": TABLE, "text": "a text"}
JOINS = (" Also: {}", " And another thing: {}", "\n{}", " Then: {}", " Besides, {}", " {}")


def pieces(folder: Path) -> dict[str, list[str]]:
    """Returns the pieces of each source in the order of its file, without long and repeated ones, and without small
    talk and desk matters where these are separate kinds.
    """
    found: dict[str, list[str]] = {
        "stories": [problem.question for _, problem in stories(2_000, SEED)],
        "questions": general_questions(2_000, SEED),
        "tasks": other_tasks(400, SEED),
    }
    for name, (_, field) in SETS.items():
        found[name] = [str(row["input"][field]) for row in _rows(folder / name)]
    said = [(str(row["input"]["text"]), row["expected"]["intent"]) for row in _rows(folder / "clinc150")]
    half = [text for text, _ in said[::2]]  # the other texts of these intents become questions
    for name, intents in bare_messages().items():
        taken = {text for text, intent in said if intent in intents}
        found[name] = [text for text in half if text in taken]
    bare = {text for name in bare_messages() for text in found[name]}
    found["clinc150"] = [text for text in found["clinc150"] if text not in bare]
    return {
        name: list(dict.fromkeys(text for one in texts if (text := " ".join(one.split())) and _fits(text)))
        for name, texts in found.items()
    }


def _fits(text: str) -> bool:
    return 8 <= len(text) <= LONGEST and text[0].isalnum() and text[-1] not in " "


def _rows(folder: Path) -> list[Mapping[str, Any]]:
    path = folder / "train.jsonl"
    data = path.read_bytes() if path.is_file() else gzip.decompress((folder / "train.jsonl.gz").read_bytes())
    return [json.loads(line) for line in data.decode("utf-8").splitlines() if line.strip()]


@dataclass(frozen=True)
class Wanted:
    """A request, its values, and the plan that answers it as far as possible."""

    request: str
    values: tuple[str, ...]
    plan: str
    group: str


def wanted(
    found: Mapping[str, Sequence[str]], rows: int, forms: Forms, seed: int = SEED, times: int = TIMES
) -> Iterator[Wanted]:
    """Returns generated requests, each piece used once, followed by the complete written ones."""
    chance = random.Random(seed)
    left = {name: chance.sample(texts, len(texts)) for name, texts in found.items()}
    for number in range(rows):
        declined = chance.random() < DECLINED
        count = chance.choices((1, 2, 3), (75, 25, 0) if declined else (55, 35, 10))[0]
        kinds = chance.sample(KINDS, count, counts=[kind.weight for kind in KINDS])
        missing: tuple[str, ...] = ()
        if (
            declined
            and (lacking := next((kind for kind in kinds if kind.needs), None)) is not None
            and chance.random() < 0.5
        ):
            missing = ("documents", "text", *lacking.needs)
        elif declined:
            kinds[chance.randrange(count)] = chance.choices(STRANGE, [kind.weight for kind in STRANGE])[0]
        if any(len(left[source]) < many for source, many in Counter(kind.source for kind in kinds).items()):
            continue
        parts = [(kind, left[kind.source].pop()) for kind in kinds]
        request = _request(parts, forms, chance)
        yield _put_together(request, parts, chance, f"row {number}", missing)
    of_name = {kind.name: kind for kind in (*KINDS[::-1], *STRANGE[:1])}
    for number, one in enumerate(forms.whole):
        for _ in range(times):
            pairs = [
                (of_name[name], one.said if piece is None else piece)
                for name, piece in zip(one.kinds, one.pieces, strict=True)
            ]
            alone = one.kinds == ("nothing",) and (_ASKS.search(one.said) is not None or chance.random() < ALONE)
            missing = ("documents", "text", "table") if alone else ()
            yield _put_together(one.said, pairs, chance, f"whole {number}", missing)


def _request(parts: Sequence[tuple[Kind, str]], forms: Forms, chance: random.Random) -> str:
    request = ""
    for kind, text in parts:
        by_hand = forms.forms.get(kind.name, ())
        asked = chance.choice(by_hand if by_hand and chance.random() < BY_HAND else kind.asks).replace("{}", text)
        if request and forms.joins and chance.random() < BY_HAND:
            before, between, after = chance.choice(forms.joins).split("{}")
            request = f"{before}{request}{between}{asked}{after}"
        else:
            request = asked if not request else request + chance.choice(JOINS).replace("{}", asked)
    return request


def _put_together(
    request: str, parts: Sequence[tuple[Kind, str]], chance: random.Random, group: str, missing: Sequence[str] = ()
) -> Wanted:
    lines: list[str] = []
    answers: list[str] = []
    able = [(kind, text) for kind, text in parts if kind.steps and not {*kind.needs} & {*missing}]
    declined = not able or (len(able) < len(parts) and not _apart(request, parts))
    for kind, texts in _runs(parts if declined else able):
        names = [f"s{len(lines) + 1 + at}" for at in range(len(kind.steps))]
        if len(texts) > 1:
            call = kind.steps[0].partition(" = ")[2].replace("{text}", ELEMENT)
            lines.append(f"{names[0]} = [{call} for {ELEMENT} in {json.dumps(texts, ensure_ascii=False)}]")
        else:
            whole = request == texts[0] or (kind.whole and len(parts) == 1)
            stated = "input.request" if whole else json.dumps(texts[0], ensure_ascii=False)
            lines += [_filled(step, names, stated) for step in kind.steps]
        answers += names[-1:]
    needed = {name for kind, _ in parts for name in kind.needs}
    values = tuple(name for name in VALUES if name not in missing and (name in needed or chance.random() < 0.25))
    plan = str(PlanAnswer(())) if declined else "\n".join([*lines, f"return {', '.join(answers)}"])
    return Wanted(request, values, plan, group)


def _apart(request: str, parts: Sequence[tuple[Kind, str]]) -> bool:
    """Returns whether each piece is a part of the request by `orchestra.router.multi_part`: then a plan that omits a
    part reports it.
    """
    told = [*(split_request(request) or ())]
    return len(told) == len(parts) and all(text in part for (_, text), part in zip(parts, told, strict=True))


def _runs(parts: Sequence[tuple[Kind, str]]) -> Iterator[tuple[Kind, list[str]]]:
    """Returns consecutive short pieces of one kind as one mapped call, if the kind has one step."""
    for steps, run in itertools.groupby(parts, key=lambda part: part[0].steps):
        kinds, texts = zip(*run, strict=True)
        if len(steps) == 1 and len({*texts}) == len(texts) > 1 and max(map(len, texts)) <= LISTED:
            yield kinds[0], list(texts)
        else:
            yield from ((kind, [text]) for kind, text in zip(kinds, texts, strict=True))


def _filled(step: str, names: Sequence[str], text: str) -> str:
    for at, name in enumerate(names):
        step = step.replace(f"{{{at}}}", name)
    return step.replace("{text}", text)


def row_of(one: Wanted, offer: Capabilities, number: int) -> DatasetRow:
    """Returns the row of a request. Raises `ValueError` for a plan that validation refuses."""
    lines = parse_plan(one.plan)
    if build_plan(lines) is None:
        raise ValueError(f"no plan: {one.plan}")
    steps: list[PlanStep] = []
    for line in lines:
        if faults := validate_line(line, offer, steps):
            raise ValueError(f"{one.plan}: {faults[0]}")
        steps += [line] if isinstance(line, PlanStep) else []
    inputs = {
        "request": one.request,
        "skills": prompt.capability_lines(offer.by_name.values()),
        "values": prompt.value_lines(offer.inputs),
        "plan": "",
        "grammar": "",
    }
    return DatasetRow(f"router-{number}", inputs, one.plan, one.group)


def mended(one: Wanted, offer: Capabilities, number: int) -> Iterator[DatasetRow]:
    """Returns the row of a second attempt after a plan with too few parts: if no agent serves the others, the same
    answer, which ends planning; else the other steps.
    """
    lines = parse_plan(one.plan)
    steps = [line for line in lines if isinstance(line, PlanStep)]
    told = split_request(one.request)
    if told is None or not steps:
        return
    answer, known = lines[-1], with_request_parts(offer, one.request)
    lacking = isinstance(answer, PlanAnswer) and find_uncovered(known.request_parts, steps, answer) is not None
    kept = steps if lacking else steps[:1]
    state, _ = start(PlanRequest(one.request, known, repairs=2))
    _, wanted = advance(state, "\n".join([*map(str, kept), str(answer) if lacking else f"return {kept[-1].name}"]))
    if isinstance(wanted, PlannerQuestion) and wanted.inputs["plan"] == "\n".join(map(str, kept)):
        rest = "\n".join(map(str, lines[len(kept) :]))
        yield DatasetRow(f"router-{number}-mended", {**wanted.inputs, "grammar": ""}, f"\n{rest}", one.group)


async def made(folder: Path, rows: int, seed: int = SEED, times: int = TIMES, whole: Sequence[str] = ()) -> Dataset:
    """Builds the data set with the complete requests of these files of `requests/`; of all by default."""
    found, forms = pieces(folder), Forms.read()
    if whole:
        forms = replace(forms, whole=Forms.read(files=whole).whole)
    async with Orchestra.open(Settings.load({"journal": "off"}), fleet="none") as orchestra:
        card = orchestra.registry.card("router")
        # The fleet has few capabilities, so none is left out: the shortlist follows from the values alone.
        capabilities_by_values: dict[tuple[str, ...], Capabilities] = {}
        every = []
        for number, one in enumerate(wanted(found, rows, forms, seed, times)):
            if one.values not in capabilities_by_values:
                offer = capabilities_of(
                    orchestra, "-", {name: VALUES[name] for name in one.values}, PlanOptions(grounded=False)
                )
                capabilities_by_values[one.values] = replace(offer, request_text="")  # the same for any request
            every.append(row_of(one, capabilities_by_values[one.values], number))
            every += mended(one, capabilities_by_values[one.values], number)
    licences = {
        **{name: licence for name, (licence, _) in SETS.items()},
        "stories": "Apache-2.0",
        "questions": "Apache-2.0",
        "tasks": "Apache-2.0",
    }
    asks = [form for kind in forms.forms.values() for form in kind]
    found["requests"] = [*asks, *forms.joins, *(one.request for one in forms.whole)]
    licences["requests"] = "Apache-2.0"
    origins = [_origin(name, licence, found[name]) for name, licence in licences.items()]
    return Dataset.build(
        "router",
        card.name,
        contract_digest(card),
        "MIT; Apache-2.0; CC BY 4.0; CC BY 3.0",
        origins,
        split(every, SHARES),
    )


def _origin(name: str, licence: str, texts: Sequence[str]) -> DatasetSource:
    return DatasetSource(name, licence, digest("\n".join(texts).encode()), "pieces of requests", len(texts))


def main() -> None:
    """Writes the folder."""
    parser = command_line(__doc__, f"the folder with {', '.join(SETS)}")
    parser.add_argument("--rows", type=int, default=1800)
    parser.add_argument("--seed", type=int, default=SEED, help="random seed")
    parser.add_argument("--times", type=int, default=TIMES, help="rows of each complete written request")
    parser.add_argument(
        "--whole",
        nargs="+",
        default=[],
        metavar="NAME",
        help="use complete requests only from these files of requests/",
    )
    given = parser.parse_args()
    write(asyncio.run(made(given.data, given.rows, given.seed, given.times, given.whole)), given.out)


if __name__ == "__main__":
    main()
