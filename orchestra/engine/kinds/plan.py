"""Plans: a `plan` node asks the router for its lines, turn by turn, and runs them while they are being written.

Each question is a body of its own, as the turns of loops are: `solve#3/line`. The steps stand in one scope beside it, `solve@1/s1`, which
grows by the lines that were accepted; those without effects start as soon as what they read is there, those with effects once the plan
is whole. A plan that fails is followed by another version, `solve@2`, in which the values that were finished are at hand, and nothing
runs again. What a turn asks, and what the plan's workflow is by then, stands in the journal (`TurnStarted.drafted`); so a run that is
resumed by newer code goes on with the questions and the plan that it had. A plan that has served before, and comes from the memo, is such
a fact too: whoever resumes or replays the run needs no cache. With `votes` the router makes so many plans of each version, side by
side (`voting`), and the most frequent one runs, once it has won; a run that an older engine began makes them one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from msgspec import structs

from orchestra.agents.contract import Catalog, Contract
from orchestra.core.error_codes import NO_BUDGET
from orchestra.core.errors import OrchestraError
from orchestra.core.events import Drafted, Usage
from orchestra.core.labels import meet
from orchestra.core.outcomes import Abstained, Failed, Outcome, Value
from orchestra.core.paths import first_name
from orchestra.engine.kinds.acceptance import settle
from orchestra.engine.kinds.subworkflow import inside, result
from orchestra.engine.proposals import Enter, Finish, Proposal
from orchestra.engine.state import Bindings, Phase, Scope, Unit, Writing, contradiction
from orchestra.router import plan_cache
from orchestra.router.capabilities import Offer, Skill
from orchestra.router.constants import Occurrences
from orchestra.router.grounding import grounded
from orchestra.router.multi_part import parted
from orchestra.router.plan import CONFIRM, LINE, YES, Plan, plan_of, question, rewritten, so_far, workflow
from orchestra.router.plan_syntax import Answer, Line, Step, read, steps_of
from orchestra.router.planner import Ask, Drafting, Planned, Request, Unplanned, Wanted, declined, go_on, go_on_without, shortened, start
from orchestra.router.shortlist import shortlist
from orchestra.router.validation import Rejection
from orchestra.router.voting import Vote, vote
from orchestra.schema.types import Schema, bundled
from orchestra.workflows.compile.compiler import compile_graph
from orchestra.workflows.model import REQUEST, CallNode, Graph
from orchestra.workflows.program import CompiledNode, Planning, Program, sampled

Plans: TypeAlias = tuple[tuple[str, ...], ...]
"""The lines of samples that are done."""
GOAL = REQUEST
"""The input of a plan that is the node's own goal, where `with:` has none of that name."""
TOLD = 200
"""Characters of a failure's reason that the router reads."""


@dataclass(frozen=True)
class Past:
    """What a version of a plan has from those before it."""

    types: Mapping[str, Schema] = field(default_factory=dict)
    """Of the values that they have finished, by the name under which it reads them."""
    made: tuple[tuple[str, str], ...] = ()
    """The calls that gave them, as lines of this version, each with that name."""
    failed: tuple[tuple[str, str], ...] = ()
    acted: tuple[str, ...] = ()


_FIRST = Past()


def begin(unit: Unit) -> Proposal:
    """The first question to the router, where there is one."""
    if planning_of(unit).router is None:
        hint = "an agent of that name, such as the package's `router`; or `router: NAME`"
        return Finish(unit, Failed("R007", "there is no agent that plans", unit.path, hint))
    values(unit)  # what fails in them fails the node
    return first(unit)


def first(unit: Unit, version: int = 1) -> Proposal:
    """The first question to the router; with version 0 as older engines asked it."""
    return following(unit, *start(request_of(unit, declines=version > 0)), _sampled(unit, Drafted(None, version=version)))


