"""Laws of the language as properties of small random programs: the result of each node kind, and the flow of
outcomes.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra.core.events import AttemptFinished, AttemptStarted, MapExpanded, NodeFinished, TurnStarted
from orchestra.core.outcomes import AbstainedOutcome, FailedOutcome, Outcome, SkippedOutcome, ValueOutcome
from orchestra.core.protocols import CallError, CallRequest
from orchestra.workflows.yaml.reader import read
from tests.engine.stage import CATALOG, Played, play, program

FATES = ("value", "fail", "abstain", "skip")
SEEDS = st.integers(0, 10**6)
SLOW: dict[str, Any] = {"latency": (0.01, 3.0)}
laws = settings(max_examples=80, deadline=None)


def fated(fates: dict[str, str]) -> Any:
    """Answers for nodes with a predetermined end: a text, a number that is not in the evidence, or a refusal."""

    def answer(call: CallRequest) -> Any:
        name = call.node.split("/")[-1].split("[")[0]
        match fates.get(name):
            case "fail":
                return CallError(code="T009", reason=f"{name} fails")
            case "abstain":
                return "17"
            case _:
                return f"<{call.inputs['text']}>"

    return answer


def node(name: str, fate: str, text: str = "x", more: str = "") -> str:
    """A node with that end if all of its needs are values."""
    checks = ", checks: [numbers], against: none, otherwise: [abstain]" if fate == "abstain" else ""
    when = ', when: "${input.no}"' if fate == "skip" else ""
    return f'  {name}: {{agent: writer, with: {{text: "{text}"}}{checks}{when}{more}}}\n'


HEAD = "input: {no: bool}\n"
NO = {"no": False}
KINDS: dict[str, type[Outcome]] = {
    "value": ValueOutcome,
    "fail": FailedOutcome,
    "abstain": AbstainedOutcome,
    "skip": SkippedOutcome,
}


def ended(outcome: Outcome) -> tuple[type[Outcome], str]:
    """Returns the kind of an outcome and its origin."""
    return type(outcome), "" if isinstance(outcome, ValueOutcome) else outcome.origin


# Outcomes


@dataclasses.dataclass(frozen=True)
class Piece:
    """A node of a random graph: its own end, the values it reads, the nodes it only waits for, and whether it has a
    fallback.
    """

    name: str
    fate: str
    reads: tuple[str, ...]
    after: tuple[str, ...]
    fallback: bool

    @property
    def yaml(self) -> str:
        more = f", after: [{', '.join(self.after)}]" if self.after else ""
        return node(
            self.name,
            self.fate,
            " ".join(["x", *(f"${{{name}}}" for name in self.reads)]),
            more + ", fallback: f" * self.fallback,
        )


@st.composite
def graphs(draw: Any) -> list[Piece]:
    """Graphs of up to seven nodes, each of which reads up to two earlier nodes."""
    found: list[Piece] = []
    for index in range(draw(st.integers(1, 7))):
        names = [piece.name for piece in found]
        some = st.lists(st.sampled_from(names), max_size=2, unique=True) if names else st.just([])
        reads = sorted(draw(some))
        after = [name for name in sorted(draw(some)) if name not in reads]
        found.append(Piece(f"n{index}", draw(st.sampled_from(FATES)), tuple(reads), tuple(after), draw(st.booleans())))
    return found


def whole(graph: list[Piece]) -> str:
    parts = ", ".join(f'{piece.name}: "${{{piece.name}}}"' for piece in graph)
    return f"{HEAD}output: {{{parts}}}\nnodes:\n{''.join(piece.yaml for piece in graph)}"


def told(graph: list[Piece]) -> dict[str, tuple[type[Outcome], str]]:
    """Returns the ends that the laws require, in program order: the first non-value among the inputs of a node, or else
    its own end.
    """
    found: dict[str, tuple[type[Outcome], str]] = {}
    order = [node.name for node in program(whole(graph)).nodes]
    graph = sorted(graph, key=lambda piece: order.index(piece.name))
    for piece in graph:
        lost = [found[name] for name in sorted(piece.reads, key=order.index) if found[name][0] is not ValueOutcome]
        end = lost[0] if lost else (KINDS[piece.fate], "" if piece.fate == "value" else piece.name)
        found[piece.name] = (ValueOutcome, "") if piece.fallback else end
    return found


@laws
@given(graph=graphs(), seed=SEEDS)
def test_law_non_value_inherited_with_origin(graph: list[Piece], seed: int) -> None:
    played = play(whole(graph), NO, {"writer": fated({piece.name: piece.fate for piece in graph})}, seed=seed, **SLOW)
    assert {name: ended(outcome) for name, outcome in played.outcomes.items()} == told(graph)


@laws
@given(graph=graphs(), seed=SEEDS)
def test_law_output_record_fails_with_part_null_if_withheld(graph: list[Piece], seed: int) -> None:
    played = play(whole(graph), NO, {"writer": fated({piece.name: piece.fate for piece in graph})}, seed=seed, **SLOW)
    ends = told(graph)
    lost = {name: end for name, end in ends.items() if end[0] is not ValueOutcome}
    failed = [end for end in lost.values() if end[0] is FailedOutcome]
    if failed or len(lost) == len(ends):
        assert ended(played.outcome) == (failed or list(lost.values()))[0]
    else:
        assert isinstance(played.outcome, ValueOutcome)
        assert {name for name, part in played.outcome.value.items() if part is None} == set(lost)


@laws
@given(graph=graphs(), seeds=st.tuples(SEEDS, SEEDS))
def test_law_outcomes_independent_of_completion_order(graph: list[Piece], seeds: tuple[int, int]) -> None:
    fates = {piece.name: piece.fate for piece in graph}
    one, two = (play(whole(graph), NO, {"writer": fated(fates)}, seed=seed, **SLOW) for seed in seeds)
    assert one.outcomes == two.outcomes
    assert one.outcome == two.outcome


@laws
@given(graph=graphs(), seed=SEEDS)
def test_law_calls_start_after_dependencies(graph: list[Piece], seed: int) -> None:
    played = play(whole(graph), NO, {"writer": fated({piece.name: piece.fate for piece in graph})}, seed=seed, **SLOW)
    ends = {event.node: event.seq for event in played.events if isinstance(event, NodeFinished)}
    ends |= {event.node: event.seq for event in played.of(AttemptFinished) if event.final}
    starts = {event.node: event.seq for event in played.attempts}
    early = [
        (name, piece.name)
        for piece in graph
        for name in (*piece.reads, *piece.after)
        if starts.get(piece.name, 1e9) < ends[name]
    ]
    assert early == []


@laws
@given(fates=st.lists(st.sampled_from(FATES), min_size=1, max_size=5), sure=st.booleans(), seed=SEEDS)
def test_law_first_of_independent_of_completion_order(fates: list[str], sure: bool, seed: int) -> None:
    names = {f"n{index}": fate for index, fate in enumerate(fates)}
    arms = ", ".join([*(f'"${{{name}}}"' for name in names), *(["sure"] if sure else [])])
    text = (
        HEAD
        + "output: ${it}\nnodes:\n"
        + "".join(node(name, fate, name) for name, fate in names.items())
        + f"  it: {{first_of: [{arms}]}}"
    )
    outcome = play(text, NO, {"writer": fated(names)}, seed=seed, **SLOW).outcome
    values = [ValueOutcome(f"<{name}>") for name, fate in names.items() if fate == "value"] + [
        ValueOutcome("sure")
    ] * sure
    rank = {"fail": 0, "abstain": 1, "skip": 2, "value": 3}
    worst = min(names, key=lambda name: rank[names[name]])
    assert (outcome == values[0]) if values else (ended(outcome) == (KINDS[names[worst]], worst))


# each

EACH = """
input: {words: "list[str]"}
output: {n: "${n}", list: "${made.values}"}
nodes:
  made: {agent: writer, each: "${input.words}", as: word, when: "${word != 'skip'}", with: {text: "${word}"}, %s}
  n: {tool: count, with: {items: "${made.values}"}}
