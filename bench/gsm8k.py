"""Problems with one expression each over their numbers: from GSM8K and written ones.

Cobbe et al. 2021, https://arxiv.org/abs/2110.14168, `github.com/openai/grade-school-math`, MIT: the steps of a solution
(`<<48/2=24>>`) are substituted into one another, or the last step becomes a separate problem, and a problem is asked
with other numbers.
"""

from __future__ import annotations

import ast
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from orchestra.text.arithmetic import ArithmeticParseError, evaluate, operands
from orchestra.text.numbers.numbers import find_numbers as numbers_in

LONGEST = 60
"""Maximal number of characters of an expression."""
MOST = 10
"""Maximal number of numbers in an expression."""
LONG_PROBLEM = 420
"""Maximal number of characters of a problem."""
KNOWN = frozenset(map(Fraction, (1, 2, 3, 4, 7, 10, 12, 24, 30, 52, 60, 100, 365, 1000)))
"""Constants that an expression may use although the problem does not state them: of days, dozens, halves, per cent."""
PARTS = {
    "half": ("0.5", "1.5"),
    "quarter": ("0.25", "0.75"),
    "fifth": ("5",),
    "sixth": ("6",),
    "eighth": ("8",),
    "ninth": ("9",),
}
"""Words for parts that `numbers` does not parse, and their values, if these are not obvious."""
_STEP = re.compile(r"<<([^<>=]+)=([^<>=]+)>>")
_NUMBER = re.compile(r"(?<![\w.,])\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+")
_WORKING = re.compile(r"[$\d.,%()+*/x×÷ -]*=\s*\$?\s*<<[^<>]*>>\$?|<<[^<>]*>>")
"""The calculation in a line of a solution, up to its result."""
_LEFT_OVER = re.compile(
    r"<<|=|[\d)\w] ?[*+×÷] ?[\d($]| [-/] |\d [a-z]+ \d+ [a-z]+\.|\d \$?\d|because \$?[\d,.]+( |$)|(^|\. )\$?[\d,]+\. ",
    re.IGNORECASE,
)
"""Remains of a calculation in a line."""


@dataclass(frozen=True, slots=True)
class Solved:
    """A problem with the expression that solves it."""

    question: str
    expression: str
    value: Fraction
    steps: int


def numbers(text: str) -> Counter[Fraction]:
    """Returns the numbers of a text, in digits or words, without sign."""
    return Counter(abs(number.plain) for number in numbers_in(text, words=True))


def solved(question: str, solution: str, answer: float) -> Solved | None:
    """Returns the problem with its steps as one expression; None if the steps do not form one."""
    known = numbers(question)
    found: dict[Fraction, ast.expr] = {}
    tree: ast.expr | None = None
    steps = _STEP.findall(solution)
    unsure: set[Fraction] = set()
    for left, right in steps:
        try:
            if unsure & {*operands(_spelt_plainly(left))}:
                return None
            tree = _substituted(left, found, known)
            result = evaluate(right)
        except ArithmeticParseError:
            return None
        if result in known or result in found:
            unsure.add(result)  # a use of it is ambiguous
        found[result] = tree
    if tree is None:
        return None
    try:
        expression = spelt(tree)
        value = evaluate(expression)
    except ArithmeticParseError:
        return None
    right_value = value == Fraction(str(answer)) and len(expression) <= LONGEST and len(operands(expression)) <= MOST
    return Solved(question, expression, value, len(steps)) if right_value and told(expression, known) else None


def told(expression: str, known: Mapping[Fraction, int]) -> bool:
    """Returns whether every number of an expression is known, as a number or as per cent."""
    return all(number in known or number in KNOWN or number * 100 in known for number in operands(expression))


