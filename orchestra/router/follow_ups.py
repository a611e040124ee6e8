"""Follow-ups: an elliptical request of a conversation becomes a full request, by rule.

`and in Q2?` continues an earlier request: the value of the same kind is replaced. A pronoun means the last answer
or the subject of an earlier request, and `20 % of that` for its number. Each full request is checked
(`check_full_request`): its words come from the follow-up, from earlier requests and from their answers. If two readings
are about as good, both are returned, and if none is found, the reason. Pure: nothing is read or called here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from orchestra.router.typed_values import PERIODS, TypedValue, Vocabulary, find_values
from orchestra.text.keywords import WORD
from orchestra.tools.word_forms import stem_word

Status: TypeAlias = Literal["complete", "resolved", "ambiguous", "unresolved"]
MAX_TURNS: Final = 6
"""Earlier turns that a follow-up may continue."""
MAX_LENGTH: Final = 1000
"""Characters of a full request."""
MARGIN: Final = 0.05
"""The least difference of the scores of two readings if the better one is to be taken."""

_LEAD = re.compile(
    r"^\W*(?:(?:and|so|then|but|ok(?:ay)?|now|or|also|well|und|et|y)\b[\s,]*)*"
    r"(?:(?:what|how) about\b\s*|(?:the )?same (?:question |again )?(?=for\b|in\b|with\b|on\b)|was ist mit\b\s*|"
    r"wie (?:ist|sieht) es (?:aus )?(?:mit|bei)\b\s*|et pour\b\s*)?",
    re.IGNORECASE,
)
_TAIL = re.compile(
    r"(?:[\s,]*\b(?:then|too|as well|instead|please|again|dann|auch|bitte|alors))*[\s?.!]*$", re.IGNORECASE
)
_WH = re.compile(
    r"^(?:who|whom|whose|what|which|when|where|why|how(?: (?:much|many|long|old|high|often))?|wer|was|wann|wo|warum|"
    r"wie(?: ?viele?)?|welche[rsnm]?|qui|quand|où|combien)\b\s*",
    re.IGNORECASE,
)
_PREPOSITIONS = "for|in|on|at|with|without|from|to|by|of|during|since|until|after|before|under|über|für|im|am|bei|mit"
_PREPOSITION = re.compile(rf"^(?:{_PREPOSITIONS})\b\s*", re.IGNORECASE)
_AUXILIARIES = (
    "is|are|was|were|do|does|did|has|have|had|can|could|may|must|should|will|would|ist|sind|war|hat|haben|kann|muss"
)
_VERBS = (
    "get|gets|got|cost|costs|need|needs|needed|pay|pays|paid|take|takes|took|give|gives|gave|deliver|delivers|arrive|"
    "arrives|start|starts|end|ends|begin|begins|expire|expires|last|lasts|weigh|open|opens|close|closes|mean|include|"
    "includes|apply|applies|work|works|charge|charges|charged|buy|bought|sell|sold|sign|signs|signed|approve|approves|"
    "order|orders|ordered|use|used|change|changed|drive|drove|make|makes|made|bring|brings|brought|be|say|says|cover|"
    "covers|have|sent|send|sends|received|receive|kept|keep|live|lives|rent|rents|rented|missed|happen|happens"
)
_BOUNDARY = re.compile(
    rf"^(?:{_PREPOSITIONS}|{_AUXILIARIES}|{_VERBS}|who|whom|what|which|when|where|why|how|that|and|or|if|not|much|many|"
    r"off|back|there|it|i|we|you|my own)$",
    re.IGNORECASE,
)
_DETERMINER = re.compile(r"^(?:the|an?|our|my|your|this|that|all|other|another)\b\s*", re.IGNORECASE)
_VERB = re.compile(
    rf"(?<!\bthe )(?<!\ba )(?<!\ban )(?<!\bour )(?<!\bmy )\b(?:{_AUXILIARIES}|{_VERBS})\b", re.IGNORECASE
)
_COMMAND = re.compile(
    r"^\W*(?:please )?(?:list|show|tell|name|give|summari[sz]e|sum up|draft|write|compare|check|extract|find|classify|"
    r"translate|explain|calculate|compute|ring|send|book)\b",
    re.IGNORECASE,
)
_PERSONAL = re.compile(r"\b(?P<word>he|she|him|her|his|hers|they|them|their|it|its)\b", re.IGNORECASE)
_PERSON_WORDS = frozenset({"he", "she", "him", "her", "his", "hers"})
_POSSESSIVE = frozenset({"his", "its", "their"})
_DEMONSTRATIVE = re.compile(
    r"(?:(?<=\bof )|(?<=\bis )|(?<=\bdoes )|(?<=\bdid )|(?<=\bwas )|(?<=\babout )|(?<=\bfor )|(?<=\bwith )|"
    r"(?<=\bfrom )|(?<=\bin )|(?<=\bthan ))(?P<word>that|this)"
    rf"(?=\s*(?:[?.!,]|$)|\s+(?:per|for|in|of|with|by|on|to|at|cost|mean|include|apply|{_AUXILIARIES})\b)",
    re.IGNORECASE,
)
_DEMONSTRATIVE_NOUN = re.compile(
    r"(?:(?<=\bof )|(?<=\bfor )|(?<=\bat )|(?<=\bis )|(?<=\bdoes )|(?<=\bdid )|(?<=\bto )|(?<=\bfrom )|(?<=\bwith )|"
    r"(?<=\babout )|(?<=\bin )|(?<=\bcan )|(?<=\bwill ))(?:that|this|these|those) "
    r"(?P<noun>(?!week|month|year|quarter|morning|afternoon|evening|time|way|case|kind|sort|much|many|is\b|was\b|the\b)"
    r"[^\W\d_]+)",
    re.IGNORECASE,
)
_EXPLETIVE = re.compile(
    r"\b(?:is|was|isn't|would) it (?:true|correct|right|possible|necessary|allowed|ok|okay|the case|so that|safe|"
    r"permitted|enough|compulsory|cheaper|worth)\b|\b(?:does|will|did|would) it (?:take|matter|cost to|make sense)\b|"
    r"\bit (?:is|was) (?:true|possible|allowed|necessary|the case)\b|\bit takes?\b|\bwhat time is it\b",
    re.IGNORECASE,
)
_CLAUSE = re.compile(r"\b(?:before|after|if|when|once|because|while|until|so that|that|who|which|and|or)\b|[.;:!?]\s")
_ONE = re.compile(r"\b(?P<adjective>[^\W\d_]+) ones?\b", re.IGNORECASE)
_NOT_ADJECTIVES = frozenset({"which", "this", "that", "any", "no", "the", "each", "every", "what", "only", "for", "as"})
_OTHER = re.compile(r"\bthe others?(?: (?:one|two))?\b\s*\??$", re.IGNORECASE)
_FIGURE = re.compile(r"\d[\d,]*(?:\.\d+)?")
_NAME = re.compile(r"\b(?:(?:Mr|Mrs|Ms|Dr)\.? )?[A-Z][\w'’-]+(?: [A-Z][\w'’-]+)*")
_SENTENCE_START = re.compile(r"(?:^|[.?!]\s+)\W*$")
_ANY_PRONOUN = re.compile(
    r"\b(?:he|she|him|her|his|hers|they|them|their|it|its|that|this|those|these)\b", re.IGNORECASE
)
_NUMERALS: Final = {"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "ten": "10", "twelve": "12"}
_THAT = r"(?:that|it|this|them|those|the (?:total|sum|amount|result))"
_CALCULATIONS: Final = tuple(
    (re.compile(rf"^{pattern}$", re.IGNORECASE), form)
    for pattern, form in (
        (
            rf"(?:what(?: is|'s) |how much is )?(?P<n>{_FIGURE.pattern}) ?(?:%|per ?cent) of {_THAT}",
            "What is {n} % of {value}?",
        ),
        (rf"(?:double|twice|times two)(?: {_THAT})?", "What is 2 * {value}?"),
        (rf"(?:triple|three times)(?: {_THAT})?", "What is 3 * {value}?"),
        (rf"(?:what(?: is|'s) |how much is )?half(?: of)? {_THAT}", "What is {value} / 2?"),
        (rf"(?:halve|half)(?: {_THAT})?", "What is {value} / 2?"),
        (rf"(?:what(?: is|'s) |how much is )?a third of {_THAT}", "What is {value} / 3?"),
        (rf"(?:what(?: is|'s) |how much is )?a quarter of {_THAT}", "What is {value} / 4?"),
        (
            rf"(?:{_THAT} )?(?:minus|less) (?P<n>{_FIGURE.pattern}) ?(?:%|per ?cent)(?: .*)?",
            "What is {value} - {value} * {n} / 100?",
        ),
        (
            rf"(?:{_THAT} )?(?:plus|with) (?P<n>{_FIGURE.pattern}) ?(?:%|per ?cent)(?: .*)?",
            "What is {value} + {value} * {n} / 100?",
        ),
        (rf"(?:{_THAT} )?minus (?P<n>{_FIGURE.pattern})", "What is {value} - {n}?"),
        (rf"(?:{_THAT} )?plus (?P<n>{_FIGURE.pattern})", "What is {value} + {n}?"),
        (rf"(?:{_THAT} )?(?:times|multiplied by) (?P<n>{_FIGURE.pattern})", "What is {value} * {n}?"),
        (rf"(?:{_THAT} )?divided by (?P<n>{_FIGURE.pattern})", "What is {value} / {n}?"),
    )
)
_PER = re.compile(
    rf"^(?:(?:what|how much) is {_THAT} )?(?:per (?P<unit>[a-z]+)|(?:a|each) (?P<period>year|quarter|month|week|day))$",
    re.IGNORECASE,
)
_PARTS: Final = {("year", "month"): 12, ("year", "quarter"): 4, ("quarter", "month"): 3, ("week", "day"): 7}
"""How many of the second period are in the first one, where that number is exact."""
_PERIOD_WORDS: Final = (
    ("year", re.compile(r"\b(?:year|yearly|annual|annually|per annum)\b", re.IGNORECASE)),
    ("quarter", re.compile(r"\b(?:quarter|quarterly)\b", re.IGNORECASE)),
    ("week", re.compile(r"\b(?:week|weekly)\b", re.IGNORECASE)),
)
_OWN_WORDS: Final = frozenset(
    WORD.findall(
        "what is are was were how much many does do did the a an of in on at for with from to by and s 2 3 4 7 12 100"
    )
)
"""Words that a full request may have without a source."""


@dataclass(frozen=True, slots=True)
class EarlierTurn:
    """What a follow-up may refer to."""

    request: str
    """The full request."""
    values: tuple[str, ...] = ()
    """The values of the answer, such as a name, a date or a number."""
    answer: str = ""
    """The text of the answer."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """A value in a full request that another text meant, or that has replaced an earlier value."""

    kind: str
    """The kind of both, such as `quarter`; `answer` and `subject` for what a pronoun means."""
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a request means in its conversation."""

    status: Status
    request: str
    """The full request; the request as it is if it is complete or not resolved."""
    turn: int = 0
    """The number of the earlier turn that it continues, from 1; 0 for none."""
    replacements: tuple[Replacement, ...] = ()
    options: tuple[str, ...] = ()
    """The full requests among which nothing decides."""
    reason: str = ""
    """Why it is not resolved."""
    is_sentence: bool = True
    """Whether the request can be asked as it is; not a fragment such as `and in Q2?`."""

    @property
    def can_run(self) -> bool:
        """Whether the request is to be asked: it is complete, resolved, or a sentence that may be asked alone."""
        return self.status in ("complete", "resolved") or (self.status == "unresolved" and self.is_sentence)


