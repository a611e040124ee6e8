"""Rules: plans for requests of a known kind, without a model.

A small router was trained on the names of some capabilities, and is misled by the words of a request. The kind of many
requests is certain from their form: a question over documents, a question over the columns of a table, a claim to
check, a list, a summary. For these a rule writes the plan itself, as lines of the same notation. The lines pass the
same validation, are journaled, shown and resumed as those of a router, and carry the name of the rule.

A rule applies only if its skill is offered and every argument of it is at hand. It leaves a request to the router if
another capability, such as one of the project, shares more words with it. Pure: nothing is read or called here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from orchestra.router.capabilities import Capabilities, Capability, PlanScope
from orchestra.router.multi_part import split_request
from orchestra.router.plan import Plan
from orchestra.router.plan_syntax import INPUT, Argument, PlanAnswer, PlanLiteral, PlanReference, PlanStep
from orchestra.router.suggestions import nearest
from orchestra.router.validation import validate_line
from orchestra.schema.builtin_models import Table
from orchestra.schema.types import Schema
from orchestra.text.keywords import content_words
from orchestra.tools.document_choice import stated_labels
from orchestra.tools.plain_arithmetic import plain_expression
from orchestra.tools.table_answers import certain_result
from orchestra.tools.table_views import tables_in
from orchestra.workflows.model import REQUEST

VERSION: Final = "rules/2"
"""Part of the keys of stored plans. Raised if the rules change what they plan."""
REQUEST_FIELDS: Final = ("question", "request", "claim")
"""Arguments that receive the words of the request."""
GENERAL_SKILLS: Final = frozenset(
    {
        *("find_answer", "read_answer", "check_claim", "list_items", "summarize", "compare_sources", "draft_text"),
        *("query_table", "query_tables", "calculate", "extract_fields", "classify_texts"),
    }
)
"""The packaged skills that rules use."""
PACKAGED: Final = GENERAL_SKILLS | frozenset(
    {
        *("answer_from_documents", "financial_question", "search", "cite", "cells", "reader", "extractive_reader"),
        *("generative_reader", "entailment", "table_reader", "calculator", "caller", "generative_calculator"),
        *("deductive_calculator", "document_reader", "amount_reader", "text_drafter"),
    }
)
"""Packaged capabilities, which do not outrank a rule."""


def without_general_skills(offer: Capabilities) -> Capabilities:
    """Returns what the packaged router may plan with if no rule applies. It was not trained on the general skills, and
    their names change its other plans. If nothing else is offered, they stay.
    """
    others = [name for name in offer.by_name if name not in GENERAL_SKILLS]
    return offer.restricted_to(others) if others else offer


@dataclass(frozen=True, slots=True)
class RulePlan:
    """A plan and the rule that made it."""

    rule: str
    plan: Plan


@dataclass(frozen=True, slots=True)
class Rule:
    """A kind of request, and the skill that serves it."""

    name: str
    """The name that is shown, such as `check a claim`."""
    skill: str
    words: Callable[[str], str | None]
    """Returns the words of the request that the skill receives, or None for a request of another kind."""


def plan_by_rule(request: str, offer: Capabilities, values: Mapping[str, Any]) -> RulePlan | None:
    """Returns the plan of the first rule that applies to a request.

    Args:
        request: The request. Its parts are planned one by one.
        offer: What a plan may use.
        values: The values at hand, by name. Rules about tables read them.
    """
    if _is_of_other_capability(request, offer):
        return None
    if _ACTION.match(request) and not any(one.has_effects for one in offer.by_name.values()):
        return RulePlan("no capability acts", Plan((), PlanAnswer(()))) if offer.may_decline else None
    if _DRAFT.match(request) and "draft_text" not in offer.by_name and offer.may_decline:
        return RulePlan("no capability drafts texts", Plan((), PlanAnswer(())))
    parts = split_request(request)
    steps: list[PlanStep] = []
    names: list[str] = []
    for part in parts if parts is not None else (request,):
        name = f"s{len(steps) + 1}"
        made = _rule_step(part, request, offer, values, name) or _reading_step(part, request, offer, name)
        if made is None:
            return None
        rule, step = made
        if any(validate_line(step, offer, steps)):
            return None
        steps.append(step)
        names.append(rule.name)
    answer = PlanAnswer(tuple(PlanReference(step.name) for step in steps))
    if not steps or any(validate_line(answer, offer, steps)):
        return None
    return RulePlan(", ".join(dict.fromkeys(names)), Plan(tuple(steps), answer))


def _is_of_other_capability(request: str, offer: Capabilities) -> bool:
    """Whether a capability of the project, or one that was named, is nearer to the request than the packaged ones."""
    others = [one for name, one in offer.by_name.items() if name not in PACKAGED]
    return bool(others) and nearest(others, request) is not None


def _rule_step(
    part: str, request: str, offer: Capabilities, values: Mapping[str, Any], name: str
) -> tuple[Rule, PlanStep] | None:
    for rule in _rules_for(part, values):
        skill = offer.by_name.get(rule.skill)
        words = rule.words(part)
        if skill is None or words is None:
            continue
        arguments = _bind(skill, words, request, offer)
        if arguments is not None:
            return rule, PlanStep(name, rule.skill, arguments)
    return None


def _reading_step(part: str, request: str, offer: Capabilities, name: str) -> tuple[Rule, PlanStep] | None:
    """A step that reads the documents, for words of no known form, such as `Dale Hutchins phone number`; None if "
    "another
    capability than the packaged ones is offered.
    """
    if not PACKAGED.issuperset(offer.by_name) or len(content_words(part)) < MIN_CONTENT_WORDS:
        return None
    for rule in RULES:
        skill = offer.by_name.get(rule.skill)
        if rule.skill in READING_SKILLS and skill is not None:
            arguments = _bind(skill, part, request, offer)
            if arguments is not None:
                return rule, PlanStep(name, rule.skill, arguments)
    return None


def _bind(skill: Capability, words: str, request: str, offer: Capabilities) -> dict[str, Argument] | None:
    """Returns arguments for a skill: the words of the request, and the values at hand of the right types. None if a
    required one is missing, or if the skill reads none of the values although there are some.
    """
    scope = PlanScope(offer).available_values()
    arguments: dict[str, Argument] = {}
    used: set[str] = set()
    for field, schema in skill.fields.items():
        if field in REQUEST_FIELDS:
            arguments[field] = (
                PlanReference(INPUT, (REQUEST,)) if words.strip() == request.strip() else PlanLiteral(words)
            )
            continue
        found = _value_of_type(offer, scope, schema, used)
        if found is not None:
            arguments[field] = found
            used.add(str(found.path[0]))
        elif field in skill.required:
            return None
    given = [name for name in offer.inputs if name != REQUEST]
    reads_values = any(field not in REQUEST_FIELDS for field in skill.fields)
    return arguments if used or not given or not reads_values else None


def _value_of_type(
    offer: Capabilities, scope: Iterable[tuple[PlanReference, Schema]], wanted: Schema, used: set[str]
) -> PlanReference | None:
    """Returns the first whole value of a type that is not used yet, apart from the request."""
    for reference, schema in scope:
        whole = reference.root == INPUT and len(reference.path) == 1 and reference.path[0] != REQUEST
        if whole and str(reference.path[0]) not in used and offer.assignability.mismatch(schema, wanted) is None:
            return reference
    return None


# The kinds of requests


def _compile(pattern: str) -> re.Pattern[str]:
    """Returns a form of requests, which letter case and line breaks do not change."""
    return re.compile(pattern, re.IGNORECASE | re.DOTALL)


_POLITE = (
    r"^\W*(?:(?:hi|hello|hey|hallo|hola|bonjour|good (?:morning|afternoon|evening)|dear \w+)\b(?: (?:all|there|team"
    r"|\w+))?[\s,!.:–-]+)?"
    r"(?:(?:please|kindly|pls|could you|can you|would you|will you|i (?:need|want) you to|i'd like you to|bitte"
    r"|können sie|"
    r"kannst du|s'il vous plaît|pouvez-vous|por favor|puede|puedes)\s+(?:please\s+|bitte\s+)?)?"
)
_SUMMARY = _compile(
    _POLITE + r"(?:(?:summari[sz]e|sum up|recap|condense)\b|(?:give|write|make|provide|prepare)\b.{0,40}"
    r"\b(?:summary|overview|recap|gist)\b|(?:what (?:are|were)|list|name)\b.{0,20}\b(?:key|main|most important)\s+"
    r"(?:points?|facts?|messages?|takeaways?)\b|fasse?\b.*\bzusammen\b|r[ée]sume[rnz]?\b|what (?:is|"
    r"was) .{3,80}\babout\s*\?)",
)
_DRAFT = _compile(
    _POLITE + r"(?:write|draft|compose|prepare|formulate|word|schreibe?|verfasse)\b.{0,60}?\b(?:e-?mails?|mails?|"
    r"letters?|notes?|lines?|"
    r"messages?|reply|replies|answers?|responses?|reminders?|announcements?|notices?|memos?|posts?|paragraphs?|"
    r"invitations?|sentences?|lines?|brief|nachricht)\b",
)
_LIST = _compile(
    _POLITE + r"(?:(?:list|enumerate|collect|itemi[sz]e)\b|(?:everyone|everybody|all the \w+|all \w+) (?:who|that|"
    r"which)\b[^?]*$|"
    r"who (?:has|have|needs?) to do what\b|what (?:still )?(?:has|have|needs?|remains) to be done\b|"
    r"who is allowed to\b|(?:name|show|give|tell)(?:\s+me)?\s+(?:all|every|each|the list|a list)\b|"
    r"what (?:are|were) (?:all |the )+(?:\w+[ -]){0,3}(?:items|tasks|to-?dos|deadlines|dates|names|steps|rules|"
    r"requirements|conditions|participants|attendees|duties|obligations|appointments|decisions)\b|"
    r"(?:liste|nenne)\b.*\b(?:alle|die)\b)",
)
_COMPARE = _compile(
    r"\b(?:compare|comparison|differences? (?:between|in|of)|what differs?|how do .{3,80} differ|"
    r"what (?:has |have )?changed|in contrast|versus|vs\.?|"
    r"contradict each other|vergleiche?|unterschied)\b",
)
_CLAIM = _compile(
    _POLITE + r"(?:is it (?:true|correct|right|the case|so)(?:,? that)?|is this (?:true|correct|right)\s*:|"
    r"true or false\s*[:?]?|"
    r"(?:check|verify|confirm|fact-?check|double-?check)\b(?:\s+(?:whether|if|that|this|the (?:claim|"
    r"statement)(?: that)?|"
    r"the following(?: claim| statement)?))?\s*:?|(?:do|does) (?:the|our|any|these|those) \w+ (?:say|state|"
    r"support|confirm|claim)"
    r"(?: this| the claim)?\s*(?:that|:)?|someone (?:says|claims)(?: that)?|"  # prose: ok
    r"stimmt es,? dass)\s+(?P<claim>\S.{6,}?)\s*$",
)
_VERDICT = _compile(
    r"^(?P<claim>.{8,}?)[.:!;,]\s*(?:(?:is )?(?:that|this|it|she|he)?\s*(?:right|true|"
    r"correct)(?: or (?:wrong|false|not))?|"
    r"is (?:she|he|that|this|it) (?:right|correct|true|wrong))\s*\?\s*$",
)
_REPORTED = re.compile(
    r"^\W*(?:somebody|someone|a colleague|a customer|my \w+|he|she|they|\w+)\s+(?:says?|claims?|thinks?|"  # prose: ok
    r"believes?|told (?:me|us))\s+(?:that\s+)?",  # prose: ok
    re.IGNORECASE,
)
_YES_NO = _compile(
    r"^\W*(?:is|are|was|were|do|does|did|can|may|must|should|has|have|had|will|am|darf|dürfen|kann|können|ist|sind"
    r"|hat|haben|"
    r"gibt es|muss|müssen|est-ce que|peut-on|y a-t-il|se puede|hay|es|está)\s+(?!you\b)\S[^?]*\?\s*$",
)
_EXTRACT = _compile(
    _POLITE
    + r"(?:extract|pull (?:\w+ ){0,3}out|read out|fill (?:in|out)|get)\b.{0,200}(?:\b(?:from|out of|of|for|in)\b|:)",
)
_CLASSIFY = _compile(
    r"\b(?:classify|categori[sz]e|(?:sort|group|divide) .{1,80} (?:into|by)|label each|"
    r"assign .{1,60} (?:categor|label|topic|department)\w*|"
    r"which (?:category|department|topic|team|label)\b.{0,80}"
    r"\b(?:belongs?|fits?|goes|applies|suits?|is (?:it|this|that) (?:for|about)))",
)
_QUESTION = re.compile(
    r"\?|^\W*(?:(?:tell me|find out|look up|show me|i (?:need|want|would like) to know|do you know|can you tell me|"
    r"could you tell me)\b|(?:(?:from|until|till|by|at|on|in|for|since|to|with|of|under)\s+)?"
    r"(?:who|whom|whose|what|which|when|where|why|how|wer|wen|wem|was|wann|wo|wie|welche[rsnm]?|warum|qui|que|quel\w*"
    r"|quand|où|"
    r"combien|comment|pourquoi|quién|qué|cuándo|dónde|cuánt\w+|cuál|cómo)\b|"
    r".*\b(?:wants? to know|wonder(?:ing)?|am asking|asks?)\s+(?:who|what|which|when|where|why|how|if|whether)\b)",
    re.IGNORECASE,
)


_ANY = re.compile(r"\w")
_ACTION = _compile(
    _POLITE + r"(?:send|forward|e-?mail|mail|text|call|ring|phone|order|book|reserve|buy|pay|transfer|block|cancel|"
    r"delete|remove|"
    r"enrol|enroll|register|sign up|schedule|remind|invite|upload|print|publish|post|deliver|ship|refund|hire|dismiss|"
    r"invoice|charge|unsubscribe|archive|move|turn (?:on|off)|switch (?:on|off)|set|lock|unlock|open|close|"
    r"change|update|reply|respond|put|add|create|arrange|organi[sz]e|approve|sign (?!up)|ask|inform|notify|tell "
    r"(?!me\b|us\b)|"
    r"let \w+(?: \w+)? know|renew|extend|reset|install|assign|upgrade|make (?:a|an|the) (?:booking|reservation"
    r"|appointment|payment|call)|"
    r"leite|schicke?|sende|bestelle?|buche|reserviere?|storniere?|envoie|envoyez|commande|réserve|envía|envia|reserva"
    r"|pide)\b"
    r"(?!\s+(?:of|is|are|was|were|does)\b)[^?]*$",
)
"""A request to do something outside of this process. A question mark makes it another one."""


_ASKS_WH = re.compile(
    r",?\s\b(?:and|und|et|y)\s+(?:on |in |at |by |for )?(?:who|what|which|when|where|how|why)\b", re.IGNORECASE
)
"""A further question of another form."""


def _whole_if(pattern: re.Pattern[str]) -> Callable[[str], str | None]:
    return lambda request: request if pattern.search(request) else None


def _sentence_if(pattern: re.Pattern[str]) -> Callable[[str], str | None]:
    """The request if one of its sentences has a form: `I can't read French. Get me the dates from the mail.`"""
    return lambda request: request if any(pattern.search(part) for part in _SENTENCE_END.split(request)) else None


_SENTENCE_END = re.compile(r"(?<=[a-zà-ÿ)][.!?])\s+(?=[A-ZÀ-Ý¿])")


def _computation(request: str) -> str | None:
    """A request that states all numbers of a computation."""
    return request if plain_expression(request) is not None else None


def _classes(request: str) -> str | None:
    """A request for a class, or a question whether something is one of several things."""
    labels = stated_labels.function(request).labels if _YES_NO.match(request) else []
    return request if _CLASSIFY.search(request) or len(labels) > 2 or (len(labels) == 2 and "both" in request) else None


def _claim(request: str) -> str | None:
    match = _CLAIM.match(request)
    if match is not None:
        return match["claim"].strip(" \"“”'")
    if (verdict := _VERDICT.match(request)) is not None:
        claim = verdict["claim"]
        return claim[reported.end() :] if (reported := _REPORTED.match(claim)) is not None else claim
    if _ASKS_WH.search(request):
        return None
    first, stop, last = request.strip().rpartition(". ")
    if stop and _YES_NO.match(last) and not _QUESTION.search(first):
        return request
    return request if _YES_NO.match(request) else None


RULES: Final = (
    Rule("calculate", "calculate", _computation),
    Rule("summarize", "summarize", _sentence_if(_SUMMARY)),
    Rule("draft a text", "draft_text", _sentence_if(_DRAFT)),
    Rule("classify texts", "classify_texts", _classes),
    Rule("extract fields", "extract_fields", _sentence_if(_EXTRACT)),
    Rule("list items", "list_items", _sentence_if(_LIST)),
    Rule("compare sources", "compare_sources", _whole_if(_COMPARE)),
    Rule("check a claim", "check_claim", _claim),
    Rule("query tables", "query_tables", _whole_if(_ANY)),
    Rule("query a table", "query_table", _whole_if(_ANY)),
    Rule("answer from documents, a larger model reads if needed", "read_answer", _whole_if(_QUESTION)),
    Rule("answer from documents", "find_answer", _whole_if(_QUESTION)),
)
"""The rules, the most specific ones first."""


READING_SKILLS: Final = frozenset({"read_answer", "find_answer"})
MIN_CONTENT_WORDS: Final = 2
"""Content words of a request that documents may answer."""
TABLE_SKILLS: Final = frozenset({"query_tables", "query_table"})


def _rules_for(part: str, values: Mapping[str, Any]) -> Iterable[Rule]:
    """Returns the rules to try for a part of a request, in order: those about tables only if a table explains it."""
    explained: bool | None = None
    for rule in RULES:
        if rule.skill in TABLE_SKILLS:
            explained = _is_explained(part, values) if explained is None else explained
            if not explained:
                continue
        yield rule


def _is_explained(part: str, values: Mapping[str, Any]) -> bool:
    """Whether a query over the tables at hand explains the words of a request."""
    return certain_result(part, list(_tables(values))) is not None


def _tables(values: Mapping[str, Any]) -> Iterable[Table]:
    """Yields the tables among the values at hand, and those in the text of documents."""
    for name, value in values.items():
        if name == REQUEST or not isinstance(value, list) or not value:
            continue
        first = value[0]
        if isinstance(first, Mapping) and "cells" in first:
            yield from (Table.model_validate(one) for one in value)
        elif isinstance(first, Mapping) and "text" in first and "source" in first:
            for one in value:
                yield from tables_in(str(one["text"]), str(one["source"]))
        elif all(isinstance(row, list) and all(isinstance(cell, str) for cell in row) for row in value):
            yield Table(name=name, cells=value)