def as_written(expression: str, text: str) -> str:
    """Returns an expression in the agent's notation, over numbers of a text or constants. A word such as “quarter” in
    the text allows its value in any sense.

    Raises:
        ArithmeticParseError: The expression has other numbers.
    """
    if "#" in expression:
        raise ArithmeticParseError(f"{expression.strip()!r} has a remark in it")
    try:
        found = spelt(ast.parse(expression.strip(), mode="eval").body)
    except SyntaxError as error:
        raise ArithmeticParseError(f"{expression.strip()!r} is no arithmetic") from error
    if evaluate(found) < 0:
        raise ArithmeticParseError(f"{found} is less than zero")
    if len(found) > LONGEST or len(operands(found)) > MOST:
        raise ArithmeticParseError(f"{found} is longer than {LONGEST} characters, or has more than {MOST} numbers")
    known = numbers(text) + Counter(
        Fraction(part)
        for word, parts in PARTS.items()
        if re.search(rf"\b{word}s?\b", text, re.IGNORECASE)
        for part in parts
    )
    if unknown := [node for node in re.findall(r"[\d.]+", found) if not told(node, known)]:
        raise ArithmeticParseError(f"{unknown[0]} is not told in the story or the question")
    return found


def _parts(text: str) -> list[Fraction]:
    """Returns the values of the words for parts in a text."""
    said = {word.removesuffix("s") for word in re.findall(r"[a-z]+", text.lower())} | (
        {"half"} if "halves" in text.lower() else set()
    )
    return [Fraction(part) for word, parts in PARTS.items() if word in said for part in parts]


def spelt(tree: ast.expr) -> str:
    """Returns an expression without blanks and redundant brackets. Raises `ArithmeticParseError` if the agent may not
    write it.
    """
    text = ast.unparse(tree).replace(" ", "")
    if re.search(r"//|\*\*|[^-+*/().\d]", text):
        raise ArithmeticParseError(text)
    return text


def _substituted(step: str, found: Mapping[Fraction, ast.expr], known: Mapping[Fraction, int]) -> ast.expr:
    """Returns a step with intermediate results replaced by their expressions. Raises `ArithmeticParseError`."""
    plain = _spelt_plainly(step)
    evaluate(plain)
    try:
        body = ast.parse(plain, mode="eval").body
    except SyntaxError as error:
        raise ArithmeticParseError(plain) from error
    made: ast.expr = _Replaced(found, known).visit(body)
    return made


def _spelt_plainly(step: str) -> str:
    plain = re.sub(r"(\d),(?=\d{3})", r"\1", step.replace("$", "").replace("x", "*")).strip()
    return re.sub(r"(\d+(?:\.\d+)?)%", r"\1/100", plain)


class _Replaced(ast.NodeTransformer):
    def __init__(self, found: Mapping[Fraction, ast.expr], known: Mapping[Fraction, int]) -> None:
        self.found, self.known = found, known

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        number = Fraction(str(node.value))
        return node if number in self.known or number not in self.found else self.found[number]

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        raise ArithmeticParseError("a sign")


def last(question: str, solution: str, answer: float) -> Solved | None:
    """Returns the last step of a solution as a separate problem with the results of the earlier steps given."""
    lines = [line for line in solution.splitlines() if not line.startswith("####")]
    steps = [(number, left, right) for number, line in enumerate(lines) for left, right in _STEP.findall(line)]
    sentences = [part.strip() for part in re.findall(r"[^.?!]*(?:\.\d[^.?!]*)*[.?!]+", question)]
    if len(steps) < 2 or not sentences or not sentences[-1].endswith("?"):
        return None
    _, left, _ = steps[-1]
    try:
        tree = _substituted(left, {}, {})
        wanted, value = operands(spelt(tree)), evaluate(spelt(tree))
        results = {evaluate(result): number for number, _, result in steps[:-1]}
    except ArithmeticParseError:
        return None
    said = [
        part for part in sentences[:-1] if any(number in numbers(part) and number not in results for number in wanted)
    ]
    said += [
        _without_working(lines[number]) for number in dict.fromkeys(results[one] for one in wanted if one in results)
    ]
    text = " ".join([*said, sentences[-1]])
    good = (
        value == Fraction(str(answer)) and all(number in numbers(text) for number in wanted) and 2 <= len(wanted) <= 3
    )
    clean = not _LEFT_OVER.search(text) and len(text) <= LONG_PROBLEM * 3 // 4
    return Solved(text, spelt(tree), value, 1) if good and clean and any(one in results for one in wanted) else None