@dataclass(frozen=True, slots=True)
class _Reading:
    request: str
    score: float
    turn: int
    replacements: tuple[Replacement, ...]


def resolve_follow_up(text: str, turns: Sequence[EarlierTurn], vocabulary: Vocabulary | None = None) -> Resolution:
    """Returns the full request of a text in a conversation.

    Args:
        text: What the user typed.
        turns: The earlier turns, the oldest first. The last `MAX_TURNS` count.
        vocabulary: The names in the tables at hand.
    """
    vocabulary = vocabulary or Vocabulary()
    wanted = _missing_context(text, vocabulary)
    if not wanted:
        return Resolution("complete", text)
    first = max(0, len(turns) - MAX_TURNS)
    recent = list(enumerate(turns, 1))[first:]
    if not recent:
        reason = f"{wanted}, and there is no earlier request"
        return Resolution("unresolved", text, reason=reason, is_sentence=_is_sentence(text, vocabulary))
    readings = [
        reading
        for reading in _readings(text, recent, vocabulary)
        if not check_full_request(text, reading.request, turns, vocabulary)
    ]
    best = dict[str, _Reading]()
    for reading in sorted(readings, key=lambda one: -one.score):
        best.setdefault(_folded(reading.request), reading)
    if not best:
        reason = f"{wanted}, and no earlier request has what it refers to"
        return Resolution("unresolved", text, reason=reason, is_sentence=_is_sentence(text, vocabulary))
    top, *others = best.values()
    near = [one for one in others if top.score - one.score < MARGIN]
    if near:
        options = tuple(one.request for one in (top, *near))
        return Resolution("ambiguous", text, options=options, reason=f"{wanted}, which can mean several things")
    return Resolution("resolved", top.request, top.turn, top.replacements)


