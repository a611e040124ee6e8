"""Questions of general knowledge, put together by rule: what people ask of documents, in many forms.

Whether they have an answer does not matter where only their form is learnt (`bench.router_data`). The forms stand in
`bench/general_questions.yaml`.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from orchestra.schema.strict_yaml import load_yaml

FILE = Path(__file__).with_suffix(".yaml")
_PART = re.compile(r"\{(\w+)\}")


class Forms(BaseModel):
    """What the file says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    things: dict[str, list[str]]
    forms: list[str]
    tasks: list[str]


def general_questions(count: int, seed: int) -> list[str]:
    """So many different questions, in random order; each form as often as the others."""
    return _drawn(_said().forms, count, seed)


def other_tasks(count: int, seed: int) -> list[str]:
    """So many different tasks that are no questions, and that nothing in the shipped fleet does."""
    return _drawn(_said().tasks, count, seed)


def _said() -> Forms:
    return Forms.model_validate(load_yaml(FILE.read_bytes(), str(FILE)).value)


def _drawn(forms: list[str], count: int, seed: int) -> list[str]:
    things, chance = _said().things, random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        for form in chance.sample(forms, len(forms)):
            found[_PART.sub(lambda part: chance.choice(things[part[1]]), form)] = None
    return chance.sample(list(found)[:count], count)
