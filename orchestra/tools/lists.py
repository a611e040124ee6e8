"""Lists: the list in documents that a request asks for, item by item, each with its place.

Lists are bullets and numbered lines, the rows of a Markdown table, lines such as `Present: A, B and C`, and sentences
that enumerate. An encoder compares each with the request; code takes the nearest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from orchestra.schema.builtin_models import Citation, Document, Passage, StrictModel
from orchestra.text.numbers.times import MONTH_PATTERN, month_number
from orchestra.tools.answers import document_title
from orchestra.tools.replies import Finding, Reply
from orchestra.tools.sentences import numbered_sentences
from orchestra.workflows.python.steps import tool

NEAR = 0.33
"""The closeness from which a list is the one that a request asks for."""
MAX_ITEMS = 60
MAX_LISTS = 200
_ITEM = re.compile(r"^[ \t]*(?:[-*•–]|\(?\d{1,2}[.)]|[a-z]\))[ \t]+(?P<text>\S.*?)[ \t]*$")
_ROW = re.compile(r"^\s*\|.*\|\s*$")
_RULE = re.compile(r"^\s*\|?\s*:?-{2,}[-:|\s]*$")
_LABELLED = re.compile(r"^[ \t]*(?P<label>[A-Z][\w ]{2,40}):[ \t]+(?P<text>[^|\n]*,[^|\n]*)$")


_ENUMERATES = re.compile(r"[^,]{3,},[^,]{3,},|,[^,.]{3,}\b(?:and|or|und|et|y)\b|[^\W\d]{3,},[^,.]+$")
"""Two commas, or a comma and a conjunction."""
_DAY = re.compile(
    rf"\b(?P<day>\d{{1,2}})(?:st|nd|rd|th|\.)?\s+(?P<month>{MONTH_PATTERN})\b|\b\d{{4}}-(?P<m>\d\d)-(?P<d>\d\d)\b",
    re.IGNORECASE,
)


class TextList(StrictModel):
    """A list in a document: its items in order, and the words by which it is found."""

    label: str
    items: list[Passage]
    title: str = ""
    """The title of its document."""
    whole: bool = False
    """Whether it is one sentence that enumerates."""


class TextLists(StrictModel):
    """The lists of documents, and the texts by which they are compared with a request."""

    lists: list[TextList]
    texts: list[str]


@tool(effect="pure", label="restricted")
def find_lists(documents: Sequence[Document]) -> TextLists:
    """The lists in documents, with their headings."""
    found: list[TextList] = []
    texts: list[str] = []
    for document in documents:
        title = document_title(document)
        for entry in _lists_of(document):
            if len(found) >= MAX_LISTS:
                break
            shown = "; ".join(item.text for item in entry.items)[:500]
            found.append(entry.model_copy(update={"title": title}))
            texts.append(f"{title}\n{entry.label}\n{shown}")
    return TextLists(lists=found, texts=texts)


def _lists_of(document: Document) -> Iterator[TextList]:
    heading, before = "", ""
    open_items: list[Passage] = []
    label = ""
    at = 0
    lines = document.text.split("\n")
    in_list = set()
    for number, line in enumerate(lines):
        start = at
        at += len(line) + 1
        match = _ITEM.match(line)
        is_row = _ROW.match(line) is not None
        if match or (is_row and not _RULE.match(line)):
            if not open_items:
                label = " ".join(filter(None, (heading, before)))
            text = match["text"] if match else " | ".join(cell.strip() for cell in line.strip().strip("|").split("|"))
            begin = start + (match.start("text") if match else len(line) - len(line.lstrip()))
            end = begin + len(text) if match else start + len(line.rstrip())
            if is_row and not match and number + 1 < len(lines) and _RULE.match(lines[number + 1]):
                label = f"{label} {text}"
                continue
            open_items.append(Passage(source=document.source, text=text, start=begin, end=end))
            in_list.add(number)
            continue
        if _RULE.match(line):
            continue
        if open_items and line.strip() and line[:1] in " \t":  # the continuation of an item
            last = open_items[-1]
            open_items[-1] = last.model_copy(
                update={"text": f"{last.text} {line.strip()}", "end": start + len(line.rstrip())}
            )
            continue
        if open_items and (line.strip() or (number + 1 < len(lines) and not _ITEM.match(lines[number + 1]))):
            yield TextList(label=label, items=open_items)
            open_items = []
        if (labelled := _LABELLED.match(line)) and _names_things(labelled["text"]):
            begin = start + labelled.start("text")
            yield TextList(
                label=f"{heading} {labelled['label']}",
                items=[
                    Passage(
                        source=document.source,
                        text=labelled["text"].strip(),
                        start=begin,
                        end=start + len(line.rstrip()),
                    )
                ],
                whole=True,
            )
        if line.startswith("#"):
            heading, before = line.strip("# "), ""
        elif line.strip():
            before = line.strip()[-160:]
    if open_items:
        yield TextList(label=label, items=open_items)
    yield from _enumerations(document)


def _names_things(text: str) -> bool:
    """Whether most parts of an enumeration are words, and not dates or times."""
    parts = re.split(r",|\b(?:and|or|und|et|y)\b", text)
    return 2 * sum(re.search(r"\d", part) is None for part in parts) > len(parts)


def _enumerations(document: Document) -> Iterator[TextList]:
    """Sentences that enumerate: with two commas, or a comma and a conjunction."""
    heading = ""
    for start, end, text in numbered_sentences(document.text):
        if text.startswith("#"):
            heading = text.strip("# ")
        elif "|" not in text and len(text) < 500 and _ENUMERATES.search(text) and _names_things(text):
            yield TextList(
                label=heading,
                items=[Passage(source=document.source, text=text, start=start, end=end)],
                whole=True,
            )


def _plain(text: str) -> str:
    """A text without the marks of Markdown, on one line."""
    return " ".join(text.replace("**", "").split())


_TASKS = re.compile(
    r"\b(?:action (?:items|points)|tasks|to-?dos|who (?:has|have|needs?) to do|(?:has|have|is|"
    r"are|was|were) (?:left )?to (?:be done|do)|left to do|assignments)\b",
    re.IGNORECASE,
)
_BY_DAY = re.compile(
    rf"\b(?:by|until|till|before|bis|avant|antes)\b.{{0,12}}?(?:\d{{1,2}}\s+[A-Z][a-z]+|\d{{4}}-\d\d-\d\d|"
    rf"\b\w+day\b|(?:this|next) (?:week|month)|\b(?:{MONTH_PATTERN})\b)",
    re.IGNORECASE,
)
_SUBJECT = re.compile(
    r"\b(?:list|enumerate|name|give|show|what are|collect|liste|nenne)\b(?:\s+(?:me|us|a|all|every|each|the|"
    r"list|of|alle|die))*\s+(?P<noun>[^\W\d_]+)",
    re.IGNORECASE,
)


def _names_subject(request: str, entry: TextList) -> bool:
    """Whether the words of a list, its heading or its title have the noun of a request; true without one."""
    match = _SUBJECT.search(request)
    if match is None or len(match["noun"]) < 4:
        return True
    stem = match["noun"].casefold()[:5]
    words = f"{entry.label} {entry.title} {' '.join(item.text for item in entry.items)}".casefold()
    return stem in words


def _fit(request: str, entry: TextList, score: float) -> float:
    """How well a list fits a request: by closeness, more for a list of lines than for a sentence, and less if the
    request names another day than the document's own.
    """
    weight = score + (0.0 if entry.whole else 0.12)
    if _TASKS.search(request):
        dated = sum(_BY_DAY.search(item.text) is not None for item in entry.items)
        weight += -0.3 if entry.whole else 0.25 * dated / len(entry.items)
    elif not _names_subject(request, entry):
        weight -= 0.12
    asked, own = _days(request), _days(f"{entry.items[0].source.replace('_', ' ')} {entry.title}")
    return weight - 0.6 if asked and own and not asked & own else weight


def _days(text: str) -> set[tuple[int, int]]:
    """The days in a text, as month and day."""
    return {
        (month_number(match["month"]), int(match["day"])) if match["month"] else (int(match["m"]), int(match["d"]))
        for match in _DAY.finditer(text)
    }


@tool(effect="pure", label="restricted")
def choose_list(request: str, lists: Sequence[TextList], scores: Sequence[float]) -> Reply:
    """The items of the list nearest to a request, one on each line; no text if no list is near."""
    fit = [_fit(request, entry, score) for entry, score in zip(lists, scores, strict=True)]
    order = sorted(range(len(lists)), key=lambda at: (-fit[at], at))
    if not order or fit[order[0]] < NEAR:
        return Reply(text=None, findings=[Finding(question=request, answer=None)], missing=[request])
    best = lists[order[0]]
    items = best.items[:MAX_ITEMS]
    return Reply(
        text="\n".join(_plain(item.text) if best.whole else f"- {_plain(item.text)}" for item in items),
        findings=[Finding(question=request, answer=item.text) for item in items],
        citations=[Citation(quote=item.text, source=item.source, start=item.start, end=item.end) for item in items],
        missing=[] if len(best.items) <= MAX_ITEMS else [f"{len(best.items) - MAX_ITEMS} more items"],
    )