def check_full_request(
    text: str, request: str, turns: Sequence[EarlierTurn], vocabulary: Vocabulary | None = None
) -> list[str]:
    """Returns why a proposed full request is not one; nothing if it is.

    Its words come from the follow-up, earlier requests or their answers. It keeps the values of the follow-up, and the
    earlier values that it drops are of the kinds of those that it adds. It needs no further context.
    """
    vocabulary = vocabulary or Vocabulary()
    faults = list[str]()
    if not request.strip() or len(request) > MAX_LENGTH:
        return ["it is empty or too long"]
    sources = [text, *(part for turn in turns[-MAX_TURNS:] for part in (turn.request, turn.answer, *turn.values))]
    known = {word for source in sources for word in _words(source)} | _OWN_WORDS
    if unknown := [word for word in _words(request) if word not in known and stem_word(word) not in known]:
        faults.append(f"no turn has the words {', '.join(dict.fromkeys(unknown))}")
    words = set(_words(request))
    if lost := [one.text for one in find_values(text, vocabulary) if not set(_words(one.text)) <= words]:
        faults.append(f"it lacks {', '.join(lost)}")
    if wanted := _missing_context(request, vocabulary):
        faults.append(wanted)
    added = [one for one in find_values(request, vocabulary) if _is_added(one, text)]
    for one in added:
        own = set(_words(one.text)) - _OWN_WORDS
        if one.kind in PERIODS:  # its year may come from another turn
            continue
        if not any(own <= set(_words(source)) for source in sources):
            faults.append(f"no turn has {one.text}")
    return faults


