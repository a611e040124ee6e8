"""A question with functions and its calls: an item of the data set of the agent `caller`."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from orchestra.agents.function_calls import narrow_output
from orchestra.learn.data.dataset import DatasetRow
from orchestra.schema.strict_json import digest
from orchestra.schema.types import Validator

Function: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Item:
    """A question, functions, and the correct calls."""

    id: str
    question: str
    functions: tuple[Function, ...]
    calls: tuple[Mapping[str, Any], ...]
    system: str = ""
    """A system text of the functions' owner for all questions."""

    def row(self) -> DatasetRow:
        """Returns the item as a row of a data set; similar questions form a group."""
        given = {"question": self.question, "functions": list(self.functions)} | (
            {"system": self.system} if self.system else {}
        )
        return DatasetRow(self.id, given, {"calls": list(self.calls)}, self.group)

    @property
    def group(self) -> str:
        """Returns the group: the words of its question."""
        return digest(" ".join(re.findall(r"\w+", self.question.lower())).encode())[:16]

    def among(self, functions: Sequence[Function], chance: random.Random) -> Item:
        """Returns the same question with more functions, in random order."""
        names = {function["name"] for function in self.functions}
        every = [*self.functions, *(function for function in functions if function["name"] not in names)]
        chance.shuffle(every)
        return Item(self.id, self.question, tuple(every), self.calls, self.system)


def fits(functions: Sequence[Function], calls: Sequence[Mapping[str, Any]]) -> bool:
    """Returns whether calls have the types that their functions declare."""
    schema = {"type": "object", "properties": {"calls": {"type": "array"}}}
    return (
        Validator(narrow_output(schema, {"calls": "functions"}, {"functions": functions})).check({"calls": list(calls)})
        is None
    )
