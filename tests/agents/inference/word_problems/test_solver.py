"""Tests word problem solvers: expressions use the numbers of the problem, have the reported probability, and follow
from the weights.
"""

from __future__ import annotations

import re
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

np = pytest.importorskip("numpy")
pytest.importorskip("tokenizers")

from orchestra.agents.card import Card  # noqa: E402
from orchestra.agents.inference.array_files import pack_arrays  # noqa: E402
from orchestra.agents.inference.encoder import Encoder  # noqa: E402
from orchestra.agents.inference.word_problems.solver import (  # noqa: E402
    FORMAT,
    MAX_NUMBERS,
    OPERATIONS,
    SolverHead,
    SolverState,
    Term,
    WordProblemSolver,
    encode_problem,
    head_shapes,
    solves_word_problems,
    step_mask,
)
from orchestra.core.errors import InputError  # noqa: E402
from orchestra.testing.tiny_encoder import SHAPE, write_encoder  # noqa: E402
from orchestra.text.arithmetic import evaluate  # noqa: E402

WORDS = ["ann", "has", "pears", "and", "eats", "how", "many", "are", "left", "?", ".", "three", *"0123456789"]
TEXT = "Ann has 12 pears and eats three. How many are left?"
KNOWN = ("1", "100")
CARD = """
name: solver
kind: encoder
model: tiny
input: {question: str}
output: {expression: Expression, answer: float | null}
types:
  Expression: {type: string, pattern: '^[-+*/().0-9]+$'}
computed: {answer: {value: expression}}
"""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.load(write_encoder(tmp_path_factory.mktemp("base"), WORDS, kind="mpnet"))


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Card:
    return written(tmp_path_factory.mktemp("solver"), arrays(1))


def arrays(seed: int, **changes: Any) -> dict[str, Any]:
    chance = np.random.default_rng(seed)
    made: dict[str, Any] = {
        name: chance.normal(0, shape[-1] ** -0.5, shape)
        for name, shape in head_shapes(SHAPE.hidden_size, len(KNOWN)).items()
    }
    for name in SHAPE.linear_layers:
        taken, gives = SHAPE.layer_shape(name)
        made |= {f"down.{name}": chance.normal(size=(1, 2, taken)), f"up.{name}": np.zeros((1, gives, 2))}
    return made | changes


def written(folder: Path, made: dict[str, Any], **changes: Any) -> Card:
    said: dict[str, Any] = {"format": FORMAT, "input": "question", "output": "expression", "known": KNOWN, "tokens": 64}
    said |= {"base": {"licence": "CC0-1.0", "sha256": {}}, "data": [], "arrays": "deduction.npz"} | changes
    text, data = pack_arrays(said, made)
    (folder / "agent.yaml").write_text(CARD)
    (folder / "model.json").write_text(text)
    (folder / "deduction.npz").write_bytes(data)
    return Card.load(folder)


@pytest.mark.parametrize("seed", range(6))
def test_solver_expression_uses_problem_numbers_and_has_its_value(seed: int, encoder: Encoder, tmp_path: Path) -> None:
    solver = WordProblemSolver.load(written(tmp_path, arrays(seed)), encoder)
    output, sure = solver.predict({"question": TEXT})
    numbers = re.findall(r"[\d.]+", output["expression"])
    assert set(numbers) <= {"12", "3", *KNOWN}
    assert len(numbers) <= MAX_NUMBERS
    assert output["answer"] == float(evaluate(output["expression"]))
    assert 0 < sure <= 1


def test_solver_adds_probabilities_of_equal_values(encoder: Encoder, card: Card) -> None:
    solver = WordProblemSolver.load(card, encoder)
    nine, other = Term(Fraction(9), "12-3", 1, 2), Term(Fraction(9), "(12-3)*1", 2, 3)
    text, sure = solver.best_expression([(Term(Fraction(15), "12+3", 1, 2), 0.4), (nine, 0.25), (other, 0.3)])
    assert text == "(12-3)*1"
    assert sure == pytest.approx(0.55)


