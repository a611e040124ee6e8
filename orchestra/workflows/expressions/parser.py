"""The syntax of references: parses CEL into a tree with positions, and writes it back.

The grammar is that of https://github.com/google/cel-spec (doc/langdef.md), without the types that JSON does not have:
bytes, unsigned integers and messages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NoReturn, TypeAlias

import msgspec

MAX_LENGTH = 1024


MAX_MACROS = 12


MAX_LEVELS = 48
"""Limits of one reference: characters, nested macros, and levels of its tree."""


_RESERVED_WORDS = (
    "as break const continue else false for function if import in let loop "
    "package namespace null return true var void while"
)


KEYWORDS = frozenset(re.findall(r"\w+", _RESERVED_WORDS))
"""Keywords of CEL, which cannot be names."""


MACROS = {"all": (2,), "exists": (2,), "exists_one": (2,), "map": (2, 3), "filter": (2,)}
"""The macros with the possible numbers of their arguments."""


class CelLiteral(msgspec.Struct, frozen=True):
    """A number, a text, a bool or null, between the offsets `start` and `end`."""

    value: bool | int | float | str | None
    start: int
    end: int


class CelName(msgspec.Struct, frozen=True):
    """A variable."""

    name: str
    start: int
    end: int


class CelSelect(msgspec.Struct, frozen=True):
    """`of.name`."""

    operand: CelTree
    name: str
    start: int
    end: int


class CelIndex(msgspec.Struct, frozen=True):
    """`of[key]`."""

    operand: CelTree
    key: CelTree
    start: int
    end: int


class CelCall(msgspec.Struct, frozen=True):
    """A function call; `receiver` is the expression before the dot."""

    name: str
    receiver: CelTree | None
    args: tuple[CelTree, ...]
    start: int
    end: int


class CelMacro(msgspec.Struct, frozen=True):
    """`of.kind(variable, body)`; `map` may have a test before its body."""

    kind: str
    items: CelTree
    variable: CelName
    bodies: tuple[CelTree, ...]
    start: int
    end: int


class CelUnary(msgspec.Struct, frozen=True):
    """`!` or `-`."""

    op: str
    operand: CelTree
    start: int
    end: int


class CelBinary(msgspec.Struct, frozen=True):
    """A comparison, arithmetic, or `in`."""

    op: str
    left: CelTree
    right: CelTree
    start: int
    end: int


class CelLogic(msgspec.Struct, frozen=True):
    """`&&` or `||` with two or more operands."""

    op: str
    items: tuple[CelTree, ...]
    start: int
    end: int


class CelConditional(msgspec.Struct, frozen=True):
    """`test ? then : otherwise`."""

    test: CelTree
    then: CelTree
    otherwise: CelTree
    start: int
    end: int


class CelList(msgspec.Struct, frozen=True):
    """`[…]`."""

    items: tuple[CelTree, ...]
    start: int
    end: int


class CelMap(msgspec.Struct, frozen=True):
    """`{…}`: keys and values."""

    entries: tuple[tuple[CelTree, CelTree], ...]
    start: int
    end: int


CelTree: TypeAlias = (
    CelLiteral
    | CelName
    | CelSelect
    | CelIndex
    | CelCall
    | CelMacro
    | CelUnary
    | CelBinary
    | CelLogic
    | CelConditional
    | CelList
    | CelMap
)


class CelSyntaxError(ValueError):
    """A text that is not an expression; `start` and `end` are the position of the error, `hint` is a correction."""

    def __init__(self, reason: str, start: int, end: int, hint: str = "", *, too_large: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.start, self.end, self.hint, self.too_large = reason, start, end, hint, too_large


def children(tree: CelTree) -> tuple[CelTree, ...]:
    """Returns the direct subtrees."""
    match tree:
        case CelLiteral() | CelName():
            return ()
        case CelBinary(_, left, right):
            return left, right
        case CelSelect(of) | CelUnary(_, of):
            return (of,)
        case CelIndex(of, key):
            return of, key
        case CelCall(_, None, args):
            return args
        case CelCall(_, of, args):
            return (of, *args) if of is not None else args
        case CelMacro(_, of, _, bodies):
            return (of, *bodies)
        case CelLogic(_, items) | CelList(items):
            return items
        case CelConditional(test, then, otherwise):
            return test, then, otherwise
        case CelMap(pairs):
            return tuple(part for pair in pairs for part in pair)


@lru_cache(maxsize=4096)
def parse(text: str) -> CelTree:
    """Parses an expression. Raises `CelSyntaxError`."""
    if len(text) > MAX_LENGTH:
        raise CelSyntaxError(
            f"{len(text):,} characters; at most {MAX_LENGTH:,}",
            0,
            len(text),
            "compute a part in a node of its own",
            too_large=True,
        )
    parser = _Parser(text)
    tree = parser.expression()
    if parser.lookahead or parser.kind != "end":
        parser.fail(f"unexpected {parser.lookahead!r}")
    _check_limits(tree)
    return tree


def _check_limits(tree: CelTree) -> None:
    stack = [(tree, 1, 0)]
    while stack:
        node, level, macros = stack.pop()
        macros += isinstance(node, CelMacro)
        if level > MAX_LEVELS or macros > MAX_MACROS:
            message = (
                f"more than {MAX_MACROS} macros inside each other"
                if macros > MAX_MACROS
                else f"more than {MAX_LEVELS} levels"
            )
            raise CelSyntaxError(message, node.start, node.end, "compute a part in a node of its own", too_large=True)
        stack += [(child, level + 1, macros) for child in children(node)]


_TOKEN = re.compile(
    r"""[ \t\r\n]*(?:
    (?P<number>0[xX][0-9a-fA-F]+|(?:\d+\.\d+|\.\d+)(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\d+)
  | (?P<string>[rR]?(?:'''(?:[^\\]|\\.)*?'''|\"\"\"(?:[^\\]|\\.)*?\"\"\"|'(?:[^'\\\r\n]|\\.)*'|"(?:[^"\\\r\n]|\\.)*"))
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<sign>&&|\|\||[=!<>]=|[-+*/%<>!?:.,()\[\]{}])
  | (?P<end>\Z))""",
    re.VERBOSE | re.DOTALL,
)


_RAW_STRING = re.compile(r"[rR]('''|\"\"\"|'|\")(.*)\1", re.DOTALL)


_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|(.))", re.DOTALL)


_ESCAPES = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    "?": "?",
    '"': '"',
    "'": "'",
    "`": "`",
}


_RELATIONS = frozenset({"==", "!=", "<", "<=", ">", ">=", "in"})


_OPERATOR_HINTS = {"and": "&&", "or": "||", "not": "!", "True": "true", "False": "false", "None": "null", "is": "=="}


class _Parser:
    """A recursive descent parser with one token of look-ahead."""  # prose: ok

    def __init__(self, text: str) -> None:
        self.text = text
        self.kind, self.lookahead, self.start, self.end = "", "", 0, 0
        self.previous_end = 0
        self.depth = 0
        self.advance()

    def advance(self) -> None:
        """Advances to the next token."""
        self.previous_end = self.end
        match = _TOKEN.match(self.text, self.end)
        if match is None:
            rest = self.text[self.end :]
            at = self.end + len(rest) - len(rest.lstrip())
            char = self.text[at]
            message = "the text is not closed" if char in "'\"" else f"unexpected {char!r}"
            hint = {"=": "compare with ==", "&": "and is &&", "|": "or is ||"}.get(char, "")
            raise CelSyntaxError(message, at, at + 1, hint)
        self.kind = str(match.lastgroup)
        self.lookahead, self.start, self.end = match[self.kind], match.start(self.kind), match.end()

    def fail(self, reason: str, hint: str = "") -> NoReturn:
        if not hint and self.lookahead in _OPERATOR_HINTS:
            hint = f"in CEL it is {_OPERATOR_HINTS[self.lookahead]}"
        raise CelSyntaxError(reason, self.start, max(self.end, self.start + 1), hint)

    def accept(self, word: str) -> bool:
        if self.lookahead != word or self.kind not in ("sign", "name"):
            return False
        self.advance()
        return True

    def expect(self, word: str) -> None:
        if not self.accept(word):
            self.fail(f"expected {word!r}, got {self.lookahead or 'the end'!r}")

    def expression(self) -> CelTree:
        self.depth += 1
        if self.depth > MAX_LEVELS:
            raise CelSyntaxError(
                f"more than {MAX_LEVELS} levels",
                self.start,
                self.end,
                "compute a part in a node of its own",
                too_large=True,
            )
        tree = self.logic("||")
        if self.accept("?"):
            then = self.logic("||")
            self.expect(":")
            otherwise = self.expression()
            tree = CelConditional(tree, then, otherwise, tree.start, otherwise.end)
        self.depth -= 1
        return tree

    def logic(self, op: str) -> CelTree:
        items = [self.logic("&&") if op == "||" else self.relation()]
        while self.accept(op):
            items.append(self.logic("&&") if op == "||" else self.relation())
        return items[0] if len(items) == 1 else CelLogic(op, tuple(items), items[0].start, items[-1].end)

    def relation(self) -> CelTree:
        left = self.sum()
        while self.lookahead in _RELATIONS and self.kind in ("sign", "name"):
            op = self.lookahead
            self.advance()
            right = self.sum()
            left = CelBinary(op, left, right, left.start, right.end)
        return left

    def sum(self) -> CelTree:
        left = self.product()
        while self.kind == "sign" and self.lookahead in ("+", "-"):
            op = self.lookahead
            self.advance()
            right = self.product()
            left = CelBinary(op, left, right, left.start, right.end)
        return left

    def product(self) -> CelTree:
        left = self.unary()
        while self.kind == "sign" and self.lookahead in ("*", "/", "%"):
            op = self.lookahead
            self.advance()
            right = self.unary()
            left = CelBinary(op, left, right, left.start, right.end)
        return left

    def unary(self) -> CelTree:
        signs: list[tuple[str, int]] = []
        while self.kind == "sign" and self.lookahead in ("!", "-"):
            signs.append((self.lookahead, self.start))
            self.advance()
            if len(signs) > MAX_LEVELS:
                raise CelSyntaxError(f"more than {MAX_LEVELS} signs in a row", signs[0][1], self.end, too_large=True)
        negative = bool(signs) and signs[-1][0] == "-" and self.kind == "number"
        tree = self.number("-", signs.pop()[1]) if negative else self.primary()
        tree = self.suffixes(tree)
        for op, at in reversed(signs):
            tree = CelUnary(op, tree, at, tree.end)
        return tree

    def number(self, sign: str = "", at: int | None = None) -> CelTree:
        word, start = self.lookahead, self.start if at is None else at
        self.advance()
        if self.kind == "name" and self.start == self.previous_end:
            self.fail(
                "unsigned integers have no JSON form"
                if self.lookahead in "uU"
                else f"unexpected {self.lookahead!r} after a number"
            )
        if word[:2] in ("0x", "0X"):
            value: int | float = int(sign + word, 16)
        elif word.isdigit():
            value = int(sign + word)
        else:
            value = float(sign + word)
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise CelSyntaxError(f"{sign}{word[:24]} does not fit 64 bits", start, self.previous_end)
        if value in (float("inf"), float("-inf")):
            raise CelSyntaxError(f"{sign}{word[:24]} is out of range", start, self.previous_end)
        return CelLiteral(value, start, self.previous_end)

    def primary(self) -> CelTree:
        at = self.start
        match self.kind:
            case "number":
                return self.number()
            case "string":
                value = _unquote(self.lookahead, self.start)
                self.advance()
                return CelLiteral(value, at, self.previous_end)
            case "name":
                return self.name()
        if self.accept("("):
            tree = self.expression()
            self.expect(")")
            return tree
        if self.accept("["):
            items = self.arguments("]")
            return CelList(items, at, self.previous_end)
        if self.accept("{"):
            return self.mapping(at)
        return self.fail(f"expected a value, got {self.lookahead or 'the end'!r}")

    def name(self) -> CelTree:
        word, at = self.lookahead, self.start
        self.advance()
        if word in ("true", "false", "null"):
            return CelLiteral({"true": True, "false": False, "null": None}[word], at, self.previous_end)
        if self.kind == "string" and self.start == self.previous_end and word in "bB":
            raise CelSyntaxError("bytes have no JSON form", at, self.end, "write a text")
        if self.accept("("):
            args = self.arguments(")")
            return CelCall(word, None, args, at, self.previous_end)
        if word in KEYWORDS:
            raise CelSyntaxError(
                f"{word!r} is a word of CEL, and no name",
                at,
                self.previous_end,
                f'a field of that name is written input["{word}"]',
            )
        return CelName(word, at, self.previous_end)

    def arguments(self, close: str) -> tuple[CelTree, ...]:
        items: list[CelTree] = []
        while not self.accept(close):
            items.append(self.expression())
            if self.lookahead != close:
                self.expect(",")
        return tuple(items)

    def mapping(self, at: int) -> CelTree:
        pairs: list[tuple[CelTree, CelTree]] = []
        while not self.accept("}"):
            key = self.expression()
            self.expect(":")
            pairs.append((key, self.expression()))
            if self.lookahead != "}":
                self.expect(",")
        return CelMap(tuple(pairs), at, self.previous_end)

    def suffixes(self, tree: CelTree) -> CelTree:
        while self.kind == "sign":
            if self.accept("."):
                tree = self.member(tree)
            elif self.accept("["):
                key = self.expression()
                self.expect("]")
                tree = CelIndex(tree, key, tree.start, self.previous_end)
            elif self.lookahead == "{" and isinstance(tree, CelName | CelSelect):
                self.fail("messages have no JSON form", 'write a mapping: {"name": value}')
            else:
                break
        return tree

    def member(self, of: CelTree) -> CelTree:
        if self.kind != "name":
            self.fail(
                f"expected a field's name, got {self.lookahead or 'the end'!r}", 'another name is written ["the name"]'
            )
        word, at = self.lookahead, self.start
        self.advance()
        if not self.accept("("):
            return CelSelect(of, word, of.start, self.previous_end)
        args = self.arguments(")")
        if word not in MACROS:
            return CelCall(word, of, args, of.start, self.previous_end)
        if len(args) not in MACROS[word] or not isinstance(args[0], CelName):
            raise CelSyntaxError(
                f"{word} takes a variable and what to do with it",
                at,
                self.previous_end,
                f"write list.{word}(x, ...x...)",
            )
        return CelMacro(word, of, args[0], args[1:], of.start, self.previous_end)


def _unquote(word: str, at: int) -> str:
    if raw := _RAW_STRING.fullmatch(word):
        return raw[2]
    quotes = 3 if word[:3] in ("'''", '"""') and len(word) >= 6 else 1

    def unescape(match: re.Match[str]) -> str:
        code = match[1] or match[2] or match[3]
        number = int(code, 16) if code else int(match[4], 8) if match[4] else None
        if number is None and match[5] in _ESCAPES:
            return _ESCAPES[match[5]]
        if number is None or number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
            raise CelSyntaxError(
                f"{match[0]} is no character", at + match.start(), at + match.end(), "write the character itself"
            )
        return chr(number)

    return _ESCAPE.sub(unescape, word[quotes:-quotes])


def to_cel_literal(value: Any) -> str:
    """Returns a JSON scalar as CEL."""
    if isinstance(value, float):
        text = repr(value)
        return text if "." in text or "e" not in text else text.replace("e", ".0e")
    return json.dumps(value, ensure_ascii=False)


def escape_references(value: Any) -> Any:
    """Escapes the texts of a JSON value, so that they contain no references."""
    match value:
        case str():
            return value.replace("${", "$${")
        case dict():
            return {key: escape_references(inner) for key, inner in value.items()}
        case list():
            return [escape_references(inner) for inner in value]
        case _:
            return value


_REFERENCE_TOKEN = re.compile(
    r"""[rR]?(?:'''(?:[^\\]|\\.)*?'''|\"\"\"(?:[^\\]|\\.)*?\"\"\"|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|[^'"{}]+|[{}]|['"]""",
    re.DOTALL,
)


class TemplateReference(msgspec.Struct, frozen=True):
    """The content of a `${...}` in a template. Without a closing brace it extends to the end."""

    source: str
    is_closed: bool


def split_template(text: str) -> Iterator[str | TemplateReference]:
    """Splits a template into literal texts, with `$${` unescaped to `${`, and references."""
    literal, at = "", 0
    while (start := text.find("${", at)) >= 0:
        if start > at and text[start - 1] == "$":
            literal, at = f"{literal}{text[at : start - 1]}${{", start + 2
            continue
        if literal := literal + text[at:start]:
            yield literal
        end = _find_closing_brace(text, start + 2)
        yield TemplateReference(text[start + 2 : end] if end >= 0 else text[start + 2 :], end >= 0)
        literal, at = "", end + 1 if end >= 0 else len(text)
    if literal := literal + text[at:]:
        yield literal


def sole_reference(text: str) -> str | None:
    """Returns the content of the only reference of a template; None for any other template."""
    return text[2:-1] if text.startswith("${") and _find_closing_brace(text, 2) == len(text) - 1 else None


def _find_closing_brace(text: str, start: int) -> int:
    """Returns the offset of the brace that closes a reference, or -1. `start` is the offset of its expression."""
    end = text.find("}", start)
    if end < 0 or not any(text.find(sign, start, end) >= 0 for sign in "{'\""):
        return end
    depth, at = 0, start
    while match := _REFERENCE_TOKEN.match(text, at):
        piece, at = match[0], match.end()
        if piece == "{":
            depth += 1
        elif piece == "}":
            if not depth:
                return match.start()
            depth -= 1
    return -1


MAX_PLAIN_LENGTH = 80
"""The maximum length of a plain path, well below the limits of the parser."""


_PATH = re.compile(r"([a-z][a-z0-9_]*)((?:\.[A-Za-z_]\w*|\[(?:0|[1-9]\d{0,8})\])*)", re.ASCII)


_STEP = re.compile(r"\.(\w+)|\[(\d+)\]", re.ASCII)


class PlainPath(msgspec.Struct, frozen=True, gc=False):
    """A reference that consists of a name, and the fields and indices after it."""

    root: str
    steps: tuple[str | int, ...]
    source: str
    references: frozenset[str]
    """The name as a set."""


def parse_plain_path(source: str) -> PlainPath | None:
    """Parses a reference as a plain path; None for other expressions and for long paths."""
    return _parse_cached(source) if len(source) <= MAX_PLAIN_LENGTH else None


@lru_cache(maxsize=8192)
def parse_plain_template(text: str) -> PlainPath | None:
    """Parses a template such as `${a.b}` as a plain path; None for other templates. The text has at most
    `MAX_PLAIN_LENGTH` characters.
    """
    return _parse(inside) if (inside := sole_reference(text)) is not None else None


@lru_cache(maxsize=2048)
def _parse_cached(source: str) -> PlainPath | None:
    return _parse(source)


def _parse(source: str) -> PlainPath | None:
    if (match := _PATH.fullmatch(source)) is None:
        return None
    root, rest = match.groups()
    if root in KEYWORDS:
        return None
    steps = tuple(name or int(index) for name, index in _STEP.findall(rest)) if rest else ()
    return PlainPath(root, steps, source, frozenset((root,)))