def _is_added(value: TypedValue, text: str) -> bool:
    return not set(_words(value.text)) <= set(_words(text))


def _words(text: str) -> list[str]:
    return [word.casefold() for word in WORD.findall(text.replace(",", "") if _FIGURE.search(text) else text)]


def _folded(text: str) -> str:
    return " ".join(_words(text))


def _core(text: str) -> str:
    """A text without the words around an ellipsis, such as `and` and `then`."""
    return _TAIL.sub("", _LEAD.sub("", text, count=1)).strip(" ,")


def _missing_context(text: str, vocabulary: Vocabulary) -> str:
    """Why a text is no full request; empty if it is one."""
    core = _core(text)
    if any(pattern.match(core) for pattern, _ in _CALCULATIONS) and not _is_stated(core):
        return f"“{core}” refers to an earlier number"
    if (match := _PER.match(core)) is not None and not _FIGURE.search(core):
        return f"“per {match['unit'] or match['period']}” refers to an earlier number"
    if _is_fragment(text, core, vocabulary):
        return f"“{core}” is no full request"
    if pronoun := _open_pronoun(text):
        return f"“{pronoun}” refers to something earlier"
    return ""


def _is_sentence(text: str, vocabulary: Vocabulary) -> bool:
    core = _core(text)
    calculated = any(pattern.match(core) for pattern, _ in _CALCULATIONS) or _PER.match(core) is not None
    return not calculated and not _is_fragment(text, core, vocabulary) and len(core.split()) > 3


def _is_stated(core: str) -> bool:
    """Whether a computation names both of its numbers."""
    return len(_FIGURE.findall(core)) > 1


def _is_fragment(text: str, core: str, vocabulary: Vocabulary) -> bool:
    if not core:
        return False
    lead = _LEAD.match(text)
    has_lead = lead is not None and bool(WORD.search(lead[0]))
    rest = _WH.sub("", core, count=1)
    if _COMMAND.match(core):
        return False
    if _VERB.search(_blank_values(rest, vocabulary)):
        return False
    if rest != core:  # such as `who in January`, `why`
        return len(rest.split()) <= 6 and (has_lead or not rest or bool(_PREPOSITION.match(rest)))
    questioned = text.rstrip().endswith("?")
    values = find_values(core, vocabulary)
    short = len(core.split()) <= 10
    return short and (
        has_lead or (questioned and (bool(_PREPOSITION.match(core)) or bool(values) or len(core.split()) < 5))
    )


