"""Explanations of error codes: meaning, example and fix. The texts are in `error_texts/*.toml`."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from importlib import resources

from orchestra.core.errors import InputError

CODE_AREAS = {
    "A": "agents and prompts",
    "C": "configuration and command line",
    "E": "engine",
    "F": "fleet",
    "J": "journal",
    "L": "workflow language",
    "M": "model output",
    "N": "learning",
    "R": "router",
    "S": "server",
    "T": "tools",
    "V": "verification",
    "W": "Python workflows",
}
"""Areas by the first letter of a code."""
CODE_PATTERN = re.compile(r"[A-Z]\d{3}")


@dataclass(frozen=True, slots=True)
class ErrorExplanation:
    """The output of `orchestra explain CODE`."""

    code: str
    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.code}: {self.title}\n\n{self.text.strip()}\n"


def load_explanations() -> dict[str, ErrorExplanation]:
    """Returns all explanations by code, sorted. Raises `ValueError` if two files explain the same code."""
    found: dict[str, ErrorExplanation] = {}
    folder = resources.files("orchestra.core") / "error_texts"
    for file in sorted((item for item in folder.iterdir() if item.name.endswith(".toml")), key=lambda item: item.name):
        for code, entry in tomllib.loads(file.read_text(encoding="utf-8")).items():
            if code in found:
                raise ValueError(f"{code} is explained twice, again in {file.name}")
            found[code] = ErrorExplanation(code, entry["title"], entry["text"])
    return dict(sorted(found.items()))


def explain(code: str) -> ErrorExplanation:
    """Returns the explanation of a code, in any case. Raises `InputError` C007 for an unknown code."""
    found = load_explanations()
    wanted = code.strip().upper()
    if wanted in found:
        return found[wanted]
    if not CODE_PATTERN.fullmatch(wanted):
        raise InputError(
            "C007", f"{code!r} is not an error code", hint="a code is a letter and three digits, such as L003"
        )
    room = [other for other in found if other[0] == wanted[0]]
    about = (
        f"codes of {CODE_AREAS[wanted[0]]}: {', '.join(room)}" if room else f"the letters are: {', '.join(CODE_AREAS)}"
    )
    raise InputError("C007", f"there is no error {wanted}", hint=about)