def emerged(unit: Unit) -> Proposal | None:
    """The router has answered, or the steps that could run have ended: the next question, another version of the plan, what the plan
    came to; or nothing for now, where one of the two is still under way."""
    writing = writing_of(unit)
    drafted, plan = writing.drafted, writing.plan
    if whole(drafted):
        outcome = _outcome(unit)
        if isinstance(outcome, Value) or not drafted.version or not _may_replan(unit, outcome):
            return settle(unit, outcome)
        return _again(unit, outcome)
    answer = result(unit.body) if unit.body is not None and not unit.body.open else None
    if answer is not None and not isinstance(answer, Value):
        return _unanswered(unit, drafted, answer)
    if plan is not None and not plan.whole and all(_may_replan(unit, outcome) for outcome in _lost(plan)):
        if not plan.open:
            return _again(unit, None)
        unit.phase = Phase.INSIDE
        return None
    if answer is None:
        unit.phase = Phase.INSIDE
        return None
    state = drafting(request_of(unit, past(writing), declines=drafted.version > 0), drafted)
    return following(unit, *go_on(state, str(answer.value)), _before(drafted))


def drafting(request: Request, drafted: Drafted) -> Drafting:
    """Where the router's machine stands, as a turn of the plan tells it."""
    rejected = tuple(Rejection(*one) for one in drafted.rejected)
    return Drafting(request, steps_of(drafted.lines), rejected, drafted.repaired, drafted.larger)


def is_question(unit: Unit) -> bool:
    """Whether a unit in a plan's node asks the router for a line, and is no step of the plan."""
    return unit.node.name == LINE


def older(unit: Unit) -> None:
    """From here on the router's machine bounds no effects: engines before L123, and before decision 056, did not."""
    writing = writing_of(unit)
    before, declines = past(writing), writing.drafted.version > 0
    request = request_of(unit, before, declines=declines)
    unit.request = (before, declines), replace(request, offer=unbounded(request.offer))
    for sample in writing.samples.values():
        sample.ended = None


def unbounded(offer: Offer) -> Offer:
    """The offer of an engine that bounded no effects."""
    return replace(offer, skills={name: replace(one, acts=False) for name, one in offer.skills.items()})


def _before(drafted: Drafted) -> Drafted:
    return Drafted(None, drafted.lines, version=drafted.version, plans=drafted.plans)


def _unanswered(unit: Unit, drafted: Drafted, failure: Outcome) -> Proposal:
    """A question whose answer could not be read is asked again, or of the larger planner. Any other that came to no answer ends the node;
    of several samples it ends only its own, which has no plan and counts all the same; where none has one, the failure is what is told."""
    poor = isinstance(failure, Failed) and failure.code == NO_BUDGET
    state = drafting(request_of(unit, past(writing_of(unit)), declines=drafted.version > 0), drafted)
    if (other := without(state, failure)) is not None:
        return following(unit, *other, _before(drafted))
    if not drafted.sample or poor:
        return Finish(unit, failure)
    proposal = following(unit, state, Unplanned(()), _before(drafted))
    return Finish(unit, failure) if isinstance(proposal, Finish) else proposal


def without(state: Drafting, failure: Outcome) -> tuple[Drafting, Wanted] | None:
    """How the router's machine goes on where a question came to this; None where it does not."""
    return go_on_without(state, failure.code, failure.reason) if isinstance(failure, Failed) else None


def program(unit: Unit, graph: Any, sample: int = 0) -> Program:
    """A question to the router, or the plan, as it was told. The answer to a question is this `sample` of several, or the only one."""
    planning = planning_of(unit)
    known = (*planning.known, *planning.skills, *planning.judges)
    agents = {one.name: one for one in known if one.kind == "agent"}
    tools = {one.name: one for one in known if one.kind == "tool"}
    for planner in (planning.router, planning.larger):
        if planner is not None:
            agents.setdefault(planner.name, planner)
    catalog = Catalog(agents, tools, models=planning.models, stored=True)
    return sampled(compile_graph(Graph.model_validate(graph, strict=False), catalog, called=planning.workflows), sample)


def bindings(unit: Unit, body: Program) -> Bindings:
    """What a question or a plan reads: the values of the node and of earlier versions, as far as it wants them."""
    given = values(unit)
    if unit.writing is not None:
        given |= {name: value for name, (value, _) in unit.writing.carried.items()}
    return Bindings(input={name: given[name] for name in body.inputs})