def _blank_values(text: str, vocabulary: Vocabulary) -> str:
    for value in find_values(text, vocabulary):
        text = text[: value.start] + "_" * len(value.text) + text[value.end :]
    return text


def _open_pronoun(text: str) -> str:
    """The first pronoun of a text without an antecedent in the text; empty without one."""
    plain = _EXPLETIVE.sub(lambda match: "_" * len(match[0]), text)
    matches = [*_PERSONAL.finditer(plain), *_DEMONSTRATIVE.finditer(plain), *_DEMONSTRATIVE_NOUN.finditer(plain)]
    for match in sorted(matches, key=lambda one: one.start()):
        if not _has_antecedent(plain, match):
            return match[0]
    core = _core(text)
    if _OTHER.search(core) and len(core.split()) <= 5:
        return core
    if (one := _ONE.search(text)) is not None and one["adjective"].casefold() not in _NOT_ADJECTIVES:
        before = text[: one.start()]
        if not re.search(
            rf"\b(?:an?|the|our) (?!{re.escape(one['adjective'])}\b)[^\W\d_]{{3,}}", before, re.IGNORECASE
        ):
            return one[0]
    return ""


def _has_antecedent(text: str, pronoun: re.Match[str]) -> bool:
    """Whether words before a pronoun name something it can mean: in another clause; for `its` also in its own."""
    before = text[: pronoun.start()]
    if pronoun[0].casefold() in _POSSESSIVE and re.search(
        r"\b(?:which|what|the|an?|each|every|all) (?!is\b|are\b|was\b|does\b)[^\W\d_]+", before, re.IGNORECASE
    ):
        return True
    for clause in _CLAUSE.finditer(before):
        head = before[: clause.start()]
        if re.search(r"\b(?:the|an?|our|my|your|every|each) [^\W\d_]+", head, re.IGNORECASE) or any(
            not _SENTENCE_START.search(head[: name.start()]) for name in _NAME.finditer(head)
        ):
            return True
    return False


# Readings


def _readings(text: str, recent: Sequence[tuple[int, EarlierTurn]], vocabulary: Vocabulary) -> Iterator[_Reading]:
    core = _core(text)
    number, last = recent[-1]
    calculated = list(_calculations(core, number, last))
    if calculated or any(pattern.match(core) for pattern, _ in _CALCULATIONS) or _PER.match(core):
        yield from calculated
        return
    if _OTHER.search(core) and len(core.split()) <= 5:
        return
    fragment = _is_fragment(text, core, vocabulary)
    if fragment:
        for age, (number, turn) in enumerate(reversed(recent)):
            yield from _substitutions(core, number, turn, age, vocabulary)
        return
    yield from _pronoun_readings(text, recent)


def _calculations(core: str, number: int, turn: EarlierTurn) -> Iterator[_Reading]:
    for value in _numbers(turn):
        for pattern, form in _CALCULATIONS:
            if (match := pattern.match(core)) is not None:
                yield _Reading(
                    form.format(value=value, **match.groupdict()), 1.0, number, (Replacement("answer", "that", value),)
                )
                break
        if (match := _PER.match(core)) is None:
            continue
        source = f"{turn.request} {turn.answer} {' '.join(turn.values)}"
        for period, pattern in _PERIOD_WORDS:
            parts = _PARTS.get((period, (match["unit"] or match["period"]).casefold()))
            if parts is not None and pattern.search(source):
                yield _Reading(f"What is {value} / {parts}?", 1.0, number, (Replacement("answer", "that", value),))


def _numbers(turn: EarlierTurn) -> list[str]:
    """The numbers of an answer: of its values, or of its text if that has only one."""
    found = [match[0] for value in turn.values for match in _FIGURE.finditer(value)]
    return list(dict.fromkeys(found or _FIGURE.findall(turn.answer)))


