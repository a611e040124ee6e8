"""Agents with tools: a plan of one step at a time. The model writes a line, its call runs, and the model sees what came of it.

Each turn is a body, as those of plans are, and stands in the journal as they do: the question for the next line, the call of that line,
or at last the question for the answer, which carries the node's own checks. What the calls gave is folded from the bodies that ran.
"""

from __future__ import annotations

from typing import Any

from orchestra.agents import tool_prompt as kits
from orchestra.agents.contract import Catalog
from orchestra.core.events import Drafted
from orchestra.core.outcomes import Abstained, Failed, Outcome, Skipped, Value
from orchestra.core.protocols import sources
from orchestra.engine.kinds.subworkflow import inside, result
from orchestra.engine.proposals import Enter, Finish, Proposal
from orchestra.engine.state import Bindings, Unit, contradiction
from orchestra.router import tool_turns
from orchestra.router.capabilities import Offer
from orchestra.router.plan_syntax import Step, steps_of
from orchestra.router.validation import Rejection
from orchestra.schema.types import Schema, under
from orchestra.workflows.compile.compiler import compile_graph
from orchestra.workflows.compile.tool_agents import acts
from orchestra.workflows.model import RETRY, Graph, PlanLimits
from orchestra.workflows.program import Program, Using

LINE, ANSWER = "line", "answer"
"""The nodes of the bodies in which the model is asked; that of a call bears the name of its step."""
LASTING = ("T005", "T009", "T010", "T011", "T012", "T013")
"""Codes of tools that no line can use: what is not there, has changed, or cannot be started."""
ITS_OWN = ("E004", "E009")
"""Codes, beside those of tools, models and expressions, of calls that failed by what they were given: another line may do better."""


def begin(unit: Unit) -> Proposal:
    """The first question for a line."""
    _given(unit)  # what fails in the inputs fails the node
    return _line(unit, (), (), 0)


def emerged(unit: Unit) -> Proposal:
    """A turn came to its end: the call of the line that was written, the next question, or the answer."""
    drafted, outcome = unit.drafted, result(inside(unit))
    if drafted is None:
        raise contradiction(f"{unit.path} has no turn")
    steps, rejected = steps_of(drafted.lines), tuple(Rejection(*one) for one in drafted.rejected)
    match _asked(drafted):
        case "line" if isinstance(outcome, Value):
            return _written(unit, str(outcome.value), steps, rejected, drafted.repaired)
        case "line" | "answer":
            return Finish(unit, outcome)
        case _:
            return _called(unit, outcome, steps, rejected, drafted.repaired)


def gathered(unit: Unit, drafted: Drafted) -> tuple[Any, ...]:
    """What the calls of a unit gave, now that another turn begins: one more where the turn before was a call whose line stands."""
    before = unit.drafted
    if unit.node.using is None or before is None or len(drafted.lines) < len(before.lines) or _asked(before) in (LINE, ANSWER):
        return unit.found
    outcome = result(inside(unit))
    return (*unit.found, outcome.value) if isinstance(outcome, Value) else unit.found


def program(unit: Unit, drafted: Drafted) -> Program:
    """The body of a turn."""
    using, contract = _using(unit), unit.node.contract
    agents = {one.name: one for one in using.known if one.kind == "agent"}
    tools = {one.name: one for one in using.known if one.kind == "tool"}
    for judge in unit.node.acceptance.judges.values() if unit.node.acceptance is not None else ():
        (agents if judge.kind == "agent" else tools).setdefault(judge.name, judge)
    if contract is not None and (asked := _asked(drafted)) in (LINE, ANSWER):
        agents[contract.name] = using.kit.line if asked == LINE else using.kit.answer
    combination = unit.node.acceptance.combination if unit.node.acceptance is not None else None
    combined = {combination.agent: combination} if combination is not None else {}
    catalog = Catalog(agents, tools, models=using.models, combinations=combined)
    return compile_graph(Graph.model_validate(drafted.graph, strict=False), catalog)