def values(unit: Unit) -> dict[str, Any]:
    """The values that a plan may read."""
    planning = planning_of(unit)
    given = {name: value.evaluate(unit.bindings) for name, value in planning.values.items()}
    return {GOAL: planning.goal.evaluate(unit.bindings), **given}


def whole(drafted: Drafted) -> bool:
    """Whether a plan has its answer."""
    return bool(drafted.lines) and isinstance(read(drafted.lines[-1]), Answer)


def carry(writing: Writing, drafted: Drafted) -> None:
    """Another version begins: it has what the one before has finished."""
    had = finished(writing)
    for name, step in drafted.carried.items():
        writing.carried[name] = had[step]
    writing.made += _made(writing.drafted, drafted.carried)
    writing.plan, writing.spare, writing.failed, writing.acted = None, {}, drafted.failed, drafted.acted


def finished(writing: Writing) -> dict[str, tuple[Any, Schema]]:
    """The values, with their types, that the steps of a plan have by now, those that its answer does not rest on among them."""
    plan, found = writing.plan, dict(writing.spare)
    for node, outcome in zip(plan.program.nodes, plan.outcomes, strict=True) if plan is not None else ():
        if isinstance(outcome, Value):
            kind = node.output if node.each is None else bundled({"type": "array", "items": node.output})
            found[node.name] = outcome.value, kind
    return found


