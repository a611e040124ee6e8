"""Reports phrases that are not plain technical English: `path:line: phrase -> use X`. `make prose` runs it.

    python scripts/check_prose.py                # the whole repository
    python scripts/check_prose.py docs README.md # files and folders
    python scripts/check_prose.py --summary      # counts per package and per phrase
    python scripts/check_prose.py --strict       # also phrases that are sometimes right

It reads Markdown, the comments, docstrings and string literals of Python files, and the texts of error codes. The
phrases and the files with data that it skips are in `scripts/prose.toml`. Exits with 1 if it reports anything, with 2
if `prose.toml` is not valid.
"""

from __future__ import annotations

import argparse
import fnmatch
import io
import re
import sys
import tokenize
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PHRASES = Path(__file__).with_name("prose.toml")
FOLDERS = ("docs", "orchestra", "tests", "bench", "scripts", "examples", "agents", ".github")
MARK = "prose: ok"
REACHES = ("text", "message", "data")
"""How far a phrase reaches: explanations, also messages to users, also data."""

LINE_SKIP = re.compile(r"`[^`\n]*`|<!--.*?-->|\]\([^)\s]*\)|https?://\S+", re.DOTALL)
"""Code, comments and targets of links inside of prose."""

BRACES = re.compile(r"\{[^{}]*\}")
NESTED = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"|.", re.DOTALL)
"""Expressions in f-strings, innermost first, and the string literals in them."""