@pytest.mark.parametrize(
    "name", [pytest.param("sharpen", id="as it is called"), pytest.param("heat", id="as it was called before")]
)
def test_solver_power_lowers_confidence_and_keeps_answer(
    encoder: Encoder, card: Card, tmp_path: Path, name: str
) -> None:
    first, sure = WordProblemSolver.load(card, encoder).predict({"question": TEXT})
    second, less = WordProblemSolver.load(written(tmp_path, arrays(1), **{name: 2.0}), encoder).predict(
        {"question": TEXT}
    )
    assert second == first
    assert less == pytest.approx(sure**2)


def test_solver_without_numbers_uses_constants_at_low_confidence(encoder: Encoder, card: Card) -> None:
    output, sure = WordProblemSolver.load(card, encoder).predict({"question": "How many pears has Ann?"})
    assert set(re.findall(r"\d+", output["expression"])) <= set(KNOWN)
    assert sure < 0.9


def test_solver_probabilities_sum_to_one(encoder: Encoder, card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a wide beam and one number, the search finds every end of the first step. Unfinished derivations have the
    remaining probability.
    """
    module = sys.modules[WordProblemSolver.__module__]
    monkeypatch.setattr(module, "BEAM_WIDTH", 10_000)
    monkeypatch.setattr(module, "MAX_STEPS", 1)
    solver = WordProblemSolver.load(card, encoder)
    seen: list[float] = []
    taken = solver._expand

    def spied(*given: Any) -> Any:
        found = taken(*given)
        seen.extend(np.exp(one[4].log_probability) for one in found)
        return found

    monkeypatch.setattr(solver, "_expand", spied)
    ended = [chance for _, chance in solver.beam_search(encode_problem(encoder, "Ann has 7 pears."))]
    assert sum(ended) + sum(seen) == pytest.approx(1.0, abs=1e-4)


def test_solver_unfinished_derivations_can_change_the_answer(
    encoder: Encoder, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The likeliest finished derivation is not the likeliest value if two other derivations have the same value."""
    solver, fifteen, nine = (
        WordProblemSolver.load(card, encoder),
        Term(Fraction(15), "12+3", 1, 2),
        Term(Fraction(9), "12-3", 1, 2),
    )
    ends = iter([[(fifteen, 0.30), (nine, 0.25)], [(nine, 0.28)], []])

    def taken(ways: Any, logits: Any, alone: Any, done: list[Any]) -> list[Any]:
        done += (found := next(ends))
        terms = [*ways[0].terms, fifteen]
        return [(0, 0, 1, 0, type(ways[0])(terms, np.log(0.28)))] if len(found) == 2 else []

    monkeypatch.setattr(solver, "_expand", taken)
    text, sure = solver.best_expression(solver.beam_search(encode_problem(encoder, TEXT)))
    assert text == "12-3"
    assert sure == pytest.approx(0.53)


def test_solver_without_finished_derivation_has_no_confidence(
    encoder: Encoder, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    solver = WordProblemSolver.load(card, encoder)
    monkeypatch.setattr(solver, "_expand", lambda *given: [])
    assert solver.best_expression(solver.beam_search(encode_problem(encoder, TEXT)))[1] == 0.0


def test_solver_many_zeros_have_an_answer(encoder: Encoder, tmp_path: Path) -> None:
    liking = np.zeros(2 * len(OPERATIONS))
    liking[OPERATIONS.index("/")] = liking[len(OPERATIONS) + OPERATIONS.index("/")] = 30.0
    solver = WordProblemSolver.load(written(tmp_path, arrays(1, **{"score.bias": liking})), encoder)
    output, sure = solver.predict({"question": "0 " * 40})
    assert output["answer"] == float(evaluate(output["expression"]))
    assert sure < 0.5


def test_solver_too_long_text_is_refused_not_truncated(encoder: Encoder, card: Card) -> None:
    with pytest.raises(InputError) as caught:
        WordProblemSolver.load(card, encoder).predict({"question": TEXT * 10})
    assert caught.value.code == "A023"


def test_quantities_map_to_their_tokens(encoder: Encoder) -> None:
    read = encode_problem(encoder, TEXT)
    assert [one.text for one in read.quantities] == ["12", "3"]
    assert all(len(at) >= 1 for at in read.token_positions)
    assert not set(read.token_positions[0]) & set(read.token_positions[1])


def test_solver_steps_have_no_commuted_or_trivial_duplicates() -> None:
    found = step_mask(3)
    plus, minus = OPERATIONS.index("+"), OPERATIONS.index("-")
    assert found[0, 1, plus]
    assert not found[1, 0, plus]
    assert found[1, 1, plus]
    assert found[0, 1, minus]
    assert found[1, 0, minus]
    assert not found[1, 1, minus]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.sampled_from(OPERATIONS)), min_size=1, max_size=12))