def _substitutions(core: str, number: int, turn: EarlierTurn, age: int, vocabulary: Vocabulary) -> Iterator[_Reading]:
    """Readings of a fragment as an earlier request with other values."""
    wh = _WH.match(core)
    rest = core[wh.end() :] if wh is not None else core
    asked = _WH.match(turn.request)
    if wh is not None and (asked is None or wh[0].split()[0].casefold() != asked[0].split()[0].casefold()):
        if not rest and asked is None and wh[0].strip():  # `Why?` after a question for yes or no
            yield _Reading(f"{_capital(core)} {_lower_first(turn.request)}", 0.8 - 0.2 * age, number, ())
        return
    values = find_values(rest, vocabulary)
    if values:
        yield from _value_substitutions(rest, values, number, turn, age, vocabulary)
    is_phrase = not values or (len(values) == 1 and values[0].kind.startswith("quantity"))
    if is_phrase and age == 0:
        yield from _phrase_substitutions(rest, number, turn, vocabulary)


def _value_substitutions(
    rest: str, values: Sequence[TypedValue], number: int, turn: EarlierTurn, age: int, vocabulary: Vocabulary
) -> Iterator[_Reading]:
    before = find_values(turn.request, vocabulary)
    edits: list[list[tuple[TypedValue, TypedValue]]] = [[]]
    appended: list[TypedValue] = []
    for value in values:
        places = [one for one in before if one.kind == value.kind]
        if not places and value.kind in PERIODS:
            places = [one for one in before if one.kind in PERIODS and one.kind != "weekday"]
        if not places and value.kind == "year":
            places = [one for one in before if one.kind == "number"]
        if not places:
            appended.append(value)
            continue
        edits = [[*edit, (place, value)] for edit in edits for place in places]
    prefixed = _PREPOSITION.match(rest)
    if appended and not (prefixed and len(values) == 1):
        return
    for edit in edits:
        request, replacements = turn.request, []
        for place, value in sorted(edit, key=lambda one: -one[0].start):
            start, end, new = place.start, place.end, _with_year(value, place)
            article = re.search(r"\b(?:the|an?) $", rest[: value.start], re.IGNORECASE)
            own = re.search(r"\b(?:the|an?) $", request[:start], re.IGNORECASE)
            if article and not own:
                new = article[0] + new
            elif own and (new.casefold().startswith("the ") or (not article and value.kind.startswith("value of"))):
                start = own.start()
            request = request[:start] + new + request[end:]
            replacements.append(Replacement(place.kind, place.text, value.text))
        if appended:
            request = _append(request, rest)
            replacements.append(Replacement(appended[0].kind, "", rest))
        yield _Reading(request, (0.6 if appended else 1.0) - 0.1 * age, number, tuple(replacements))


def _with_year(value: TypedValue, place: TypedValue) -> str:
    """A period with the year of the one that it replaces, unless it states a year."""
    year = re.search(r" ((?:19|20)\d\d)$", place.text)
    if year is None or value.kind not in ("month", "quarter") or re.search(r"\d{4}", value.text):
        return value.text
    return f"{value.text} {year[1]}"


def _phrase_substitutions(rest: str, number: int, turn: EarlierTurn, vocabulary: Vocabulary) -> Iterator[_Reading]:
    """Readings of a phrase without a value: it replaces a phrase after the same preposition, or of the same form."""
    prefixed = _PREPOSITION.match(rest)
    request = turn.request
    own = find_values(rest, vocabulary)
    values = [one for one in find_values(request, vocabulary) if one.kind not in ("column", "superlative")]
    # A value of a known kind is not replaced by words of another kind.
    phrases = [
        (start, end)
        for start, end in _phrases(request)
        if own or not any(one.start <= start and end <= one.end for one in values)
    ]
    if prefixed:
        word = prefixed[0].strip()
        places = [
            (start, end)
            for start, end in phrases
            if re.search(rf"\b{re.escape(word)} $", request[:start], re.IGNORECASE)
        ]
        new = rest[prefixed.end() :]
        if places:
            for start, end in places:
                full = _extend(request, start, end) if " " in new else end
                yield _replaced(request, start, full, new, 0.9, number)
        else:
            yield _Reading(_append(request, rest), 0.7, number, (Replacement("phrase", "", rest),))
        return
    if (one := _ONE.search(rest)) is not None:
        yield from _adjective_readings(rest, one, number, request)
        return
    article = _DETERMINER.match(rest)
    for start, end in phrases:
        old = request[start:end]
        determiner = _DETERMINER.match(old)
        same = (article[0].split()[0].casefold() if article else "") == (
            determiner[0].split()[0].casefold() if determiner else ""
        )
        parts = set(re.findall(r"[^\W\d_]+", old.casefold()))
        shared = {part for part in re.findall(r"[^\W\d_]+", rest.casefold()) if len(part) > 3} & parts
        if same or shared:
            yield _replaced(request, start, end, rest, 0.6 + 0.1 * same + 0.2 * bool(shared), number)