def bindings(unit: Unit, body: Program) -> Bindings:
    """What the body of a turn reads: the node's inputs, what its calls gave, and what the answer rests on."""
    given = _given(unit)
    values: dict[str, Any] = {**given, **{f"s{number}": value for number, value in enumerate(unit.found, 1)}}
    if kits.RESULTS in body.inputs:
        values[kits.RESULTS] = _results(unit, given)
    acceptance = unit.node.acceptance
    if kits.AGAINST in body.inputs and acceptance is not None and acceptance.against is not None:
        values[kits.AGAINST] = acceptance.against.evaluate(unit.bindings)
    return Bindings(input={name: values[name] for name in body.inputs})


def _written(unit: Unit, text: str, steps: tuple[Step, ...], rejected: tuple[Rejection, ...], repaired: int) -> Proposal:
    """What follows from a line: its call, the question for the answer, or another question."""
    offer = _offer(unit, steps, rejected)
    line = tool_turns.next_line(text, offer, steps)
    if isinstance(line, tuple):
        return _again(unit, steps, (*rejected, *line), repaired)
    if line is None:
        return _enter(unit, _answer(unit, offer, steps), steps, rejected, repaired)
    return _enter(unit, tool_turns.step_workflow(line, offer, steps, unit.node.name), (*steps, line), rejected, repaired)


def _called(unit: Unit, outcome: Outcome, steps: tuple[Step, ...], rejected: tuple[Rejection, ...], repaired: int) -> Proposal:
    """What follows from what a call gave. One that failed by what it was given is told to the model as a line that cannot stand."""
    step = steps[-1]
    if isinstance(outcome, Value):
        return _line(unit, steps, (), repaired, (*unit.found, outcome.value))
    skill = next((one for one in _using(unit).known if one.name == step.skill), None)
    code, reason, hint = (outcome.code, outcome.reason, outcome.hint) if isinstance(outcome, Failed) else ("E010", _why(outcome), "")
    mendable = not isinstance(outcome, Failed) or (code[0] in "TML" and code not in LASTING) or code in ITS_OWN
    if skill is None or acts(skill) or not mendable:
        return Finish(unit, outcome)
    told = Rejection(code, f"/steps/{len(steps)}", f"{step} failed: {code}: {reason}", hint)
    return _again(unit, steps[:-1], (*rejected, told), repaired)


def _why(outcome: Abstained | Skipped) -> str:
    """Why a call gave nothing, as the model reads it."""
    return outcome.reason if isinstance(outcome, Skipped) else outcome.open_reason or "withheld"


def _again(unit: Unit, steps: tuple[Step, ...], rejected: tuple[Rejection, ...], repaired: int) -> Proposal:
    """The question for a line once more, as often as the card allows."""
    kit = _using(unit).kit
    if repaired < kit.repairs:
        return _line(unit, steps, rejected, repaired + 1)
    name = unit.node.contract.name if unit.node.contract is not None else unit.path
    made = "; ".join(map(str, steps)) or "no call"
    why = f"{name} came to no answer after {made}: {rejected[-1]}"
    return Finish(unit, Failed("A022", why, unit.path, "orchestra explain A022"))


def _line(
    unit: Unit, steps: tuple[Step, ...], rejected: tuple[Rejection, ...], repaired: int, found: tuple[Any, ...] | None = None
) -> Proposal:
    """The question for the next line."""
    values = unit.found if found is None else found
    offer = _offer(unit, steps, rejected, values)
    told = tool_turns.prompt(offer, steps, values, rejected, _using(unit).kit.shown)
    asked = {**told, **tool_turns.grammar(offer, steps)}
    return _enter(unit, tool_turns.question(unit.node.name, LINE, _agent(unit), offer, asked, _retry(unit)), steps, rejected, repaired)


