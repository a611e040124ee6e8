"""The training data set of the readers, from the training splits of public sets and from written questions.

    python -m agents.reader.data.build --data FOLDER --out FOLDER [--kinds asked siblings ...]

FOLDER has `xquad_en/train.jsonl` (XQuAD, English; CC BY-SA 4.0; Artetxe et al. 2020); for further kinds also
`tatqa/train.jsonl` (TAT-QA; MIT; Zhu et al. 2021), `begin/train.jsonl` (BEGIN; CC BY 4.0; Dziri et al. 2022) and
`factcheckgpt/train.jsonl` (Apache-2.0). Nothing else of public sets is read. Kinds of rows, all deterministic:

- *asked*: the rows of XQuAD, unchanged.
- *siblings*: a question with another passage of its article, those with most common words first: no answer.
- *windows*: two or more sentences of a passage with all of its questions: answered if the answer is still in them; else
  no answer.
- *finance*: questions of TAT-QA over its paragraphs: answered if the answer is a span of one; no answer if it comes
  from the table.
- *cloze*, *begin*, *claims*: a sentence of a passage with a name, a number or a year replaced by a question word; or
  the same with another passage.
- *passages*: questions to passages written for this project (`agents/reader/data/written/passages`, Apache-2.0;
  `bench.written_rows`), unchanged.
- *office*: questions to passages of office documents (`agents/reader/data/written/office`, Apache-2.0), each to the
  whole passage, and to what `find_answer` reads: one sentence, or three, with the answer or beside it. Beside them a
  share of the rows of *passages* (`--again`), so that what was learnt before is kept.
- *without*: half of these passages again, each without a sentence that answers some of its questions, with these and as
  many others.

Rows are split by article, paragraphs and passage.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from bench.data_sets import command_line, write
from bench.written_rows import renewed, written
from orchestra.agents.card import Card
from orchestra.learn.compatibility import contract_digest
from orchestra.learn.data.dataset import Dataset, DatasetRow, DatasetSource, Split, SplitShares, assign_split
from orchestra.schema.strict_json import digest
from orchestra.text.keywords import content_words, find_words

ROOT = Path(__file__).resolve().parents[3]
SEED = 11
SIBLINGS = 3
"""Number of questions of its article that a passage does not answer."""
WINDOWS = 2
"""Windows of a passage."""
SHARES = SplitShares(tune=0.12, test=0.0)
WRITTEN, WITHOUT, OFFICE = "passages", "without", "office"
"""Kinds that are not from a public set."""
WRITTEN_SHARES = SplitShares(tune=0.04, test=0.0)
LONGEST = 1800
"""Maximal number of characters of a passage of TAT-QA."""
_SENTENCE = re.compile(r"\S.*?(?:[.!?][\"')\]\u201d\u2019]*(?=\s+[\"'(\u201c]?[A-Z0-9])|$)", re.DOTALL)


@dataclass(slots=True)
class Passage:
    """A passage with its answerable questions and their answers."""

    text: str
    group: str
    asked: dict[str, str] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)
    """Unanswerable questions according to the source."""


def lines(path: Path) -> list[dict[str, Any]]:
    """Reads the rows of a file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def row(kind: str, group: str, passage: str, question: str, answer: str | None) -> DatasetRow:
    """Builds a row of the reader."""
    mark = digest(json.dumps([passage, question]).encode())[:16]
    return DatasetRow(f"{kind}-{mark}", {"question": question, "context": passage}, {"answer": answer}, group)


def articles(rows: Sequence[dict[str, Any]]) -> list[list[Passage]]:
    """Returns XQuAD's passages by article: two passages with a common question belong together."""
    passages: dict[str, Passage] = {}
    beside: dict[str, list[str]] = defaultdict(list)
    for item in rows:
        text, question = item["input"]["context"], item["input"]["question"]
        passage = passages.setdefault(text, Passage(text, ""))
        if answers := item["expected"]["answers"]:
            passage.asked[question] = answers[0]["text"]
        else:
            passage.silent.append(question)
        beside[question].append(text)
    links: dict[str, set[str]] = defaultdict(set)
    for texts in beside.values():
        for text in texts:
            links[text].update(texts)
    found: list[list[Passage]] = []
    left = dict.fromkeys(passages)
    while left:
        line, reached = [next(iter(left))], dict[str, None]()
        while line:
            here = line.pop()
            if here not in reached:
                reached[here] = None
                line += sorted(links[here])
        article = [passages[text] for text in reached]
        group = "xquad-" + digest("".join(sorted(reached)).encode())[:12]
        for passage in article:
            passage.group = group
            del left[passage.text]
        found.append(article)
    return found