def test_solver_expression_value_equals_its_steps(steps: list[tuple[int, int, str]]) -> None:
    terms = [Term(Fraction(number), str(number)) for number in (2, 3, 7)]
    for left, right, sign in steps:
        if (made := Term.combine(terms[left % len(terms)], sign, terms[right % len(terms)])) is not None:
            assert evaluate(made.text) == made.value
            assert len(re.findall(r"\d+", made.text)) == made.numbers <= MAX_NUMBERS
            terms.append(made)


def test_solver_excludes_division_by_zero() -> None:
    assert Term.combine(Term(Fraction(1), "1"), "/", Term(Fraction(0), "3-3", 1, 2)) is None


def test_solver_head_equals_torch(encoder: Encoder) -> None:
    torch = pytest.importorskip("torch")
    chance = np.random.default_rng(5)
    made = {
        name: array.astype(np.float32)
        for name, array in arrays(4).items()
        if name in head_shapes(SHAPE.hidden_size, len(KNOWN))
    }
    read, places = (
        chance.normal(size=(2, 7, SHAPE.hidden_size)).astype(np.float32),
        np.zeros((2, 3, 7), dtype=np.float32),
    )
    places[:, [0, 1, 2], [1, 3, 4]] = 1
    kinds, operations = np.array([[0, 1, 0], [2, 0, 1]]), np.array([1, 3])

    def said(head: SolverHead, *given: Any, numbers: Any) -> list[Any]:
        board = head.initial_state(*given)
        pairs = head.pair_vectors(board)
        after: SolverState = head.next_state(board, pairs[:, 0, 2], numbers)
        return [head.step_logits(pairs), head.single_logits(board), after.vectors, after.state]

    here = said(SolverHead(made), read, places, kinds, numbers=operations)
    tensors = {name: torch.from_numpy(array) for name, array in made.items()}
    there = said(
        SolverHead(tensors), *map(torch.from_numpy, (read, places, kinds)), numbers=torch.from_numpy(operations)
    )
    for one, other in zip(here, there, strict=True):
        assert one.shape == tuple(other.shape)
        assert np.abs(one - other.numpy()).max() < 1e-4


# Cards and files


def test_solver_card_has_one_text_and_computed_expression(card: Card) -> None:
    assert solves_word_problems(card)
    assert solves_word_problems(Card.restore(card.dump(), card.folder))


@pytest.mark.parametrize(
    ("told", "instead"),
    [
        ("value: expression", "value: other"),
        ("answer: float", "why: str, answer: float"),
        ("{question: str}", "{question: str, unit: str}"),
        ("{question: str}", "{question: int}"),
        ("{question: str}", '{question: "list[str]"}'),
    ],
)
def test_solver_card_of_another_form_is_refused(told: str, instead: str, tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_text(CARD.replace(told, instead))
    with pytest.raises(InputError) as caught:
        Card.load(tmp_path)
    assert caught.value.code == "A013"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"score": np.zeros((3, 3))}, id="another shape"),
        pytest.param({"known": np.zeros((5, 256))}, id="more that everybody knows"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes: dict[str, Any], encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        WordProblemSolver.load(written(tmp_path, arrays(1, **changes)), encoder)
    assert caught.value.code == "A011"


def test_solver_unknown_quantity_kinds_are_refused(encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        WordProblemSolver.load(written(tmp_path, arrays(1), kinds=["digits"]), encoder)
    assert caught.value.code == "A011"
