"""A rule-based router for simulations: it writes plans over texts and lists, mostly valid ones, from the offered
capabilities.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from orchestra.router.plan_syntax import PlanStep, parse_line, split_lines

TEXT, TEXTS, NUMBER = "str", "list[str]", "int"
_WRONG_LINES = (
    "I would shout it",
    "s{next} = splat(text=input.text)",
    "s{next} = shout(text=17)",
    "return input.text",
    "return nothing",
)
"""Lines that are refused. The last one is valid on an empty plan if the plan may be declined."""
_OUTPUT_TYPES = {"split": TEXTS, "count": NUMBER}
"""Outputs of skills that do not return a text."""
_INPUT_TYPES = {"count": TEXTS, "join": TEXTS}
"""Inputs of skills that do not read a text. Their argument is `items`, else `text`."""


def plan_line(inputs: Mapping[str, str], entropy: bytes, *, wrong: float = 0.08) -> str:
    """Returns the next line of a plan, and sometimes the one after it.

    Args:
        entropy: Eight random bytes.
        wrong: The share of invalid lines.
    """
    first = _next_line(inputs, entropy, wrong)
    if entropy[7] % 5 or not first.startswith("s"):
        return first
    plan = "\n".join([*_non_empty_lines(inputs["plan"]), first])
    return f"{first}\n{_next_line({**inputs, 'plan': plan}, entropy[1:] + entropy[:1], wrong)}"


def _next_line(inputs: Mapping[str, str], entropy: bytes, wrong: float) -> str:
    skills = [told.partition("(")[0] for told in _non_empty_lines(inputs["skills"])]
    steps = [step for step in map(parse_line, _non_empty_lines(inputs["plan"])) if isinstance(step, PlanStep)]
    at_hand = [tuple(told.split(": ", 1)) for told in _non_empty_lines(inputs["values"])]
    known = [(name, kind) for name, kind in at_hand if kind in (TEXT, TEXTS)] + [
        (step.name, _step_type(step)) for step in steps
    ]
    if entropy[0] < 256 * wrong:
        return _WRONG_LINES[entropy[1] % len(_WRONG_LINES)].format(next=len(steps) + 1)
    made = [step.name for step in steps if _step_type(step) == TEXT]
    if made and entropy[2] % 3 < len(made):
        return f"return {made[0] if entropy[3] % 4 == 0 else made[-1]}"
    return f"s{len(steps) + 1} = {_random_call(skills, known, inputs['request'].split(), entropy)}"


def _non_empty_lines(text: str) -> list[str]:
    return [line for line in split_lines(text) if line]


def _step_type(step: PlanStep) -> str:
    given = _OUTPUT_TYPES.get(step.capability, TEXT)
    return given if step.each is None else TEXTS if given == TEXT else "list"


def _random_call(skills: Sequence[str], known: Sequence[tuple[str, str]], words: Sequence[str], entropy: bytes) -> str:
    """Returns a call of the available values, or of some words of the request."""
    texts = [name for name, kind in known if kind == TEXT]
    lists = [name for name, kind in known if kind == TEXTS]
    usable = [name for name in skills if _INPUT_TYPES.get(name, TEXT) == TEXT or lists] or ["shout"]
    skill = usable[entropy[4] % len(usable)]
    if _INPUT_TYPES.get(skill, TEXT) == TEXTS:
        return f"{skill}(items={lists[-1 - entropy[5] % min(2, len(lists))]})"
    if lists and entropy[6] % 3 == 0 and skill not in _OUTPUT_TYPES:
        return f"[{skill}(text=x) for x in {lists[-1]}]"
    if words and entropy[6] % 5 == 1 and skill not in _OUTPUT_TYPES:
        return f"[{skill}(text=x) for x in {json.dumps(words[: 1 + entropy[5] % 3], ensure_ascii=False)}]"
    return f"{skill}(text={texts[-1 - entropy[5] % min(3, len(texts))]})"