_LAYOUT = {tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT}
_F_STRING = {number for number, name in tokenize.tok_name.items() if name == "FSTRING_MIDDLE"}
"""Parts of f-strings; Python 3.12 and later split them."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """A phrase that is not wanted, what to write instead, and the kinds of text that it is looked for in."""

    pattern: re.Pattern[str]
    use: str
    kinds: frozenset[str]
    strict: bool
    hit: tuple[str, ...]
    miss: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rules:
    """The content of `prose.toml`."""

    phrases: tuple[Phrase, ...]
    allowed: tuple[str, ...]

    def is_allowed(self, path: str) -> bool:
        """Whether a file is data."""
        return any(fnmatch.fnmatch(path, pattern) for pattern in self.allowed)


@dataclass(frozen=True, slots=True)
class Passage:
    """A text of one kind, the line at which it begins, and for a docstring the line at which it ends."""

    line: int
    kind: str
    text: str
    docstring_end: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """A phrase in a file."""

    path: str
    line: int
    found: str
    use: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.found} -> use {self.use}"


def read_rules(path: Path = PHRASES) -> Rules:
    """Reads `prose.toml`. Raises `ValueError`, `KeyError` or `re.error` if it is not valid."""
    content = tomllib.loads(path.read_text("utf-8"))
    phrases = []
    for entry in content["phrase"]:
        kinds = frozenset(REACHES[: REACHES.index(entry.get("reach", "data")) + 1])
        pattern = re.compile(entry["pattern"].replace(" ", r"\s+"), re.IGNORECASE | re.MULTILINE)
        phrases.append(
            Phrase(pattern, entry["use"], kinds, entry.get("strict", False), tuple(entry["hit"]), tuple(entry["miss"]))
        )
    allowed = [entry["path"] for entry in content.get("allow", []) if entry["reason"]]
    return Rules(tuple(phrases), tuple(allowed))


def blank(match: re.Match[str]) -> str:
    """Returns as many characters as were matched, with the line breaks kept: the lines behind keep their numbers."""
    return re.sub(r"[^\n]", "\0", match[0])


def blank_expressions(text: str) -> str:
    """Returns the source of an f-string without its expressions, but with string literals inside of these."""

    def strings_of(match: re.Match[str]) -> str:
        return NESTED.sub(lambda part: part[0] if " " in part[0] and len(part[0]) > 1 else blank(part), match[0])

    while (shorter := BRACES.sub(strings_of, text)) != text:
        text = shorter
    return text


def read_markdown(text: str) -> Iterator[Passage]:
    """Yields the prose of a Markdown file, and its code blocks as data."""
    line, kind, part = 1, "text", list[str]()
    for row in [*text.splitlines(), None]:
        is_fence = row is not None and row.lstrip().startswith(("```", "~~~"))
        if is_fence or row is None:
            content = "\n".join(part)
            yield Passage(line, kind, LINE_SKIP.sub(blank, content) if kind == "text" else content)
            line, part = line + len(part), []
        if is_fence:
            kind = "data" if kind == "text" else "text"
        if row is not None:
            part.append("" if is_fence else row)


def read_python(text: str, in_library: bool) -> Iterator[Passage]:
    """Yields comments and docstrings as text, other strings as messages in the library and as data elsewhere."""
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    comment: list[tokenize.TokenInfo] = []
    before = tokenize.NEWLINE
    for number, token in enumerate(tokens):
        if token.type == tokenize.COMMENT and (not comment or comment[-1].start[0] + 1 == token.start[0]):
            comment.append(token)
        elif token.type not in _LAYOUT or token.type == tokenize.COMMENT:
            if comment:
                content = "\n".join(one.string.lstrip("#! ") for one in comment)
                yield Passage(comment[0].start[0], "text", LINE_SKIP.sub(blank, content))
            comment = [token] if token.type == tokenize.COMMENT else []
        if token.type == tokenize.STRING or token.type in _F_STRING:
            behind = next(one.type for one in tokens[number + 1 :] if one.type != tokenize.COMMENT)
            is_docstring = before == tokenize.NEWLINE and behind == tokenize.NEWLINE
            content = token.string
            if token.type == tokenize.STRING and "f" in content[: content.index(content[-1])].lower():
                content = blank_expressions(content)
            if is_docstring:
                yield Passage(token.start[0], "text", LINE_SKIP.sub(blank, content), token.end[0])
            elif " " in content:  # one word is a name
                yield Passage(token.start[0], "message" if in_library else "data", content)
        if token.type not in _LAYOUT:
            before = token.type


def read_passages(path: str, text: str) -> Iterator[Passage]:
    """Yields the passages of a file by its kind."""
    if path.endswith(".py"):
        yield from read_python(text, in_library=path.startswith("orchestra/"))
    elif path.endswith(".md"):
        yield from read_markdown(text)
    elif path.startswith("orchestra/core/error_"):
        yield Passage(1, "message", text)
    else:  # a Makefile or a file of settings: its comments, and the help of the targets
        rows = (row[row.find("#") :] if "#" in row else "" for row in text.splitlines())
        yield Passage(1, "text", LINE_SKIP.sub(blank, "\n".join(rows)))


def check_text(path: str, text: str, rules: Rules, strict: bool = False) -> list[Finding]:
    """Returns the findings in one file, by line; `strict`: also phrases that are sometimes right."""
    phrases = [phrase for phrase in rules.phrases if strict or not phrase.strict]
    lines = text.splitlines() or [""]
    found = []
    for passage in read_passages(path, text):
        for phrase in phrases:
            for match in phrase.pattern.finditer(passage.text) if passage.kind in phrase.kinds else ():
                line = passage.line + passage.text.count("\n", 0, match.start())
                last = passage.line + passage.text.count("\n", 0, match.end())
                marks = [*lines[line - 1 : last], *lines[passage.docstring_end - 1 : passage.docstring_end]]
                if not any(MARK in one for one in marks):
                    found.append(Finding(path, line, " ".join(match[0].split()).strip(" .,;:"), phrase.use))
    return sorted(found, key=lambda one: (one.line, one.found))


def find_files(arguments: Sequence[str], root: Path = ROOT) -> list[Path]:
    """Returns the files to read: those given, those below folders given, or those of the whole repository."""
    starts = [Path(one).resolve() for one in arguments] or [
        *(root / name for name in FOLDERS),
        *root.glob("*.md"),
        root / "Makefile",
    ]
    files = [file for start in starts for file in (sorted(start.rglob("*")) if start.is_dir() else [start])]
    texts = [file for file in files if file.suffix in (".py", ".md") or file.name == "Makefile" or is_error_text(file)]
    return [
        file
        for file in texts
        if file.is_file() and "node_modules" not in file.parts and "__pycache__" not in file.parts
    ]


def is_error_text(file: Path) -> bool:
    """Whether a file has texts of error codes."""
    return file.suffix == ".toml" and file.parent.name.startswith("error_")


def package_of(path: str) -> str:
    """Returns the folder that counts are summed up by: `orchestra/engine`, `tests/engine`, `docs`."""
    parts = Path(path).parts
    return "/".join(parts[:2]) if parts[0] in ("orchestra", "tests") and len(parts) > 2 else parts[0]


def summarize(findings: Iterable[Finding], files: int) -> str:
    """Returns the counts per package and per phrase."""
    findings = list(findings)
    packages = Counter(package_of(one.path) for one in findings)
    phrases = Counter(one.use for one in findings)
    rows = [f"{count:>6}  {name}" for name, count in sorted(packages.items(), key=lambda item: (-item[1], item[0]))]
    rows += ["", *(f"{count:>6}  -> {use}" for use, count in phrases.most_common())]
    return "\n".join([*rows, "", f"{len(findings):>6}  in {len({one.path for one in findings})} of {files} files"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0 nothing found, 1 phrases found, 2 `prose.toml` is not valid."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("paths", nargs="*", help="files and folders; by default the whole repository")
    parser.add_argument("--summary", action="store_true", help="print counts per package and per phrase only")
    parser.add_argument("--strict", action="store_true", help="report also phrases that are sometimes right")
    chosen = parser.parse_args(arguments)
    try:
        rules = read_rules()
    except (KeyError, ValueError, re.error) as error:
        print(f"{PHRASES.name}: {error}", file=sys.stderr)
        return 2
    files = [path for path in find_files(chosen.paths) if not rules.is_allowed(path.relative_to(ROOT).as_posix())]
    findings = [
        one
        for path in files
        for one in check_text(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"), rules, chosen.strict)
    ]
    if chosen.summary:
        print(summarize(findings, len(files)))
    else:
        print("\n".join(map(str, findings)) or f"no phrase of {PHRASES.name} in {len(files)} files")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