"""
WORDS = st.lists(st.sampled_from(["a", "b", "fail", "skip"]), max_size=9)


def element(call: CallRequest) -> Any:
    word = call.inputs["text"]
    return CallError(code="T009", reason="it fails") if word == "fail" else f"<{word}>"


@laws
@given(words=WORDS, most=st.integers(1, 4), seed=SEEDS)
def test_law_each_keeps_order_length_isolation(words: list[str], most: int, seed: int) -> None:
    played = play(EACH % f"concurrency: {most}", {"words": words}, {"writer": element}, seed=seed, **SLOW)
    assert played.of(MapExpanded)[0].count == len(words)
    kinds = {"fail": FailedOutcome, "skip": SkippedOutcome}
    assert [type(played.outcomes[f"made[{index}]"]) for index in range(len(words))] == [
        kinds.get(word, ValueOutcome) for word in words
    ]
    values = [f"<{word}>" for word in words if word not in kinds]
    if words and set(words) == {"fail"}:
        assert ended(played.outcomes["made"]) == (FailedOutcome, "made[0]")
    else:
        assert played.outcomes["made"] == ValueOutcome(values)
        assert played.outcome == ValueOutcome({"n": len(values), "list": values})
    assert played.workers.max_in_flight <= most


@laws
@given(words=WORDS, limit=st.integers(1, 9))
def test_law_each_over_limit_starts_nothing(words: list[str], limit: int) -> None:
    played = play(EACH % f"limit: {limit}", {"words": words}, {"writer": element})
    refused = isinstance(outcome := played.outcomes["made"], FailedOutcome) and outcome.code == "E004"
    assert refused == (len(words) > limit)
    assert not (refused and played.workers.calls)


@laws
@given(words=WORDS, most=st.integers(1, 4), seed=SEEDS)
def test_law_calls_in_flight_within_concurrency(words: list[str], most: int, seed: int) -> None:
    assert (
        play(
            EACH % "limit: 9", {"words": words}, {"writer": element}, seed=seed, concurrency=most, **SLOW
        ).workers.max_in_flight
        <= most
    )


# loop, call

LOOP = """
output: ${grown}
nodes:
  grown:
    loop:
      at_most: %d
      until: "${size(next) >= %d || turn >= %d}"
      nodes: {next: {tool: grow, with: {text: "${previous}"}}}
      output: "${next}"
