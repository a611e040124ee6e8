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
    "D": "documents",
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
    explanations: dict[str, ErrorExplanation] = {}
    folder = resources.files("orchestra.core") / "error_texts"
    for file in sorted((item for item in folder.iterdir() if item.name.endswith(".toml")), key=lambda item: item.name):
        for code, entry in tomllib.loads(file.read_text(encoding="utf-8")).items():
            if code in explanations:
                raise ValueError(f"{code} is explained twice, again in {file.name}")
            explanations[code] = ErrorExplanation(code, entry["title"], entry["text"])
    return dict(sorted(explanations.items()))


def explain(code: str) -> ErrorExplanation:
    """Returns the explanation of a code, in any case. Raises `InputError` C007 for an unknown code."""
    explanations = load_explanations()
    error_code = code.strip().upper()
    if error_code in explanations:
        return explanations[error_code]
    if not CODE_PATTERN.fullmatch(error_code):
        raise InputError(
            "C007", f"{code!r} is not an error code", hint="a code is a letter and three digits, such as L003"
        )
    room = [known_code for known_code in explanations if known_code[0] == error_code[0]]
    about = (
        f"codes of {CODE_AREAS[error_code[0]]}: {', '.join(room)}"
        if room
        else f"the letters are: {', '.join(CODE_AREAS)}"
    )
    raise InputError("C007", f"there is no error {error_code}", hint=about)