def _answer(unit: Unit, offer: Offer, steps: tuple[Step, ...]) -> Graph:
    """The question for the answer, with the checks of the node."""
    told = tool_turns.prompt(offer, steps, unit.found, (), _using(unit).kit.shown)
    node = _retry(unit)
    values: dict[str, Schema] = {kits.RESULTS: _using(unit).kit.answer.input["properties"][kits.RESULTS]}
    if (acceptance := unit.node.acceptance) is not None and acceptance.checks:
        node |= {"checks": acceptance.checks, "accept": acceptance.accept, "otherwise": acceptance.otherwise}
        if acceptance.combination is not None:
            node["score"] = "combined"
        if acceptance.against is not None:
            values[kits.AGAINST] = acceptance.against.schema
            node["against"] = f"${{input.{kits.AGAINST}}}"
    return tool_turns.question(unit.node.name, ANSWER, _agent(unit), offer, told, node, **values)


def _enter(unit: Unit, graph: Graph, steps: tuple[Step, ...], rejected: tuple[Rejection, ...], repaired: int) -> Proposal:
    told = graph.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    refused = tuple((one.code, one.path, one.reason, one.hint) for one in rejected)
    drafted = Drafted(told, tuple(map(str, steps)), refused, repaired)
    program(unit, drafted)  # what the compiler refuses fails the node here; once it is a fact, it could only break the run
    return Enter(unit, unit.turn + 1, drafted)


def _offer(unit: Unit, steps: tuple[Step, ...], rejected: tuple[Rejection, ...], found: tuple[Any, ...] | None = None) -> Offer:
    """What may stand in the next line. Tools with effects only as long as the model has read nothing but the run's own inputs."""
    using, contract = _using(unit), unit.node.contract
    untouched = using.plain and not unit.scope.path and not steps and all(one.code.startswith("R") for one in rejected)
    skills = [one for one in using.skills if untouched or not acts(one)]
    schema: Schema = contract.input if contract is not None else {}
    given = _given(unit)
    values = {name: under(schema, one) for name, one in schema.get("properties", {}).items() if name in given}
    limits = PlanLimits(steps=using.kit.steps, width=using.kit.width)
    return tool_turns.seen(Offer.of(skills, values, limits=limits), steps, unit.found if found is None else found)


def _results(unit: Unit, given: dict[str, Any]) -> list[dict[str, str]]:
    """The texts that the answer may quote, and is judged against: those of the inputs, and of what the calls gave."""
    evidence = unit.node.contract.evidence if unit.node.contract is not None else ""
    shown = _using(unit).kit.shown
    read = sources(given.get(evidence) if evidence else list(given.values()), numbered=True)
    texts = [{"text": one.text, "source": one.name} for one in read]
    for number, value in enumerate(unit.found, 1):
        found = [{"text": one.text, "source": one.name or f"s{number}"} for one in sources(value, numbered=True)]
        texts += found or [{"text": tool_turns.told(value, shown), "source": f"s{number}"}]
    return texts


def _retry(unit: Unit) -> dict[str, Any]:
    """The retries of the node, which hold for each question to its model."""
    return {"retry": unit.node.retry.model_dump(mode="json")} if unit.node.retry is not RETRY else {}


def _given(unit: Unit) -> dict[str, Any]:
    """The inputs of the node, and of those that it leaves out the defaults."""
    left_out = unit.node.contract.defaults if unit.node.contract is not None else {}
    return left_out | (dict(unit.node.inputs.evaluate(unit.bindings)) if unit.node.inputs is not None else {})


def _asked(drafted: Drafted) -> str:
    """The one node of a turn's body."""
    return str(next(iter(drafted.graph["nodes"])))


def _agent(unit: Unit) -> str:
    return unit.node.contract.name if unit.node.contract is not None else ""


def _using(unit: Unit) -> Using:
    if unit.node.using is None:
        raise contradiction(f"{unit.path} uses no tools")
    return unit.node.using