"""


@laws
@given(
    steps=st.lists(st.integers(0, 3), min_size=9, max_size=9),
    most=st.integers(1, 8),
    size=st.integers(0, 9),
    turn=st.integers(1, 9),
)
def test_law_loop_ends_when_condition_first_holds(steps: list[int], most: int, size: int, turn: int) -> None:
    texts = ["x" * sum(steps[: index + 1]) for index in range(9)]
    played = play(
        LOOP % (most, size, turn), answers={"grow": lambda call: texts[int(call.node.split("#")[1].split("/")[0]) - 1]}
    )
    turns = next(k for k in range(1, 10) if len(texts[k - 1]) >= size or k >= turn or k == most)
    assert [event.turn for event in played.of(TurnStarted)] == list(range(1, turns + 1))
    assert played.outcome == ValueOutcome(texts[turns - 1])
    assert [call.inputs["text"] for call in played.workers.calls] == [None, *texts[: turns - 1]]


def chain(fates: list[str], first: str, indent: str = "") -> str:
    """A chain of nodes; the first node reads `first`."""
    texts = [first, *(f"${{c{index}}}" for index in range(len(fates) - 1))]
    return "".join(
        indent + node(f"c{index}", fate, text) for index, (fate, text) in enumerate(zip(fates, texts, strict=True))
    )


CHAINS = st.lists(st.sampled_from(["value", "value", "value", "fail", "abstain", "skip"]), min_size=1, max_size=4)


@laws
@given(fates=CHAINS, seed=SEEDS)
def test_law_block_equals_inlined_nodes(fates: list[str], seed: int) -> None:
    last, answers = f"c{len(fates) - 1}", {"writer": fated({f"c{index}": fate for index, fate in enumerate(fates)})}
    outside = HEAD + f"output: ${{{last}}}\nnodes:\n  a: {{tool: shout, with: {{text: a}}}}\n"
    inside = f"  b:\n    call:\n      nodes:\n{chain(fates, '${a}', '      ')}      output: ${{{last}}}\n"
    inlined = play(outside + chain(fates, "${a}"), NO, answers, seed=seed, **SLOW).outcome
    block = play(outside.replace(f"${{{last}}}", "${b}") + inside, NO, answers, seed=seed, **SLOW).outcome
    assert (ended(block)[0], getattr(block, "value", None)) == (ended(inlined)[0], getattr(inlined, "value", None))


INNER = (
    "schema: orchestra/v1\nname: inner\ninput: {no: {type: bool, default: false}, text: {type: str, default: given}}\n"
)


@laws
@given(fates=CHAINS, text=st.sampled_from(["", "t"]), seed=SEEDS)
def test_law_called_workflow_equals_separate_run(fates: list[str], text: str, seed: int) -> None:
    last, answers = f"c{len(fates) - 1}", {"writer": fated({f"c{index}": fate for index, fate in enumerate(fates)})}
    inner = INNER + f"output: ${{{last}}}\nnodes:\n{chain(fates, '${input.text}')}"
    catalog = dataclasses.replace(CATALOG, workflows={"inner": read(inner.encode(), "inner.yaml").graph})
    calling = f"output: ${{b}}\nnodes:\n  b: {{call: inner, with: {{{f'text: {text}' if text else ''}}}}}"
    outer = play(calling, {}, answers, seed=seed, catalog=catalog, **SLOW)
    alone = play(inner, {"no": False, "text": text or "given"}, answers, seed=seed, **SLOW)
    assert (ended(outer.outcome)[0], getattr(outer.outcome, "value", None)) == (
        ended(alone.outcome)[0],
        getattr(alone.outcome, "value", None),
    )
    assert {path.removeprefix("b/"): ended(outcome)[0] for path, outcome in outer.outcomes.items() if path != "b"} == {
        path: ended(outcome)[0] for path, outcome in alone.outcomes.items()
    }


def first_events(played: Played) -> list[str]:
    return [event.node for event in played.events if isinstance(event, AttemptStarted | AttemptFinished)]


@laws
@given(go=st.booleans(), fate=st.sampled_from(FATES), seed=SEEDS)
def test_law_when_evaluated_on_values_false_calls_nothing(go: bool, fate: str, seed: int) -> None:
    text = (
        "input: {no: bool, go: bool}\noutput: ${b}\nnodes:\n"
        + node("a", fate)
        + node("b", "value", "${a}", ', when: "${input.go}"')
    )
    played = play(text, {"no": False, "go": go}, {"writer": fated({"a": fate})}, seed=seed, **SLOW)
    own = (ValueOutcome, "") if go else (SkippedOutcome, "b")
    assert ended(played.outcomes["b"]) == (own if fate == "value" else (KINDS[fate], "a"))
    assert ("b" in first_events(played)) == (go and fate == "value")
