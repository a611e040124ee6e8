"""Questions of general knowledge from templates: questions to documents in many forms.

Only their form is learnt (`agents.router.data.build`), so they need no answer. The forms are in
`general_questions.yaml`.
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
    """The content of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    things: dict[str, list[str]]
    forms: list[str]
    tasks: list[str]


def general_questions(count: int, seed: int) -> list[str]:
    """Returns that many different questions in random order; all forms are equally frequent."""
    return _drawn(_said().forms, count, seed)


def other_tasks(count: int, seed: int) -> list[str]:
    """Returns that many different tasks that are not questions, and that no shipped agent serves."""
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