def _adjective_readings(rest: str, one: re.Match[str], number: int, request: str) -> Iterator[_Reading]:
    """Readings of `a normal one`: the noun of an earlier phrase with another adjective."""
    for start, end in _phrases(request):
        words = request[start:end].split()
        if len(words) >= 2 and _DETERMINER.match(request[start:end]):
            new = re.sub(r"\bones?\b", words[-1], rest, flags=re.IGNORECASE)
            yield _replaced(request, start, end, new, 0.8 if len(words) > 2 else 0.7, number)


def _replaced(request: str, start: int, end: int, new: str, score: float, number: int) -> _Reading:
    old = request[start:end]
    if start == 0:
        new = _capital(new)
    return _Reading(request[:start] + new + request[end:], score, number, (Replacement("phrase", old, new),))


def _append(request: str, phrase: str) -> str:
    """A request with a phrase at its end, before the question mark."""
    body = request.rstrip()
    end = len(body) - len(re.search(r"[?.!]*$", body)[0])  # type: ignore[index]  # the pattern always matches
    return f"{body[:end]} {phrase}{body[end:]}"


def _phrases(request: str) -> list[tuple[int, int]]:
    """The spans of noun phrases: words between verbs, prepositions and question words."""
    found = list[tuple[int, int]]()
    tokens = [(match.start(), match.end()) for match in re.finditer(r"[\w'’&%.,€£$-]*\w", request)]
    at = 0
    while at < len(tokens):
        end = at
        while end < len(tokens):
            word = request[tokens[end][0] : tokens[end][1]]
            joined = end == at or request[tokens[end - 1][1] : tokens[end][0]].strip() in ("", "&")
            if _BOUNDARY.match(word) or not joined or (end > at and _DETERMINER.fullmatch(f"{word} ".strip())):
                break
            end += 1
        if end > at:
            found.append((tokens[at][0], tokens[end - 1][1]))
        at = max(end, at + 1) if end > at else at + 1
    return found


def _extend(request: str, start: int, end: int) -> int:
    """The end of a phrase with its attributes: `a machine with an engine` for `a machine`."""
    attribute = re.match(
        r"(?: (?:of|with|without) (?:(?:the|an?) )?[\w.,€£$ -]*?\w)+(?=\s*(?:[?.!,]|$))", request[end:]
    )
    return end + attribute.end() if attribute else end


def _pronoun_readings(text: str, recent: Sequence[tuple[int, EarlierTurn]]) -> Iterator[_Reading]:
    for age, (number, turn) in enumerate(reversed(recent)):
        found = list(_turn_readings(text, number, turn, age))
        yield from found
        if found:
            return


def _turn_readings(text: str, number: int, turn: EarlierTurn, age: int) -> Iterator[_Reading]:
    """Readings of pronouns as what one turn names."""
    plain = _EXPLETIVE.sub(lambda match: "_" * len(match[0]), text)
    lead = _LEAD.match(text)
    offset = lead.end() if lead is not None and not re.search(r"about|same|mit|pour", lead[0]) else 0
    if (match := _DEMONSTRATIVE_NOUN.search(plain)) is not None and not _has_antecedent(plain, match):
        for kind, name in _noun_antecedents(match["noun"], turn):
            yield _insert(text, match.start(), match.end(), name, kind, number, 0.9, offset)
        return
    matches = [*_PERSONAL.finditer(plain), *_DEMONSTRATIVE.finditer(plain)]
    found = [one for one in matches if not _has_antecedent(plain, one)]
    if not found:
        if (one := _ONE.search(text)) is not None:
            for noun in _nouns(turn):
                yield _insert(
                    text, one.start() + len(one["adjective"]) + 1, one.end(), noun, "subject", number, 0.8, offset
                )
        return
    first = min(found, key=lambda one: one.start())
    word = first["word"].casefold()
    names = list(_person_antecedents(turn) if word in _PERSON_WORDS else _thing_antecedents(word, turn))
    for kind, name, score in names:
        possessive = word in _POSSESSIVE or (
            word == "her" and re.match(r"\s+[^\W\d_]+", text[first.end() :]) is not None
        )
        new = f"{name}'s" if possessive else name
        reading = _insert(text, first.start(), first.end(), new, kind, number, score, offset)
        if (one := _ONE.search(reading.request)) is not None and one["adjective"].casefold() not in _NOT_ADJECTIVES:
            for noun in _nouns(turn):
                at = one.start() + len(one["adjective"]) + 1
                request = reading.request[:at] + noun + reading.request[one.end() :]
                replaced = (*reading.replacements, Replacement("subject", "one", noun))
                yield _Reading(request, score, number, replaced)
            continue
        yield reading


