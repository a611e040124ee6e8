"""Written requests in the style of many people: training data of the router beside generated requests.

The files of `requests/` were written for this project (Apache-2.0) by several language models that had not seen the
requests of `bench/ask.yaml` and `bench/ask_strangers.yaml`. A file has `forms` by kind of work, with `{}` for a piece;
`joins`, which combine two requests; and `whole` requests, with the pieces of the plan marked by `[[ ]]`, or without
marks if a step gets the complete request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from orchestra.schema.strict_yaml import load_yaml

FOLDER = Path(__file__).with_name("requests")
_MARKED = re.compile(r"\[\[(.+?)\]\]", re.DOTALL)


class Whole(BaseModel):
    """A request and its kinds of work."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kinds: tuple[str, ...]
    request: str

    @property
    def said(self) -> str:
        """Returns the request without marks."""
        return _MARKED.sub(lambda found: found[1], self.request)

    @property
    def pieces(self) -> tuple[str | None, ...]:
        """Returns for each kind the words that its steps get; None for the complete request. Raises `ValueError` for
        invalid marks.
        """
        marked: list[str | None] = [*_MARKED.findall(self.request)] or [None]
        if len(marked) == 1:
            return tuple(marked * len(self.kinds))
        if len(marked) != len(self.kinds):
            raise ValueError(f"{len(marked)} pieces for {', '.join(self.kinds)}: {self.request}")
        return tuple(marked)


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    forms: dict[str, list[str]]
    joins: list[str]
    whole: list[Whole]


@dataclass(frozen=True)
class Forms:
    """The content of all files."""

    forms: Mapping[str, Sequence[str]]
    joins: Sequence[str]
    whole: Sequence[Whole]

    @classmethod
    def read(cls, folder: Path = FOLDER, files: Sequence[str] = ()) -> Forms:
        """Reads each line once, in the order of the files: those of these names, or all."""
        read = [_read(path) for path in sorted(folder.glob("*.yaml")) if not files or path.stem in files]
        kinds = dict.fromkeys(kind for file in read for kind in file.forms)
        return cls(
            {kind: list(dict.fromkeys(form for file in read for form in file.forms.get(kind, ()))) for kind in kinds},
            list(dict.fromkeys(join for file in read for join in file.joins)),
            list({one.said: one for file in read for one in file.whole}.values()),
        )


def bare_messages() -> dict[str, list[str]]:
    """Returns the CLINC150 intents whose messages are complete requests, by type: `talk`, `commands`, `matters`."""
    path = FOLDER.with_name("bare_messages.yaml")
    said: dict[str, list[str]] = load_yaml(path.read_bytes(), str(path)).value
    return said


def _read(path: Path) -> _File:
    return _File.model_validate(load_yaml(path.read_bytes(), str(path)).value, strict=False)