def _without_working(line: str) -> str:
    """Returns a line of a solution with its result and without the calculation."""
    told_money = bool(re.search(r"\$\s*<<|=\s*\$", line))
    text = (
        re.sub(r"\s+", " ", _WORKING.sub(" $" if told_money else " ", line))
        .replace("$ ", "$")
        .replace("$$", "$")
        .strip()
    )
    return text if text.endswith(".") else text + "."


def drawn(problem: Solved, chance: random.Random) -> Solved | None:
    """Returns the problem with other numbers; None if their roles would be uncertain."""
    used = operands(problem.expression)
    counts = numbers(problem.question)
    alone = [match for match in _NUMBER.finditer(problem.question) if _alone(problem.question, match)]
    free = {
        Fraction(match[0]) for match in alone if used.count(Fraction(match[0])) == 1 and counts[Fraction(match[0])] == 1
    }
    # Constants are kept: such a number may be the months of a year, or a fifth, and not the number in the text.
    free = {number for number in free if number > 2} - KNOWN - {*_parts(problem.question)}
    if not free or any(number not in free and number not in KNOWN for number in used):
        return None
    for _ in range(40):
        new = {number: Fraction(_near(int(number), chance)) for number in sorted(free)}
        expression = _renumbered(problem.expression, new)
        if _whole(problem.expression, expression):
            value = evaluate(expression)
            question = problem.question
            for match in reversed(alone):
                if Fraction(match[0]) in new:
                    question = question[: match.start()] + str(new[Fraction(match[0])]) + question[match.end() :]
            return Solved(question, expression, value, problem.steps)
    return None


def _renumbered(expression: str, new: Mapping[Fraction, Fraction]) -> str:
    return re.sub(r"\d+(?:\.\d+)?", lambda match: str(new.get(Fraction(match[0]), match[0])), expression)


def _whole(before: str, after: str) -> bool:
    """Returns whether no part of an expression became negative, or a fraction where it was whole."""

    def parts(expression: str) -> list[Fraction]:
        return [
            evaluate(spelt(node))
            for node in ast.walk(ast.parse(expression, mode="eval"))
            if isinstance(node, ast.BinOp)
        ]

    try:
        return all(b > 0 and b.denominator <= a.denominator for a, b in zip(parts(before), parts(after), strict=True))
    except ArithmeticParseError:
        return False


def _alone(text: str, match: re.Match[str]) -> bool:
    """Returns whether a whole number is separate: not a per cent, fraction, year, or part of a word."""
    after, before = text[match.end() : match.end() + 9], text[: match.start()]
    odd = re.match(r"[%/:\w,-]|\.\d| ?percent|st\b|nd\b|th\b", after) or before[-1:] in ("/", ":", "-", ".")
    return match[0].isdigit() and not odd and int(match[0]) < 1900


def _near(number: int, chance: random.Random) -> int:
    return (
        chance.randint(max(2, number // 3), max(12, number * 2))
        if number < 1000
        else 10 * round(number * chance.uniform(0.05, 0.15))
    )


def asked(rows: Iterable[Mapping[str, Any]], steps: int) -> Iterator[tuple[str, Solved]]:
    """Returns the problems with at most that many steps, by id."""
    for row in rows:
        expected = row["expected"]
        found = solved(row["input"]["question"], expected["solution"], expected["answer"])
        if found is not None and found.steps <= steps and len(found.question) <= LONG_PROBLEM:
            yield row["id"], found


def lasts(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Solved]]:
    """Returns the last steps of problems with several."""
    for row in rows:
        found = last(row["input"]["question"], row["expected"]["solution"], row["expected"]["answer"])
        if found is not None:
            yield row["id"], found
