"""A router by rule, for simulations: it writes plans of texts and lists, good ones mostly, out of what it is offered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from orchestra.router.plan_syntax import Step, lines, read

TEXT, TEXTS, NUMBER = "str", "list[str]", "int"
_WRONG = ("I would shout it", "s{next} = splat(text=input.text)", "s{next} = shout(text=17)", "return input.text", "return nothing")
"""Lines that are refused; the last one not where nothing stands yet, and the plan may be declined."""
_GIVES = {"split": TEXTS, "count": NUMBER}
"""What a skill gives that does not give a text."""
_TAKES = {"count": TEXTS, "join": TEXTS}
"""What a skill reads that does not read a text; its argument is called `items` then, else `text`."""


def line(inputs: Mapping[str, str], mark: bytes, *, wrong: float = 0.08) -> str:
    """The next line of a plan, and sometimes the one behind it. `mark` are eight bytes of chance, and `wrong` is the share of lines that do
    not hold."""
    first = _line(inputs, mark, wrong)
    if mark[7] % 5 or not first.startswith("s"):
        return first
    plan = "\n".join([*_lines(inputs["plan"]), first])
    return f"{first}\n{_line({**inputs, 'plan': plan}, mark[1:] + mark[:1], wrong)}"


def _line(inputs: Mapping[str, str], mark: bytes, wrong: float) -> str:
    skills = [told.partition("(")[0] for told in _lines(inputs["skills"])]
    steps = [step for step in map(read, _lines(inputs["plan"])) if isinstance(step, Step)]
    at_hand = [tuple(told.split(": ", 1)) for told in _lines(inputs["values"])]
    known = [(name, kind) for name, kind in at_hand if kind in (TEXT, TEXTS)] + [(step.name, _kind(step)) for step in steps]
    if mark[0] < 256 * wrong:
        return _WRONG[mark[1] % len(_WRONG)].format(next=len(steps) + 1)
    made = [step.name for step in steps if _kind(step) == TEXT]
    if made and mark[2] % 3 < len(made):
        return f"return {made[0] if mark[3] % 4 == 0 else made[-1]}"
    return f"s{len(steps) + 1} = {_call(skills, known, inputs['request'].split(), mark)}"


def _lines(text: str) -> list[str]:
    return [line for line in lines(text) if line]


def _kind(step: Step) -> str:
    given = _GIVES.get(step.skill, TEXT)
    return given if step.each is None else TEXTS if given == TEXT else "list"


def _call(skills: Sequence[str], known: Sequence[tuple[str, str]], words: Sequence[str], mark: bytes) -> str:
    """A call that can be made with what is at hand, or of each of a few words of the request."""
    texts = [name for name, kind in known if kind == TEXT]
    lists = [name for name, kind in known if kind == TEXTS]
    usable = [name for name in skills if _TAKES.get(name, TEXT) == TEXT or lists] or ["shout"]
    skill = usable[mark[4] % len(usable)]
    if _TAKES.get(skill, TEXT) == TEXTS:
        return f"{skill}(items={lists[-1 - mark[5] % min(2, len(lists))]})"
    if lists and mark[6] % 3 == 0 and skill not in _GIVES:
        return f"[{skill}(text=x) for x in {lists[-1]}]"
    if words and mark[6] % 5 == 1 and skill not in _GIVES:
        return f"[{skill}(text=x) for x in {json.dumps(words[: 1 + mark[5] % 3], ensure_ascii=False)}]"
    return f"{skill}(text={texts[-1 - mark[5] % min(3, len(texts))]})"