def _made(before: Drafted, carried: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The calls of a version whose values are carried into the next one, as lines of that, with the names of their values."""
    named = {step: name for name, step in carried.items()}
    return tuple((str(rewritten(step, named)), named[step.name]) for step in steps_of(before.lines) if step.name in named)


def request_of(unit: Unit, past: Past = _FIRST, *, declines: bool = True) -> Request:
    """What the router is asked for; where nothing is said of the past, in the first version of the plan. Engines that knew no versions did
    not let it decline."""
    version = (past, declines)
    if unit.request is None or unit.request[0] != version:
        unit.request = version, within(asked(unit.node, goal_of(unit), past, declines=declines), unit.node, lambda: values(unit))
    found: Request = unit.request[1]
    return found


def asked(node: CompiledNode, goal: str, past: Past = _FIRST, *, declines: bool = True) -> Request:
    """What the router is asked for, at a node with this goal."""
    planning, offer = stated(node), offered(node, goal, past, declines=declines)
    if planning.shortlist is not None:
        offer = shortlist(offer, goal, planning.shortlist)
    larger = planning.larger is not None
    return Request(goal, offer, planning.repairs, planning.stepwise, past.failed, past.made, larger, planning.room)


def within(request: Request, node: CompiledNode, given: Callable[[], Mapping[str, Any]]) -> Request:
    """A request whose plan keeps within the calls that the budget has, one of them for a question, over the values that are given."""
    calls = stated(node).calls
    if calls is None:
        return request
    return replace(request, offer=request.offer.within(max(0, calls - 1), given()))


def offer_of(unit: Unit) -> Offer:
    """All that the first version of a plan may be made of."""
    return within(Request("", offered(unit.node, goal_of(unit))), unit.node, lambda: values(unit)).offer


def offered(node: CompiledNode, goal: str, past: Past = _FIRST, *, declines: bool = True) -> Offer:
    """All that a plan may be made of, before a shortlist is drawn up."""
    planning = stated(node)
    known = {GOAL: planning.goal.schema, **{name: value.schema for name, value in planning.values.items()}, **past.types}
    workflows = [replace(Skill.of_workflow(called.program), name=name) for name, called in planning.workflows.items()]
    listed: tuple[Skill | Contract, ...] = (*workflows, *planning.skills)
    barred = _barred(planning)
    skills = [one for one in listed if one.name not in past.acted and one.name not in barred]
    words, whole = (shortened(goal) if wanted else "" for wanted in (planning.copied, planning.each_part))
    offer = Offer.of(skills, known, node.output, limits=planning.limits, words=words, declines=declines and not planning.anyway)
    said = None if planning.literals else Occurrences(shortened(goal))
    offer = replace(offer, derived=frozenset((*past.types, *planning.hearsay)), occurrences=said, confirm=planning.confirm, left_out=barred)
    return parted(grounded(offer, planning.grounds), whole) if past == _FIRST else offer  # another version goes another way


def _barred(planning: Planning) -> dict[str, tuple[str, str]]:
    """Skills that must not see the run's data: agents, tools, and workflows that surely call one."""
    if not planning.barred and not planning.barred_tools:
        return {}
    asked = {one.name: [planning.ceiling(one.kind, one.name)] for one in planning.skills}
    for name, called in planning.workflows.items():
        asked[name] = [planning.ceiling("agent", agent) for agent, _ in called.program.asked]
        asked[name] += [planning.ceiling("tool", tool.name) for tool in called.program.sure_tools]
    found = {name: [label for label in labels if label is not None] for name, labels in asked.items()}
    said = "must not see these data: what it asks is cleared for"
    return {name: ("R021", f"{said} {meet(labels)}") for name, labels in found.items() if labels}


def shape(node: CompiledNode, goal: str, label: str) -> str:
    """What a plan may be made of and by whom, as the cache tells it."""
    planning, offer = stated(node), offered(node, goal)
    planners = [one.sealed().digest for one in (planning.router, planning.larger) if one is not None]
    if GOAL not in planning.values:  # a goal that stands in the workflow has itself for its type, and is a matter of the intent
        offer = replace(offer, values={**offer.values, GOAL: {"type": "string"}})
    return plan_cache.shape(offer, "/".join(planners), label, str(planning.votes))


def goal_of(unit: Unit) -> str:
    """What a plan node is to achieve, in words."""
    return str(planning_of(unit).goal.evaluate(unit.bindings))


def past(writing: Writing) -> Past:
    """What the version that is under way has from those before it."""
    return Past({name: kind for name, (_, kind) in writing.carried.items()}, writing.made, writing.failed, writing.acted)


def _sampled(unit: Unit, first: Drafted) -> Drafted:
    """The beginning of a version: of the first of several samples, where the node votes."""
    return structs.replace(first, sample=1, beside=True) if first.version and planning_of(unit).votes > 1 else first


def following(unit: Unit, drafting: Drafting, wanted: Wanted, before: Drafted, won: Vote | None = None) -> Proposal:
    """What the router's machine wants, as the fact that it will be. `before` has the lines that stood, which version this is, and of
    several samples which one, or those that were done; of a plan that has `won` these are all."""
    offer, planning = drafting.request.offer, planning_of(unit)
    plans, sample = before.plans, 0
    plan: Graph | None = None
    if planning.votes > 1 and not isinstance(wanted, Ask) and not before.beside:
        plans = (*plans, sample_of(wanted))
        if len(plans) < planning.votes:
            return following(unit, *start(drafting.request), structs.replace(before, lines=(), plans=plans))
        drafting, wanted, won = elected(drafting, wanted, plans)
    match wanted:
        case Ask():
            router = planning.larger if wanted.larger else planning.router
            graph = question(router.name if router is not None else "", wanted.inputs)
            lines: tuple[Line, ...] = drafting.steps
            sample = before.sample if before.beside else len(plans) + 1 if planning.votes > 1 else 0
            # Of samples that are under way nobody knows which one will be the plan.
            if before.version and planning.streaming and not sample and len(lines) > len(before.lines):
                plan = so_far(drafting.steps, offer, unit.node.name)
        case Planned(found):
            graph = workflow(found, offer, unit.node.name)
            lines = (*found.steps, found.answer)
        case Unplanned(rejections):
            return Finish(unit, _unplanned(unit, drafting.request, rejections))
    rejected = tuple((one.code, one.path, one.reason, one.hint) for one in drafting.rejected)
    told = _told(graph)
    drafted = Drafted(
        graph=told,
        lines=tuple(map(str, lines)),
        rejected=rejected,
        repaired=drafting.repaired,
        version=before.version,
        plan=None if plan is None else _told(plan),
        failed=before.failed,
        carried=before.carried,
        acted=before.acted,
        larger=drafting.larger,
        sample=sample,
        beside=before.beside,
        plans=plans,
        agreement=None if won is None else won.agreement,
    )
    # What the compiler refuses fails the node here; once it is a fact, it could only break the run.
    if isinstance(wanted, Planned):
        program(unit, told)
    elif plan is not None:
        program(unit, drafted.plan)
    return Enter(unit, unit.turn + 1, drafted)


def _told(graph: Graph) -> Any:
    return graph.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def recalled(unit: Unit, plan: Plan, offer: Offer, run: str, saved: Usage, agreement: float | None) -> Proposal:
    """A plan that has served before, in a run that is named: the first version, whole from the beginning."""
    told = _told(workflow(plan, offer, unit.node.name))
    program(unit, told)
    lines = tuple(map(str, (*plan.steps, plan.answer)))
    return Enter(unit, unit.turn + 1, Drafted(told, lines, version=1, agreement=agreement, recalled=run, saved=saved))


def elected(drafting: Drafting, wanted: Planned | Unplanned, plans: Plans) -> tuple[Drafting, Planned | Unplanned, Vote | None]:
    """What most samples agree on; what the last one came to, where none came to a plan. `return nothing` is a plan here too."""
    made = [plan_of([read(line) for line in lines]) for lines in plans]
    won = vote(made)
    chosen = None if won is None else made[won.chosen]
    if chosen is None:
        return drafting, wanted, None
    fresh = Drafting(drafting.request)
    if chosen.answer.values:
        return fresh, Planned(chosen), won
    told = isinstance(wanted, Unplanned) and wanted.declined  # which may say of what part
    return fresh, wanted if told else declined(drafting.request), won


def sample_of(wanted: Planned | Unplanned) -> tuple[str, ...]:
    """The lines of a sample; none where it came to no plan."""
    if isinstance(wanted, Planned):
        return tuple(map(str, (*wanted.plan.steps, wanted.plan.answer)))
    return (str(Answer(())),) if wanted.declined else ()


def _unplanned(unit: Unit, request: Request, rejections: tuple[Rejection, ...]) -> Failed:
    why = "; ".join(map(str, rejections)) or "it wrote nothing"
    if not request.failed:
        return Failed("R007", f"the router gave no plan: {why}", unit.path, "orchestra explain R007")
    line, reason = request.failed[-1]
    return Failed("R008", f"{line} failed ({reason}), and the router found no other way: {why}", unit.path, "orchestra explain R008")


# Replanning


def _may_replan(unit: Unit, outcome: Outcome) -> bool:
    """Whether another plan may follow one that came to this. None follows one whose calls with effects a person did not confirm."""
    poor = isinstance(outcome, Failed) and outcome.code == NO_BUDGET
    return not poor and not unconfirmed(writing_of(unit).plan) and writing_of(unit).drafted.version <= planning_of(unit).replans


def _again(unit: Unit, outcome: Outcome | None) -> Proposal:
    """The first question of the next version. The values that this one has finished become inputs of the next, under the names of their
    steps where these are free; `outcome` is what the plan came to, where it was whole."""
    writing = writing_of(unit)
    plan, version = writing.plan, writing.drafted.version + 1
    if plan is None:
        raise contradiction(f"{unit.path} has no plan")
    known = {GOAL, *planning_of(unit).values, *writing.carried}
    carried: dict[str, str] = {}
    had = finished(writing)
    for step in (line.name for line in steps_of(writing.drafted.lines) if line.name in had):
        name = step
        while name in known:
            name = f"{name}_{version - 1}"
        carried[name] = step
        known.add(name)
    named = {step: name for name, step in carried.items()}
    # The words of a failure may be those of a document or a model. Whoever may plan effects reads its code alone (DESIGN §11).
    planning = planning_of(unit)
    words = all(one.effect == "pure" for one in planning.skills) and not any(one.acts for one in planning.workflows.values())
    failed = [(str(rewritten(line, named)), _said(ended, words=words)) for line, ended in _failures(writing.drafted, plan)]
    if not failed and outcome is not None:
        failed = [(str(rewritten(read(writing.drafted.lines[-1]), named)), _said(outcome, words=words))]
    acted = {_skill(node) for node in plan.program.nodes if node.acts and _was_called(plan, node.index)}
    before = past(writing)
    after = Past(
        {**before.types, **{name: had[step][1] for name, step in carried.items()}},
        (*before.made, *_made(writing.drafted, carried)),
        (*before.failed, *failed),
        tuple(sorted({*before.acted, *acted})),
    )
    first = Drafted(None, version=version, failed=after.failed, carried=carried, acted=after.acted)
    return following(unit, *start(request_of(unit, after)), _sampled(unit, first))


def unconfirmed(plan: Scope | None) -> bool:
    """Whether a person was asked before the calls with effects of a plan, and did not say yes."""
    asked = {} if plan is None else {node.name: outcome for node, outcome in zip(plan.program.nodes, plan.outcomes, strict=True)}
    said = asked.get(CONFIRM)
    return said is not None and not (isinstance(said, Value) and said.value == YES)


def _skill(node: CompiledNode) -> str:
    """What a step calls: an agent, a tool or a workflow."""
    if node.contract is not None:
        return node.contract.name
    return node.source.call if isinstance(node.source, CallNode) and isinstance(node.source.call, str) else ""


def _failures(drafted: Drafted, plan: Scope) -> Iterator[tuple[Step, Outcome]]:
    """The steps that failed by themselves, and not by what they read."""
    ended = {node.name: outcome for node, outcome in zip(plan.program.nodes, plan.outcomes, strict=True)}
    for step in steps_of(drafted.lines):
        outcome = ended.get(step.name)
        if outcome is not None and not isinstance(outcome, Value) and _begun_by(plan, outcome) == step.name:
            yield step, outcome


def _was_called(plan: Scope, index: int) -> bool:
    """Whether a step may have been called: its outcome is its own."""
    outcome = plan.outcomes[index]
    return isinstance(outcome, Value) or (outcome is not None and _begun_by(plan, outcome) == plan.program.nodes[index].name)


def _begun_by(plan: Scope, outcome: Outcome) -> str:
    """The step of a plan in which a failure, or an abstention, began."""
    return "" if isinstance(outcome, Value) else first_name(outcome.by.removeprefix(plan.path))


def _said(outcome: Outcome, *, words: bool) -> str:
    """Why a step failed, as the router reads it: with the words of the failure, or without."""
    if isinstance(outcome, Value):
        return ""
    what = outcome.code if isinstance(outcome, Failed) else "withheld" if isinstance(outcome, Abstained) else "skipped"
    why = outcome.open_reason if isinstance(outcome, Abstained) else outcome.reason
    said = f"{what}: {' '.join(why.split())}" if words and why else what
    return said if len(said) <= TOLD else said[: TOLD - 1] + "…"


def _lost(plan: Scope) -> list[Outcome]:
    return [outcome for outcome in plan.outcomes if outcome is not None and not isinstance(outcome, Value)]


# Small things


def _outcome(unit: Unit) -> Outcome:
    """What a plan came to."""
    try:
        return result(inside(unit))
    except OrchestraError as error:  # of these values, such as the first element of a list that is empty
        return Failed(error.code, error.message, unit.path, error.hint)


def writing_of(unit: Unit) -> Writing:
    """The plan that is under way; raises `OrchestraError` E002 where there is none."""
    if unit.writing is None:
        raise contradiction(f"{unit.path} has no plan")
    return unit.writing


def planning_of(unit: Unit) -> Planning:
    """What the node says of its plan; raises `OrchestraError` E002 where it plans nothing."""
    return stated(unit.node)


def stated(node: CompiledNode) -> Planning:
    """What a node says of its plan; raises `OrchestraError` E002 where it plans nothing."""
    if node.planning is None:
        raise contradiction(f"{node.name} plans nothing")
    return node.planning