def sentences(text: str) -> list[str]:
    """Returns the sentences of a text."""
    return [match[0].strip() for match in _SENTENCE.finditer(text)]


def asked(article: Sequence[Passage]) -> Iterator[DatasetRow]:
    """Returns the unchanged rows."""
    for passage in article:
        for question, answer in passage.asked.items():
            yield row("asked", passage.group, passage.text, question, answer)
        for question in passage.silent:
            yield row("asked", passage.group, passage.text, question, None)


def siblings(article: Sequence[Passage], many: int) -> Iterator[DatasetRow]:
    """Returns questions of other passages of the article, most similar first."""
    for passage in article:
        known = content_words(passage.text)
        others = [
            (question, answer)
            for other in article
            if other is not passage
            for question, answer in other.asked.items()
            if question not in passage.silent and not told(answer, passage.text)
        ]
        others.sort(key=lambda pair: (-len(content_words(pair[0]) & known) / max(1, len(content_words(pair[0]))), pair))
        for question, _ in others[:many]:
            yield row("sibling", passage.group, passage.text, question, None)


def windows(article: Sequence[Passage], many: int) -> Iterator[DatasetRow]:
    """Returns parts of a passage with all of its questions."""
    for passage in article:
        parts = sentences(passage.text)
        chance = random.Random(digest(passage.text.encode()) + str(SEED))
        texts: list[str] = []
        for _ in range(8):
            length = chance.randint(2, max(2, (len(parts) + 1) // 2))
            start = chance.randint(0, max(0, len(parts) - length))
            first, last = passage.text.find(parts[start]), passage.text.find(parts[min(start + length, len(parts)) - 1])
            text = passage.text[first : last + len(parts[min(start + length, len(parts)) - 1])]
            if len(text) < 0.75 * len(passage.text) and text not in texts:
                texts.append(text)
        for text in texts[:many]:
            told_here = [(q, a) for q, a in passage.asked.items() if a in text]
            not_here = [(q, a) for q, a in passage.asked.items() if not told(a, text)]
            for question, answer in told_here:
                yield row("window", passage.group, text, question, answer)
            for question, _ in not_here[: max(2, len(told_here))]:
                yield row("window", passage.group, text, question, None)


def without(passage: Passage) -> Iterator[DatasetRow]:
    """Returns the passage without a sentence that answers some of its questions: these, now unanswerable, and at most
    as many others.
    """
    chance = random.Random(digest(passage.text.encode()) + str(SEED))
    parts = sentences(passage.text)
    chance.shuffle(parts)
    for part in parts:
        text = passage.text.replace(part, "").replace("  ", " ").strip()
        asked = list(passage.asked.items())
        silent = [question for question, answer in asked if answer in part and not told(answer, text)]
        others = [(question, answer) for question, answer in asked if find_words(answer, text) and answer not in part]
        if silent and others:
            yield from (row(WITHOUT, passage.group, text, question, None) for question in silent)
            yield from (
                row(WITHOUT, passage.group, text, *one) for one in chance.sample(others, min(len(others), len(silent)))
            )
            return


def excerpts(rows: Sequence[DatasetRow]) -> Iterator[DatasetRow]:
    """Returns questions of written passages to one sentence and to three: those with the answer, and others without."""
    for one in rows:
        question, text, answer = str(one.input["question"]), str(one.input["context"]), one.output["answer"]
        parts = sentences(text)
        chance = random.Random(digest(json.dumps([text, question]).encode()) + str(SEED))
        if len(parts) < 3:
            continue
        at = next((at for at, part in enumerate(parts) if answer is not None and answer in part), None)
        if at is not None:
            first = max(0, at - 1)
            window = text[text.find(parts[first]) : text.find(parts[min(at + 1, len(parts) - 1)])]
            window = f"{window}{parts[min(at + 1, len(parts) - 1)]}".strip()
            chosen = window if chance.random() < 0.6 else parts[at]
            if str(answer) in chosen:
                yield row("excerpt", one.group, chosen, question, str(answer))
        others = [
            part for number, part in enumerate(parts) if number != at and not (answer and told(str(answer), part))
        ]
        if others and (at is None or chance.random() < 0.5):
            yield row("excerpt", one.group, chance.choice(others), question, None)


def told(answer: str, text: str) -> bool:
    """Returns whether a text has the words of an answer, without case."""
    return bool(find_words(answer.casefold(), text.casefold()))


def finance(rows: Iterable[dict[str, Any]]) -> Iterator[DatasetRow]:
    """Returns TAT-QA over its paragraphs: spans of them, and questions that only the table answers."""
    contexts: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for item in rows:
        contexts[json.dumps([item["input"]["table"], item["input"]["paragraphs"]])].append(item)
    for key, items in contexts.items():
        group = "tatqa-" + digest(key.encode())[:12]
        paragraphs = [text.strip() for text in items[0]["input"]["paragraphs"] if len(text) > 60]
        if not paragraphs:
            continue
        told_here: list[DatasetRow] = []
        silent: list[DatasetRow] = []
        for item in items:
            expected, question = item["expected"], item["input"]["question"]
            answer = expected["answer"][0] if isinstance(expected["answer"], list) else str(expected["answer"])
            home = next((text for text in paragraphs if answer in text), None)
            if (
                expected["type"] == "span"
                and expected["from"] == "text"
                and home is not None
                and 1 <= len(answer) <= 120
            ):
                text = _with_neighbours(paragraphs, home)
                if find_words(answer, text):
                    told_here.append(row("finance", group, text, question, answer.strip()))
            elif expected["type"] == "span" and expected["from"] == "table" and home is None:
                silent.append(
                    row("finance", group, _with_neighbours(paragraphs, max(paragraphs, key=len)), question, None)
                )
        yield from told_here
        yield from silent[: max(1, len(told_here) // 2)]


def _with_neighbours(paragraphs: Sequence[str], home: str) -> str:
    """Returns a paragraph with the following ones, up to a length."""
    at = paragraphs.index(home)
    text = home
    for other in paragraphs[at + 1 :]:
        if len(text) + len(other) > LONGEST // 2:
            break
        text += "\n" + other
    return text[:LONGEST]


_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_ASKED: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(rf"(?<=\b[Oo]n )(?:{_MONTHS}) \d{{1,2}}(?:, \d{{4}})?(?!\w)"), "what date"),
    (re.compile(r"(?<=\b[Ii]n )(?:1\d{3}|20[0-2]\d)(?![\w,.]\d)(?!s\b)"), "what year"),
    (re.compile(r"(?<=\b[Ii]n the )(?:1\d{3}|20[0-2]\d)s(?!\w)"), "what decade"),
    (
        re.compile(
            r"(?<![\w.,$€£-])\d[\d,]*(?:\.\d+)?"
            r"(?= (?!percent|per cent|million|billion|and|to|or|in|of|on|at|by|for|was|is|were|are|the)[a-z]{4,})"
        ),
        "how many",
    ),
    (re.compile(r"(?<![\w.,$€£-])\d[\d,]*(?:\.\d+)? ?(?:%|percent|per cent)(?!\w)"), "what percentage"),
    (re.compile(r"[$€£]\d[\d,]*(?:\.\d+)?(?: (?:million|billion))?(?!\w)"), "how much money"),
    (re.compile(r"(?<=\bby )[A-Z][\w'’-]+(?: (?:[A-Z][\w'’-]+|[A-Z]\.))+"), "whom"),
    (re.compile(r"(?<=[a-z,] )(?:the )?[A-Z][\w'’-]+(?: (?:of|the|de|and|von)(?= [A-Z])| [A-Z][\w'’-]+)*"), "what"),
    (
        re.compile(
            r"^[A-Z][a-z'’-]+(?: [A-Z][\w'’-]+)+(?= "
            r"(?:was|is|were|are|had|has|became|won|made|led|served|wrote|began|played)\b)"
        ),
        "who or what",
    ),
)


def cloze(text: str, most: int, chance: random.Random) -> list[tuple[str, str]]:
    """Returns questions made of a text's sentences, with answers: a piece of a sentence becomes a question word."""
    found: list[tuple[str, str]] = []
    parts = [part for part in sentences(text) if 40 <= len(part) <= 260]
    chance.shuffle(parts)
    for part in parts:
        options = [(match, word) for pattern, word in _ASKED for match in pattern.finditer(part)]
        options = [(match, word) for match, word in options if _whole(part, match) and text.count(match[0]) == 1]
        if not options:
            continue
        match, word = chance.choice(options)
        before, after = part[: match.start()].strip(), part[match.end() :].rstrip(".!? ")
        before = _clause(before, last=True)
        after = _clause(after, last=False)
        if len(content_words(before + " " + after)) < 3:
            continue
        if word == "who or what" or not before:
            question = f"{word.capitalize()} {after.strip()}?"
        else:
            question = (
                f"{before[0].upper() if chance.random() < 0.5 else before[0]}{before[1:]} {word} {after.strip()}"
            ).strip() + "?"
        found.append((question, match[0].removeprefix("the ")))
        if len(found) == most:
            break
    return found


def _whole(sentence: str, match: re.Match[str]) -> bool:
    """Returns whether a piece is not part of a longer name or number."""
    before, after = sentence[: match.start()].split(), sentence[match.end() :]
    named = match[0][0].isupper() and bool(before) and before[-1][0].isupper() and before[-1][-1].isalpha()
    return not named and re.match(r"[/.&’'-]\w|\.,| [A-Z&(]|\w", after) is None


def _clause(text: str, *, last: bool) -> str:
    """Returns the clause around the piece, if the complete sentence would make a long question."""
    if len(text) < 90:
        return text
    pieces = re.split(r"(?<=[,;]) ", text)
    kept = pieces[-1] if last else pieces[0]
    return kept.rstrip(",;") if len(kept) > 20 else text


def clozes(passages: Sequence[tuple[str, str]], kind: str, most: int) -> Iterator[DatasetRow]:
    """Returns questions of passages (text, group), each also with the passage that shares most words with it."""
    chance = random.Random(f"{kind}{SEED}")
    words = [content_words(text) for text, _ in passages]
    index: dict[str, list[int]] = defaultdict(list)
    for at, known in enumerate(words):
        for word in known:
            index[word].append(at)
    for at, (text, group) in enumerate(passages):
        made = cloze(text, most, chance)
        for question, answer in made:
            yield row(kind, group, text, question, answer)
        near = Counter(other for word in words[at] for other in index[word] if other != at and len(index[word]) < 200)
        for other, _ in near.most_common(1):
            for question, answer in cloze(passages[other][0], 1, random.Random(f"{at}{SEED}")):
                if not told(answer, text):
                    yield row(kind, group, text, question, None)


def evidence(rows: Iterable[dict[str, Any]], least: int, name: str) -> list[tuple[str, str]]:
    """Returns the passages of a set of claims with evidence, each once and in its own group."""
    texts = dict.fromkeys(item["input"]["evidence"].strip() for item in rows)
    return [
        (text, f"{name}-{digest(text.encode())[:12]}")
        for text in texts
        if least <= len(text) <= 900 and text[0].isupper()
    ]


KINDS = ("asked", "siblings", "windows", "cloze", "finance", "begin", "claims", WRITTEN, WITHOUT, OFFICE)
CHOSEN = ("asked", "siblings", WRITTEN, WITHOUT)
"""The kinds that the shipped readers are trained on."""


@dataclass(frozen=True, slots=True)
class Public:
    """A public source of rows."""

    name: str
    licence: str
    prefix: str
    """Prefix of its group names."""
    kinds: tuple[str, ...]


SETS = (
    Public("xquad_en", "CC BY-SA 4.0", "xquad-", ("asked", "siblings", "windows", "cloze")),
    Public("tatqa", "MIT", "tatqa-", ("finance",)),
    Public("begin", "CC BY 4.0", "begin-", ("begin",)),
    Public("factcheckgpt", "Apache-2.0", "claims-", ("claims",)),
)


def made_of(kind: str, folder: Path) -> list[DatasetRow]:
    """Returns the rows of a kind."""
    rows = lines(folder / next(one.name for one in SETS if kind in one.kinds) / "train.jsonl")
    match kind:
        case "asked":
            return [row for article in articles(rows) for row in asked(article)]
        case "siblings":
            return [row for article in articles(rows) for row in siblings(article, SIBLINGS)]
        case "windows":
            return [row for article in articles(rows) for row in windows(article, WINDOWS)]
        case "cloze":
            return [
                row for article in articles(rows) for row in clozes([(one.text, one.group) for one in article], kind, 2)
            ]
        case "finance":
            return list(finance(rows))
        case "begin":
            return list(clozes(evidence(rows, 150, kind), kind, 2))
        case _:
            return list(clozes(evidence(rows, 300, kind), kind, 1))


def half_of_passages(rows: Sequence[DatasetRow]) -> list[Passage]:
    """Returns half of the passages of written rows, drawn by their texts."""
    passages: dict[str, Passage] = {}
    for one in rows:
        question, text = str(one.input["question"]), str(one.input["context"])
        passage = passages.setdefault(text, Passage(text, one.group))
        if (answer := one.output["answer"]) is not None:
            passage.asked[question] = str(answer)
    return [passage for text, passage in passages.items() if int(digest(text.encode())[:8], 16) % 2]


def data_set(folder: Path, name: str, kinds: Sequence[str], again: float = 1.0) -> Dataset:
    """Builds the data set of these kinds. The tune split has only questions of people and authors."""
    parts: dict[Split, list[DatasetRow]] = {"train": [], "tune": [], "test": []}
    seen: set[str] = set()
    for kind in [kind for kind in kinds if kind not in (WRITTEN, WITHOUT, OFFICE)]:
        rows = made_of(kind, folder)
        print(f"{kind}: {len(rows)} rows, {sum(one.output['answer'] is None for one in rows)} of them not told")
        for one in rows:
            mark = one.id.partition("-")[2]
            part = assign_split(one.group, SHARES)
            if mark not in seen and (part != "tune" or kind == "asked"):
                parts[part].append(one)
            seen.add(mark)
    taken = [one for rows in parts.values() for one in rows]
    sources = [
        DatasetSource(
            used.name,
            used.licence,
            digest((folder / used.name / "train.jsonl").read_bytes()),
            ", ".join(kind for kind in used.kinds if kind in kinds),
            sum(one.group.startswith(used.prefix) for one in taken),
        )
        for used in SETS
        if set(used.kinds) & set(kinds)
    ]
    if WRITTEN in kinds:
        parts, ours = renewed(parts, [WRITTEN], 1.0, WRITTEN_SHARES)
        sources += ours
    if WITHOUT in kinds:
        rows, origin = written(WRITTEN)
        made = [
            row
            for passage in half_of_passages(rows)
            if assign_split(passage.group, WRITTEN_SHARES) == "train"
            for row in without(passage)
        ]
        print(f"{WITHOUT}: {len(made)} rows, {sum(one.output['answer'] is None for one in made)} of them not told")
        parts["train"] = [*parts["train"], *made]
        sources.append(
            msgspec.structs.replace(origin, description="half of the passages, each without a sentence", rows=len(made))
        )
    if OFFICE in kinds:
        parts, ours = renewed(parts, [OFFICE], again, WRITTEN_SHARES)
        sources += ours
        made = list(excerpts([row for row in written(OFFICE)[0] if assign_split(row.group, WRITTEN_SHARES) == "train"]))
        print(f"excerpts: {len(made)} rows, {sum(one.output['answer'] is None for one in made)} of them not told")
        parts["train"] = [*parts["train"], *made]
        sources.append(msgspec.structs.replace(ours[0], description="sentences of these passages", rows=len(made)))
    licence = "; ".join(dict.fromkeys(source.licence for source in sources))
    return Dataset.build(
        name, "reader", contract_digest(Card.load(ROOT / "agents" / "generative_reader")), licence, sources, parts
    )


def main() -> None:
    parser = command_line(__doc__, "the folder of the public sets")
    parser.add_argument("--name", default="reader")
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=CHOSEN, help=f"kinds of rows; {' '.join(CHOSEN)} without it"
    )
    parser.add_argument("--again", type=float, default=1.0, help="share of the other rows beside those of office")
    given = parser.parse_args()
    write(data_set(given.data, given.name, given.kinds, given.again), given.out)


if __name__ == "__main__":
    main()