def _insert(text: str, start: int, end: int, name: str, kind: str, number: int, score: float, offset: int) -> _Reading:
    request = text[:start] + name + text[end:]
    request = _capital(request[offset:] if start >= offset else request)
    return _Reading(request, score, number, (Replacement(kind, text[start:end], name),))


def _nouns(turn: EarlierTurn) -> Iterator[str]:
    """What `one` can mean: the noun of the answer, or of the subject."""
    for value in turn.values:
        words = re.findall(r"[^\W\d_]+", value)
        if words and words[0].casefold() in ("the", "a", "an") and len(words) <= 4:
            yield words[-1]
            return
    subject = _subject(turn.request)
    if subject:
        yield re.findall(r"[\w-]+", subject)[-1] if " of " not in subject else subject.split(" of ")[0].split()[-1]


def _is_name(value: str) -> bool:
    words = value.split()
    return 0 < len(words) <= 5 and all(word[:1].isupper() or word in ("&", "of", "the", "and", "de") for word in words)


def _person_antecedents(turn: EarlierTurn) -> Iterator[tuple[str, str, float]]:
    """The persons that a turn names: in its answer if it asked who, else in its request."""
    asked_who = re.match(r"\W*(?:who|whom|whose|wer|qui)\b", turn.request, re.IGNORECASE) is not None
    names = [
        part.strip() for value in turn.values for part in re.split(r",|;|\band\b", value) if _is_name(part.strip())
    ]
    if names and asked_who:
        for name in dict.fromkeys(names):
            yield "answer", name, 0.9
        return
    own = [
        match[0]
        for match in _NAME.finditer(turn.request)
        if not _SENTENCE_START.search(turn.request[: match.start()]) and not re.fullmatch(r"[A-Z]{1,3}\d*|I", match[0])
    ]
    for name in dict.fromkeys(own or [one for one in names if " " in one]):
        yield "subject", name, 0.9


def _thing_antecedents(word: str, turn: EarlierTurn) -> Iterator[tuple[str, str, float]]:
    """What `it` can mean: the answer to a question for a thing, else the subject of the request."""
    asked = re.match(r"\W*(?:which|what (?!is\b|are\b|was\b|were\b|do|did|can\b|must\b))", turn.request, re.IGNORECASE)
    names = [value for value in turn.values if _is_name(value)]
    if asked and len(names) == 1:
        yield "answer", names[0], 0.9
        return
    if word in ("that", "this") and _numbers(turn):
        for value in _numbers(turn):
            yield "answer", value, 0.7
        return
    if subject := _subject(turn.request):
        yield "subject", subject, 0.8


def _noun_antecedents(noun: str, turn: EarlierTurn) -> Iterator[tuple[str, str]]:
    """What `that supplier` can mean: the answer if the request asked for one, else the phrase with this noun."""
    stem = stem_word(noun)
    if re.match(rf"\W*(?:which|what|whose)\s+(?:\w+\s+){{0,2}}?{re.escape(stem)}", turn.request, re.IGNORECASE):
        yield from (("answer", value) for value in turn.values if len(value.split()) <= 6)
        return
    for start, end in _phrases(turn.request):
        if stem in map(stem_word, WORD.findall(turn.request[start:end])):
            yield "subject", turn.request[start : _extend(turn.request, start, end)]


def _subject(request: str) -> str:
    """The subject of a request: its first noun phrase after the question words, with its attributes."""
    for start, end in _phrases(request):
        phrase = request[start:end]
        before = request[:start].casefold()
        if re.search(r"\b(?:how|which|what)\s+(?:\w+\s+)?$", before) and not re.search(
            rf"\b(?:{_AUXILIARIES})\s+$", before
        ):
            continue
        if not re.search(r"[^\W\d_]{2,}", phrase):
            continue
        if start == 0 and not _DETERMINER.match(phrase):
            continue
        return request[start : _extend(request, start, end)] if not _VERB.search(request[end:]) else phrase
    return ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
