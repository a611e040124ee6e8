"""The syntax of references: CEL, read into a tree with places, and written back.

The grammar is that of https://github.com/google/cel-spec (doc/langdef.md), less what has no JSON form: bytes, unsigned
integers and messages.
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
"""Characters of one reference, macros inside macros, and levels of its tree, at most."""

_WORDS = """as break const continue else false for function if import in let loop package namespace null return true var void while"""
KEYWORDS = frozenset(re.findall(r"\w+", _WORDS))
"""Words of CEL that cannot be names."""
MACROS = {"all": (2,), "exists": (2,), "exists_one": (2,), "map": (2, 3), "filter": (2,)}
"""With the number of their arguments."""


class Literal(msgspec.Struct, frozen=True):
    """A number, a text, a truth value or null. It stands between `at` and `end`, as the others do."""

    value: bool | int | float | str | None
    at: int
    end: int


class Name(msgspec.Struct, frozen=True):
    """A variable."""

    name: str
    at: int
    end: int


class Select(msgspec.Struct, frozen=True):
    """`of.name`."""

    of: Tree
    name: str
    at: int
    end: int


class Index(msgspec.Struct, frozen=True):
    """`of[key]`."""

    of: Tree
    key: Tree
    at: int
    end: int


class Call(msgspec.Struct, frozen=True):
    """A function; `of` is what stands before the dot."""

    name: str
    of: Tree | None
    args: tuple[Tree, ...]
    at: int
    end: int


class Macro(msgspec.Struct, frozen=True):
    """`of.kind(variable, body)`; `map` may have a test before its body."""

    kind: str
    of: Tree
    variable: Name
    bodies: tuple[Tree, ...]
    at: int
    end: int


class Unary(msgspec.Struct, frozen=True):
    """`!` or `-`."""

    op: str
    of: Tree
    at: int
    end: int


class Binary(msgspec.Struct, frozen=True):
    """A comparison, arithmetic, or `in`."""

    op: str
    left: Tree
    right: Tree
    at: int
    end: int


class Logic(msgspec.Struct, frozen=True):
    """`&&` or `||` over two or more."""

    op: str
    items: tuple[Tree, ...]
    at: int
    end: int


class Choose(msgspec.Struct, frozen=True):
    """`test ? then : otherwise`."""

    test: Tree
    then: Tree
    otherwise: Tree
    at: int
    end: int


class ListOf(msgspec.Struct, frozen=True):
    """`[…]`."""

    items: tuple[Tree, ...]
    at: int
    end: int


class MapOf(msgspec.Struct, frozen=True):
    """`{…}`: keys and values."""

    items: tuple[tuple[Tree, Tree], ...]
    at: int
    end: int


Tree: TypeAlias = Literal | Name | Select | Index | Call | Macro | Unary | Binary | Logic | Choose | ListOf | MapOf


class NotCEL(ValueError):
    """A text that is no expression; `at` and `end` say where in it, `hint` what to write."""

    def __init__(self, reason: str, at: int, end: int, hint: str = "", *, large: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.at, self.end, self.hint, self.large = reason, at, end, hint, large


def children(tree: Tree) -> tuple[Tree, ...]:
    """The trees that a tree is made of."""
    match tree:
        case Literal() | Name():
            return ()
        case Binary(_, left, right):
            return left, right
        case Select(of) | Unary(_, of):
            return (of,)
        case Index(of, key):
            return of, key
        case Call(_, None, args):
            return args
        case Call(_, of, args):
            return (of, *args) if of is not None else args
        case Macro(_, of, _, bodies):
            return (of, *bodies)
        case Logic(_, items) | ListOf(items):
            return items
        case Choose(test, then, otherwise):
            return test, then, otherwise
        case MapOf(pairs):
            return tuple(part for pair in pairs for part in pair)


@lru_cache(maxsize=4096)
def parse(text: str) -> Tree:
    """The tree of an expression. Raises `NotCEL`."""
    if len(text) > MAX_LENGTH:
        raise NotCEL(f"{len(text):,} characters; at most {MAX_LENGTH:,}", 0, len(text), "compute a part in a node of its own", large=True)
    parser = _Parser(text)
    tree = parser.expression()
    if parser.word or parser.kind != "end":
        parser.refuse(f"unexpected {parser.word!r}")
    _measure(tree)
    return tree


def _measure(tree: Tree) -> None:
    waiting = [(tree, 1, 0)]
    while waiting:
        here, level, macros = waiting.pop()
        macros += isinstance(here, Macro)
        if level > MAX_LEVELS or macros > MAX_MACROS:
            what = f"more than {MAX_MACROS} macros inside each other" if macros > MAX_MACROS else f"more than {MAX_LEVELS} levels"
            raise NotCEL(what, here.at, here.end, "compute a part in a node of its own", large=True)
        waiting += [(child, level + 1, macros) for child in children(here)]


_TOKEN = re.compile(
    r"""[ \t\r\n]*(?:
    (?P<number>0[xX][0-9a-fA-F]+|(?:\d+\.\d+|\.\d+)(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\d+)
  | (?P<string>[rR]?(?:'''(?:[^\\]|\\.)*?'''|\"\"\"(?:[^\\]|\\.)*?\"\"\"|'(?:[^'\\\r\n]|\\.)*'|"(?:[^"\\\r\n]|\\.)*"))
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<sign>&&|\|\||[=!<>]=|[-+*/%<>!?:.,()\[\]{}])
  | (?P<end>\Z))""",
    re.VERBOSE | re.DOTALL,
)
_RAW = re.compile(r"[rR]('''|\"\"\"|'|\")(.*)\1", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|(.))", re.DOTALL)
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", "?": "?", '"': '"', "'": "'", "`": "`"}
_RELATIONS = frozenset({"==", "!=", "<", "<=", ">", ">=", "in"})
_OURS = {"and": "&&", "or": "||", "not": "!", "True": "true", "False": "false", "None": "null", "is": "=="}


class _Parser:
    """Recursive descent over one text, one token ahead."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.kind, self.word, self.at, self.end = "", "", 0, 0
        self.before = 0
        self.depth = 0
        self.step()

    def step(self) -> None:
        """Goes on to the next token."""
        self.before = self.end
        match = _TOKEN.match(self.text, self.end)
        if match is None:
            rest = self.text[self.end :]
            at = self.end + len(rest) - len(rest.lstrip())
            char = self.text[at]
            closed = "the text is not closed" if char in "'\"" else f"unexpected {char!r}"
            hint = {"=": "compare with ==", "&": "and is &&", "|": "or is ||"}.get(char, "")
            raise NotCEL(closed, at, at + 1, hint)
        self.kind = str(match.lastgroup)
        self.word, self.at, self.end = match[self.kind], match.start(self.kind), match.end()

    def refuse(self, reason: str, hint: str = "") -> NoReturn:
        if not hint and self.word in _OURS:
            hint = f"in CEL it is {_OURS[self.word]}"
        raise NotCEL(reason, self.at, max(self.end, self.at + 1), hint)

    def take(self, word: str) -> bool:
        if self.word != word or self.kind not in ("sign", "name"):
            return False
        self.step()
        return True

    def expect(self, word: str) -> None:
        if not self.take(word):
            self.refuse(f"expected {word!r}, got {self.word or 'the end'!r}")

    def expression(self) -> Tree:
        self.depth += 1
        if self.depth > MAX_LEVELS:
            raise NotCEL(f"more than {MAX_LEVELS} levels", self.at, self.end, "compute a part in a node of its own", large=True)
        tree = self.logic("||")
        if self.take("?"):
            then = self.logic("||")
            self.expect(":")
            otherwise = self.expression()
            tree = Choose(tree, then, otherwise, tree.at, otherwise.end)
        self.depth -= 1
        return tree

    def logic(self, op: str) -> Tree:
        items = [self.logic("&&") if op == "||" else self.relation()]
        while self.take(op):
            items.append(self.logic("&&") if op == "||" else self.relation())
        return items[0] if len(items) == 1 else Logic(op, tuple(items), items[0].at, items[-1].end)

    def relation(self) -> Tree:
        left = self.sum()
        while self.word in _RELATIONS and self.kind in ("sign", "name"):
            op = self.word
            self.step()
            right = self.sum()
            left = Binary(op, left, right, left.at, right.end)
        return left

    def sum(self) -> Tree:
        left = self.product()
        while self.kind == "sign" and self.word in ("+", "-"):
            op = self.word
            self.step()
            right = self.product()
            left = Binary(op, left, right, left.at, right.end)
        return left

    def product(self) -> Tree:
        left = self.unary()
        while self.kind == "sign" and self.word in ("*", "/", "%"):
            op = self.word
            self.step()
            right = self.unary()
            left = Binary(op, left, right, left.at, right.end)
        return left

    def unary(self) -> Tree:
        signs: list[tuple[str, int]] = []
        while self.kind == "sign" and self.word in ("!", "-"):
            signs.append((self.word, self.at))
            self.step()
            if len(signs) > MAX_LEVELS:
                raise NotCEL(f"more than {MAX_LEVELS} signs in a row", signs[0][1], self.end, large=True)
        negative = bool(signs) and signs[-1][0] == "-" and self.kind == "number"
        tree = self.number("-", signs.pop()[1]) if negative else self.primary()
        tree = self.tail(tree)
        for op, at in reversed(signs):
            tree = Unary(op, tree, at, tree.end)
        return tree

    def number(self, sign: str = "", at: int | None = None) -> Tree:
        word, start = self.word, self.at if at is None else at
        self.step()
        if self.kind == "name" and self.at == self.before:
            self.refuse("unsigned integers have no JSON form" if self.word in "uU" else f"unexpected {self.word!r} after a number")
        if word[:2] in ("0x", "0X"):
            value: int | float = int(sign + word, 16)
        elif word.isdigit():
            value = int(sign + word)
        else:
            value = float(sign + word)
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise NotCEL(f"{sign}{word[:24]} does not fit 64 bits", start, self.before)
        if value in (float("inf"), float("-inf")):
            raise NotCEL(f"{sign}{word[:24]} is out of range", start, self.before)
        return Literal(value, start, self.before)

    def primary(self) -> Tree:
        at = self.at
        match self.kind:
            case "number":
                return self.number()
            case "string":
                value = _unquoted(self.word, self.at)
                self.step()
                return Literal(value, at, self.before)
            case "name":
                return self.name()
        if self.take("("):
            tree = self.expression()
            self.expect(")")
            return tree
        if self.take("["):
            items = self.arguments("]")
            return ListOf(items, at, self.before)
        if self.take("{"):
            return self.mapping(at)
        return self.refuse(f"expected a value, got {self.word or 'the end'!r}")

    def name(self) -> Tree:
        word, at = self.word, self.at
        self.step()
        if word in ("true", "false", "null"):
            return Literal({"true": True, "false": False, "null": None}[word], at, self.before)
        if self.kind == "string" and self.at == self.before and word in "bB":
            raise NotCEL("bytes have no JSON form", at, self.end, "write a text")
        if self.take("("):
            args = self.arguments(")")
            return Call(word, None, args, at, self.before)
        if word in KEYWORDS:
            raise NotCEL(f"{word!r} is a word of CEL, and no name", at, self.before, f'a field of that name is written input["{word}"]')
        return Name(word, at, self.before)

    def arguments(self, close: str) -> tuple[Tree, ...]:
        items: list[Tree] = []
        while not self.take(close):
            items.append(self.expression())
            if self.word != close:
                self.expect(",")
        return tuple(items)

    def mapping(self, at: int) -> Tree:
        pairs: list[tuple[Tree, Tree]] = []
        while not self.take("}"):
            key = self.expression()
            self.expect(":")
            pairs.append((key, self.expression()))
            if self.word != "}":
                self.expect(",")
        return MapOf(tuple(pairs), at, self.before)

    def tail(self, tree: Tree) -> Tree:
        while self.kind == "sign":
            if self.take("."):
                tree = self.member(tree)
            elif self.take("["):
                key = self.expression()
                self.expect("]")
                tree = Index(tree, key, tree.at, self.before)
            elif self.word == "{" and isinstance(tree, Name | Select):
                self.refuse("messages have no JSON form", 'write a mapping: {"name": value}')
            else:
                break
        return tree

    def member(self, of: Tree) -> Tree:
        if self.kind != "name":
            self.refuse(f"expected a field's name, got {self.word or 'the end'!r}", 'another name is written ["the name"]')
        word, at = self.word, self.at
        self.step()
        if not self.take("("):
            return Select(of, word, of.at, self.before)
        args = self.arguments(")")
        if word not in MACROS:
            return Call(word, of, args, of.at, self.before)
        if len(args) not in MACROS[word] or not isinstance(args[0], Name):
            raise NotCEL(f"{word} takes a variable and what to do with it", at, self.before, f"write list.{word}(x, ...x...)")
        return Macro(word, of, args[0], args[1:], of.at, self.before)


def _unquoted(word: str, at: int) -> str:
    if raw := _RAW.fullmatch(word):
        return raw[2]
    quotes = 3 if word[:3] in ("'''", '"""') and len(word) >= 6 else 1

    def one(match: re.Match[str]) -> str:
        code = match[1] or match[2] or match[3]
        number = int(code, 16) if code else int(match[4], 8) if match[4] else None
        if number is None and match[5] in _ESCAPES:
            return _ESCAPES[match[5]]
        if number is None or number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
            raise NotCEL(f"{match[0]} is no character", at + match.start(), at + match.end(), "write the character itself")
        return chr(number)

    return _ESCAPE.sub(one, word[quotes:-quotes])


def quoted(value: Any) -> str:
    """A JSON scalar as CEL writes it."""
    if isinstance(value, float):
        text = repr(value)
        return text if "." in text or "e" not in text else text.replace("e", ".0e")
    return json.dumps(value, ensure_ascii=False)


def escaped(value: Any) -> Any:
    """JSON whose texts are taken literally."""
    match value:
        case str():
            return value.replace("${", "$${")
        case dict():
            return {key: escaped(inner) for key, inner in value.items()}
        case list():
            return [escaped(inner) for inner in value]
        case _:
            return value


_PIECE = re.compile(
    r"""[rR]?(?:'''(?:[^\\]|\\.)*?'''|\"\"\"(?:[^\\]|\\.)*?\"\"\"|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|[^'"{}]+|[{}]|['"]""", re.DOTALL
)


class Reference(msgspec.Struct, frozen=True):
    """A `${...}` of a template: what stands in it, which is all that follows where no brace closes it."""

    source: str
    closed: bool


def pieces(text: str) -> Iterator[str | Reference]:
    """The parts of a template in their order: literal texts, in which `$${` has become `${`, and references."""
    literal, at = "", 0
    while (start := text.find("${", at)) >= 0:
        if start > at and text[start - 1] == "$":
            literal, at = f"{literal}{text[at : start - 1]}${{", start + 2
            continue
        if literal := literal + text[at:start]:
            yield literal
        end = _closing(text, start + 2)
        yield Reference(text[start + 2 : end] if end >= 0 else text[start + 2 :], end >= 0)
        literal, at = "", end + 1 if end >= 0 else len(text)
    if literal := literal + text[at:]:
        yield literal


def reference(text: str) -> str | None:
    """What stands in the one reference that a template is; None for any other template."""
    return text[2:-1] if text.startswith("${") and _closing(text, 2) == len(text) - 1 else None


def _closing(text: str, start: int) -> int:
    """The offset of the brace that closes the reference whose expression begins at `start`; -1 where there is none."""
    end = text.find("}", start)
    if end < 0 or not any(text.find(sign, start, end) >= 0 for sign in "{'\""):
        return end
    depth, at = 0, start
    while match := _PIECE.match(text, at):
        piece, at = match[0], match.end()
        if piece == "{":
            depth += 1
        elif piece == "}":
            if not depth:
                return match.start()
            depth -= 1
    return -1
