"""Planning: a request as a workflow of one `plan` node, for `orchestra ask` and `orchestra plan`.

The router (`orchestra.router`) is pure. In a run, the engine puts its questions to the router's agent and runs steps of
the plan while it is written (`orchestra.engine.kinds.plan`); `plan_result` reads the plan from the run's events. A run
of `plan` ends when the plan is accepted, and runs no step.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestra.agents.card import Card
from orchestra.agents.card_file import KINDS_WITH_ARRAYS
from orchestra.agents.registry import builtin_folder
from orchestra.app.open_orchestra import OpenOrchestra
from orchestra.app.snapshot_store import apply_run_options, stored_graph
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.events import (
    NO_USAGE,
    AttemptFinished,
    Event,
    NodeFinished,
    PlanDraft,
    RunStarted,
    TurnStarted,
    Usage,
)
from orchestra.core.outcomes import FailedOutcome
from orchestra.engine.kinds import plan as plan_module
from orchestra.fleet.weights.encoders import missing_downloads, missing_libraries
from orchestra.fleet.weights.weights import ModelStore
from orchestra.router import plan_cache, prompt
from orchestra.router import tools as router_tools
from orchestra.router.capabilities import Capabilities, Capability, statable_types
from orchestra.router.input_types import infer_schema
from orchestra.router.multi_part import UncoveredParts, find_uncovered
from orchestra.router.plan import LINE_NODE, Plan, build_plan, declare_inputs, to_workflow
from orchestra.router.plan_syntax import PlanAnswer, PlanReference, parse_line
from orchestra.router.planner import (
    DECLINED_CODE,
    PlannerQuestion,
    PlannerState,
    PlanNotFound,
    PlanRequest,
    advance,
    declined_result,
    start,
)
from orchestra.router.rules import GENERAL_SKILLS
from orchestra.router.shortlist import MAX_SHORTLIST, PACKAGE_TOOLS
from orchestra.router.suggestions import nearest
from orchestra.router.validation import Rejection
from orchestra.router.voting import VoteResult
from orchestra.schema.types import Schema
from orchestra.tools import STEP_TOOLS
from orchestra.workflows.model import ANYTHING, ASK_WORKFLOW, PLAN_WORKFLOW, REQUEST, Graph, PlanLimits, PlanNode
from orchestra.workflows.program import CompiledNode, Program
from orchestra.workflows.python.name_resolution import ambiguous_name_error
from orchestra.workflows.python.steps import Agent, Tool, Workflow

ROUTER = "router"
PLANNERS = frozenset({ROUTER, "planner", "tool_planner"})
"""Agents and workflows that plan, and are not capabilities of a plan."""
PLANNER_TOOLS = frozenset(tool.contract.name for tool in router_tools.TOOLS)
"""Tools of the workflow `planner`; not capabilities of a plan either."""
WORKFLOW_TOOLS = frozenset(STEP_TOOLS)
"""Tools that are steps of packaged workflows; not capabilities of a plan unless named."""
ADVISORY_AGENTS = frozenset(
    {"difficulty", "passage_ranker", "passage_reader", "document_reader", "amount_reader", "text_drafter"}
)
"""Agents that rate a call, or read for a workflow, and do not answer by themselves: steps of a plan only if named."""
DEMONSTRATIONS = frozenset(
    {
        *("support_desk", "triage_message", "banking_intent", "assistant_intent"),
        *("extractor", "crf_extractor", "encoder_extractor"),
    }
)
"""Agents and workflows for one trade: a bank, a restaurant, a voice assistant. They are offered only if they are named,
or if the project has them: to every router, they attract the requests of an office.
"""
LARGER_MODELS = frozenset({"medium", "large"})
"""Names of models that not every fleet has. A packaged workflow that needs one is offered only if the fleet has it."""
_NODE_KEYS = (
    "repairs",
    "replans",
    "stepwise",
    "shortlist",
    "copied",
    "literals",
    "confirm",
    "grounded",
    "each_part",
    "rules",
    "hearsay",
    "anyway",
    "cache",
    "votes",
)
"""The plan options that are keys of a `plan` node."""
NODE = "answer"
"""The name of the node in a request workflow."""
MAX_BROADEST = 5
"""Capabilities that are listed as examples if none is near."""
_CLAUSE = re.compile("[,;:]")
NO_PLAN = "R007"
"""The error code of a node whose router returned no plan."""


@dataclass(frozen=True, slots=True)
class RecalledPlan:
    """The origin of a stored plan."""

    run: str
    """The run in which it was made or was successful."""
    request: str
    """The request of that run."""
    saved: Usage
    """The usage that making it took, and that was saved."""


@dataclass(frozen=True)
class PlanResult:
    """The result of planning: the plan, or why there is none."""

    request: str
    capabilities: Capabilities
    plan: Plan | None
    rejections: tuple[Rejection, ...] = ()
    question_count: int = 0
    """Questions to the router's agent."""
    repairs: int = 0
    usage: Usage = NO_USAGE
    """The usage of the router's agent."""
    recalled: RecalledPlan | None = None
    """The origin of a plan from the cache."""
    remarks: tuple[str, ...] = ()
    """Warnings, such as a stored plan that was ignored, with its code."""
    vote: VoteResult | None = None
    """The vote, if there was one."""
    version: int = 1
    """The version of the plan in its run, from 1: a version follows a failed one."""
    rule: str = ""
    """The rule that made the plan; empty for a plan of the router."""
    recorded_graph: Any = None
    """The plan as a workflow, as recorded in the journal."""

    @property
    def declined(self) -> bool:
        """Whether the router found that no capability serves the request."""
        return self.plan is None and any(rejection.code == DECLINED_CODE for rejection in self.rejections)

    @property
    def unserved_parts(self) -> UncoveredParts | None:
        """The parts of the request that the plan does not serve. Unknown for a version after the first."""
        return (
            find_uncovered(self.capabilities.request_parts, self.plan.steps, self.plan.answer)
            if self.plan is not None and self.version <= 1
            else None
        )

    @property
    def graph(self) -> Graph:
        """The plan as a workflow. Raises `InputError` R007 if there is no plan."""
        if self.plan is None:
            reason = "; ".join(map(str, self.rejections)) or "it wrote nothing"
            raise InputError(NO_PLAN, f"the router gave no plan: {reason}", hint=f"orchestra explain {NO_PLAN}")
        if self.recorded_graph is None:
            return to_workflow(self.plan, self.capabilities, PLAN_WORKFLOW, self.request[:200])
        header = {"name": PLAN_WORKFLOW, "description": self.request[:200]}
        return Graph.model_validate({**self.recorded_graph, **header}, strict=False)


@dataclass(frozen=True)
class PlanOptions:
    """How to plan: the keys of a `plan` node."""

    only: tuple[str, ...] = ()
    """Agents, tools and workflows that the plan may use; empty for all without effects."""
    returns: Schema = field(default_factory=dict)
    router: str | Agent[..., Any] = ROUTER
    """The agent that plans, or its name."""
    limits: PlanLimits = field(default_factory=lambda: PlanLimits(steps=8, width=16))
    repairs: int = 2
    replans: int = 0
    """How many plans may follow a failed one."""
    stepwise: bool = True
    shortlist: int = MAX_SHORTLIST
    """Capabilities in the router's prompt at most."""
    copied: bool = True
    """Whether texts in a plan must be copied from the request."""
    literals: bool = False
    """Whether calls with effects may have texts and numbers that are not in the request."""
    confirm: bool = True
    """Whether a person is asked before a plan makes calls with effects."""
    grounded: bool = True
    """Whether the first step of a plan must read one of the given values, if a capability can."""
    each_part: bool = True
    """Whether each part of a request should have a step."""
    rules: bool = True
    """Whether a request of a known kind is planned by rule, without the router (`orchestra.router.rules`)."""
    hearsay: tuple[str, ...] = ()
    """Values that may be another person's words, such as the content of a file: they must not be arguments of tools
    with effects.
    """
    anyway: bool = False
    """Whether a part of the request is planned if the router finds that the whole cannot be served."""
    cache: bool = True
    """Whether stored plans may be used, and a successful plan is stored."""
    larger: str | Agent[..., Any] | None = None
    """The agent that continues when all repairs are used, or its name."""
    votes: int = 1
    """Plans that are sampled at a temperature above 0; the most frequent one wins."""


_VALUE_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


def request_workflow(
    orchestra: OpenOrchestra,
    request: str,
    values: Mapping[str, Any],
    options: PlanOptions | None = None,
    record: Mapping[str, Any] | None = None,
) -> Workflow[..., Any]:
    """Returns a request as a workflow of one `plan` node. Its inputs are the request and the given values.

        run = await orchestra.start(request_workflow(orchestra, request, values), request=request, **values)

    The workflow is the same for all requests over values of the same types.

    Args:
        orchestra: Knows the capabilities.
        request: The request.
        values: The values that a plan may read.
        options: How to plan.
        record: Further inputs, which are recorded with the run and which no plan reads.

    Raises:
        InputError: C004: an unknown capability or router; R022: the request is empty; E012: a value has a name that no
            input may have.
    """
    options, request = options or PlanOptions(), require_request(request)
    for name in values:
        if not _VALUE_NAME.fullmatch(name):
            hint = "a small letter, then small letters, digits and _"
            raise InputError("E012", f"{name[:50]!r} cannot be the name of a value", hint=hint)
    inputs, types = declare_inputs(
        {name: infer_schema(value) for name, value in {REQUEST: request, **values, **(record or {})}.items()}
    )
    returns: dict[str, Any] = {"returns": ANYTHING}
    if options.returns:
        return_inputs, extra_inputs = declare_inputs({"returned": options.returns})
        returns, types = {"returns": return_inputs["returned"]["type"]}, {**types, **extra_inputs}
    by_rule = options.rules and options.router == ROUTER and options.votes == 1 and not options.returns
    general_skills = GENERAL_SKILLS if options.router == ROUTER and not by_rule else frozenset[str]()
    node = {
        "plan": f"${{input.{REQUEST}}}",
        "with": {name: f"${{input.{name}}}" for name in values},
        **_capability_names(
            orchestra, options.only or [name for name in _effect_free(orchestra) if name not in general_skills]
        ),
        **returns,
        "limits": options.limits,
        "router": _planner_name(orchestra, options.router),
        **({} if options.larger is None else {"larger": _planner_name(orchestra, options.larger)}),
        **{key: getattr(options, key) for key in _NODE_KEYS},
        "rules": by_rule,
    }
    description = (
        "A request in a person's words: the router plans which agents and tools to use, and the plan runs meanwhile."
    )
    graph = {
        "schema": "orchestra/v1",
        "name": ASK_WORKFLOW,
        "description": description,
        "input": inputs,
        "types": types,
        "nodes": {NODE: node},
    }
    return Workflow.from_graph(Graph.model_validate({**graph, "output": f"${{{NODE}}}"}, strict=False))


def require_request(request: str) -> str:
    """Returns the request. Raises `InputError` R022 if it is empty."""
    if not request.strip():
        raise InputError("R022", "the request is empty", hint='orchestra ask "What is wanted?"')
    return request


def _planner_name(orchestra: OpenOrchestra, router: str | Agent[..., Any]) -> str:
    """Returns the name of a planning agent; registers one that is declared in Python.

    Raises:
        InputError: C004: there is no such agent; W021: its name now means another agent.
    """
    if not isinstance(router, str):
        orchestra.program(router)
        if router.card is not None and orchestra.registry.card(router.name).digest != router.card.digest:
            raise ambiguous_name_error(router)
        return router.name
    if router not in orchestra.registry.agents:
        step = orchestra.find(router)
        raise InputError(
            "C004", f"{step.name} is no agent, and cannot plan", hint="orchestra agents list  tells what there is"
        )
    return router


def _capability_names(orchestra: OpenOrchestra, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Returns capabilities by the key of the node that lists them. Raises `InputError` C004 for an unknown name."""
    places: dict[str, dict[str, None]] = {"workflows": {}, "agents": {}, "tools": {}}
    for name in names:
        step = orchestra.find(name)
        key = "workflows" if isinstance(step, Workflow) else "tools" if isinstance(step, Tool) else "agents"
        places[key][name] = None
    return {key: tuple(names) for key, names in places.items()}


def _effect_free(orchestra: OpenOrchestra) -> Iterable[str]:
    """Yields the names of everything without effects. Workflows come first: one that a user composed and named fits
    better than its parts. Of each kind, those of the project come first, since a shortlist prefers them if the words of
    a request do not decide.

    Left out are agents whose calls carry an output grammar (they are routers), agents that rate calls, and members of
    an available ensemble.
    """
    registry = orchestra.registry
    cards = {
        name: card
        for name, card in registry.cards.items()
        if name not in PLANNERS | ADVISORY_AGENTS
        and card.grammar is None
        and (name not in DEMONSTRATIONS or _is_of_project(orchestra, "agents", name))
    }
    fetches, models = not orchestra.settings.endpoint, _model_names(orchestra)
    offered_cards = {
        name: card for name, card in cards.items() if card.is_trained and _is_available(card, may_fetch=fetches)
    }
    members = {part.digest for card in offered_cards.values() for part in card.member_cards}
    for name in orchestra.workflows():
        if name in DEMONSTRATIONS and not _is_of_project(orchestra, "workflows", name):
            continue
        if name not in PLANNERS and (program := _effect_free_program(orchestra, name)) is not None:
            required_cards = [registry.cards[agent] for agent, _ in program.possible_agents if agent in registry.cards]
            if not all(_has_model(card, models) for card in required_cards):
                continue
            if fetches or all(_is_available(card, may_fetch=False) for card in required_cards):
                yield name
    yield from (name for name, card in offered_cards.items() if card.digest not in members)
    tools = [
        name
        for name in registry.tools
        if name not in PLANNER_TOOLS | WORKFLOW_TOOLS and registry.tools[name].contract.effect == "pure"
    ]
    yield from sorted(tools, key=lambda name: name in PACKAGE_TOOLS)


def _has_model(card: Card, models: Collection[str]) -> bool:
    """Whether the fleet has the model of an agent, if that is a larger one."""
    return card.kind != "model" or card.model not in LARGER_MODELS or card.model in models


def _model_names(orchestra: OpenOrchestra) -> Collection[str]:
    """Returns the names of models in the fleet file, without its default for other names; none if it is invalid."""
    from orchestra.fleet.config import configured_fleet  # only planning needs it

    try:
        return configured_fleet(orchestra.settings).models
    except InputError:
        return ()


def _is_of_project(orchestra: OpenOrchestra, kind: str, name: str) -> bool:
    """Whether the project has a file of this name, and not only the package."""
    paths = orchestra.settings.own_resources(kind)  # type: ignore[arg-type]
    return any(name == (path.stem if path.is_file() else path.name) for path in paths)


def _is_available(card: Card, *, may_fetch: bool) -> bool:
    """Whether this installation can run an agent: encoders need optional libraries, and arrays must be installed.

    Args:
        card: The agent.
        may_fetch: Whether encoders may be fetched for it. With an endpoint nothing is fetched for a plan; the adapter
            of a model is not needed there.
    """
    parts = (card, *card.member_cards)
    if any(part.kind == "encoder" for part in card.member_cards) and missing_libraries():
        return False
    if any(part.missing_weights for part in parts if may_fetch or part.kind in KINDS_WITH_ARRAYS):
        return False
    return may_fetch or not missing_downloads(card, ModelStore.from_environment()).encoders


def _effect_free_program(orchestra: OpenOrchestra, name: str) -> Program | None:
    """Returns a compiled workflow; None if it may have an effect, may ask a person, or does not compile."""
    try:
        program = orchestra.program(orchestra.find(name))
    except InputError:
        return None  # `orchestra validate` reports the error.
    return None if any(node.has_effects for node in program.nodes) else program


async def recorded_request(orchestra: OpenOrchestra, started: RunStarted) -> Workflow[..., Any] | None:
    """Returns the request workflow of a run, with what its node names today; None for another workflow. Raises
    `OrchestraError` E019.
    """
    if started.workflow not in (ASK_WORKFLOW, PLAN_WORKFLOW):
        return None
    graph = await stored_graph(orchestra.journal, started)
    return Workflow.from_graph(graph) if isinstance(graph.nodes.get(NODE), PlanNode) and len(graph.nodes) == 1 else None


def plan_node(orchestra: OpenOrchestra, asked: Workflow[..., Any]) -> CompiledNode:
    """Returns the `plan` node of a request workflow."""
    return orchestra.program(asked).nodes[0]


async def plan_result(
    orchestra: OpenOrchestra, asked: Workflow[..., Any], request: str, events: Sequence[Event]
) -> PlanResult:
    """Returns the plan result of a run of a request workflow, from its events so far."""
    start_event = next((event for event in events if isinstance(event, RunStarted)), None)
    node = _run_node(orchestra, asked, start_event)
    inputs = start_event.inputs if start_event is not None else {}
    plan_request, votes = (
        plan_module.limit_calls(plan_module.build_request(node, request), node, lambda: inputs),
        plan_module.require_node_plan_settings(node).votes,
    )
    turns = [
        (event.turn, event.draft)
        for event in events
        if isinstance(event, TurnStarted) and event.node == NODE and event.draft
    ]
    drafts = [turn_draft for _, turn_draft in turns]
    questions = sum(not plan_module.is_complete(turn_draft) for turn_draft in drafts)
    remarks = tuple(turn_draft.warning for turn_draft in drafts if turn_draft.warning)
    last = drafts[-1] if drafts else PlanDraft(None, version=1)
    calls = (
        event.usage for event in events if isinstance(event, AttemptFinished) and event.node.startswith(f"{NODE}#")
    )
    draft = PlanResult(
        request,
        plan_request.capabilities,
        None,
        (),
        questions,
        last.repaired_lines,
        sum(calls, NO_USAGE),
        remarks=remarks,
        version=last.version,
        rule=last.rule,
    )
    if plan_module.is_complete(last):
        sample_count = len(last.sampled_plans) or votes
        vote_result = (
            None if last.agreement is None else VoteResult(0, round(last.agreement * sample_count), sample_count)
        )
        recalled_plan = await _recalled_from(orchestra, last) if last.reused_from else None
        built_plan = build_plan([parse_line(line) for line in last.lines])
        return replace(draft, plan=built_plan, recalled=recalled_plan, vote=vote_result, recorded_graph=last.graph)
    outcome = next((event.outcome for event in events if isinstance(event, NodeFinished) and event.node == NODE), None)
    if not isinstance(outcome, FailedOutcome) or outcome.code != NO_PLAN:
        return draft
    not_found, vote_result = _unplanned_reason(plan_request, turns, votes, events)
    return replace(draft, rejections=_rejections_with_hint(orchestra, node, plan_request, not_found), vote=vote_result)


def _run_node(orchestra: OpenOrchestra, workflow: Workflow[..., Any], start_event: RunStarted | None) -> CompiledNode:
    """Returns the `plan` node of a request workflow, with the options of its run."""
    program = orchestra.program(workflow)
    body = program.nodes[0].body  # with the option `accept`, the workflow is judged as one node
    program = program if body is None else body
    return (program if start_event is None else apply_run_options(program, start_event)).nodes[0]


async def _recalled_from(orchestra: OpenOrchestra, draft: PlanDraft) -> RecalledPlan:
    """Returns the origin of a plan from the memo."""
    start_event = next(iter(await orchestra.journal.read(draft.reused_from)), None)
    original_request = (
        start_event.inputs.get(REQUEST, "")
        if isinstance(start_event, RunStarted) and isinstance(start_event.inputs, Mapping)
        else ""
    )
    return RecalledPlan(draft.reused_from, str(original_request), draft.saved_usage)


def _unplanned_reason(
    request: PlanRequest, turns: Sequence[tuple[int, PlanDraft]], votes: int, events: Sequence[Event]
) -> tuple[PlanNotFound, VoteResult | None]:
    """Returns why a run has no plan: what the router's state machine makes of the last answer of each sample, or of the
    request.
    """
    if not turns:
        _, result = start(request)
        # Without a question to the router, a rule found that no capability serves the request.
        return (result if isinstance(result, PlanNotFound) else declined_result(request)), None
    replies = {event.node: event.value for event in events if isinstance(event, AttemptFinished) and not event.error}
    latest = turns[-1][1]
    # The turn of the last sequential sample contains the plans of those before it.
    last = (
        {draft.sample: (turn, draft) for turn, draft in turns if draft.version == latest.version}
        if latest.parallel
        else {0: turns[-1]}
    )
    plans, vote_result = latest.sampled_plans, None
    state, result, is_answered = PlannerState(request), PlanNotFound(()), False
    for _, (turn, draft) in sorted(last.items()):
        before = plan_module.planner_state(request, draft)
        reply = replies.get(f"{NODE}#{turn}/{LINE_NODE}")
        after, next_result = (before, PlanNotFound(())) if reply is None else advance(before, str(reply))
        if isinstance(next_result, PlannerQuestion):
            return PlanNotFound(()), None
        plans = (*plans, plan_module.sample_lines(next_result))
        if reply is not None or not is_answered:
            state, result, is_answered = after, next_result, reply is not None
    if votes > 1:
        state, result, vote_result = plan_module.elect_plan(state, result, plans)
    return (result if isinstance(result, PlanNotFound) else PlanNotFound(())), vote_result


async def plan(
    orchestra: OpenOrchestra, request: str, values: Mapping[str, Any], options: PlanOptions | None = None
) -> PlanResult:
    """Plans a request over the given values, in a run that ends when the plan is accepted (`Orchestra.plan`).

    Raises:
        InputError: C004: an unknown capability or router; R022: the request is empty.
        OrchestraError: The call of the router's agent failed.
    """
    step = request_workflow(orchestra, request, values, options)
    run = await orchestra.plan(step, **{REQUEST: request, **values})
    try:
        result = await run.wait()
    except (asyncio.CancelledError, OrchestraError) as error:
        raise run.abandon(error, has_key=orchestra.has_key)  # noqa: B904 - it has its cause
    draft = await plan_result(orchestra, step, request, result.events)
    if draft.plan is None and not draft.rejections and result.error is not None:
        raise result.error
    return draft


def keep_plan(orchestra: OpenOrchestra, asked: Workflow[..., Any], draft: PlanResult, events: Sequence[Event]) -> None:
    """Stores a plan for later requests, because it was saved; not one from the cache, or without the option `cache`.

    It is on disk with the journal's next commit, and deleted with its run.
    """
    start_event = next((event for event in events if isinstance(event, RunStarted)), None)
    if start_event is None or draft.plan is None or draft.recalled is not None:
        return
    node = _run_node(orchestra, asked, start_event)
    if not plan_module.require_node_plan_settings(node).cache:
        return
    shape = plan_module.cache_shape(node, draft.request, start_event.label)
    cached_entry = plan_cache.build_entry(draft.plan, draft.request, shape, draft.usage, draft.vote)
    for key in plan_cache.cache_keys(draft.request, shape):
        orchestra.journal.put_memo(key, start_event.run, cached_entry)


def _rejections_with_hint(
    orchestra: OpenOrchestra, node: CompiledNode, request: PlanRequest, not_found: PlanNotFound
) -> tuple[Rejection, ...]:
    """Returns why there is no plan; if the router declined, with the nearest capability."""
    if not not_found.is_declined:
        return not_found.rejections
    uncovered_parts = find_uncovered(
        request.capabilities.request_parts,
        not_found.steps,
        PlanAnswer(tuple(PlanReference(step.name) for step in not_found.steps)),
    )
    text = " ".join(uncovered_parts.parts) if uncovered_parts is not None and not_found.steps else request.text
    nearest_text = _nearest(orchestra, node, plan_module.all_capabilities(node, request.text), text)
    hint = f"{nearest_text}; --partial plans what can be done"
    return tuple(replace(rejection, hint=hint) for rejection in not_found.rejections)


def _nearest(orchestra: OpenOrchestra, node: CompiledNode, offer: Capabilities, request: str) -> str:
    """Describes the capability that is nearest to the request, what it does, and which inputs are missing. It may be
    one with effects. If none is near, lists a few examples.
    """
    capabilities = [
        capability for capability in _capabilities_with_effects(orchestra) if capability.name not in offer.by_name
    ]
    best_match = nearest([*offer.by_name.values(), *capabilities], request)
    if best_match is None:
        text = "; ".join(_description(capability, briefly=True) for capability in _broadest(node, offer)) or "nothing"
        return f"nothing is near; there is {text}"
    needs = [
        f"{name}: {prompt.type_text(kind)}"
        for name, kind in best_match.fields.items()
        if name in best_match.required and not statable_types(kind)
    ]
    missing = [need for need in needs if need.partition(":")[0] not in offer.inputs]
    needs_text = f", which needs {' and '.join(missing)}" if missing else ""
    if best_match in capabilities:
        does = "may have effects or ask a person" if best_match.kind == "call" else "has effects"
        permission = f"it {does}, and is used only with --only {best_match.name}"
        return f"the nearest is {_description(best_match)}{needs_text}; {permission}"
    return f"the nearest is {_description(best_match)}{needs_text}"


def nearest_capability(orchestra: OpenOrchestra, asked: Workflow[..., Any], request: str, without: str) -> str:
    """Describes the nearest capability to a request, except `without`: of those of a request workflow, and those with
    effects.
    """
    node = plan_node(orchestra, asked)
    offer = plan_module.all_capabilities(node, request)
    return _nearest(orchestra, node, offer.restricted_to([name for name in offer.by_name if name != without]), request)


def _description(skill: Capability, *, briefly: bool = False) -> str:
    """Returns the name of a capability and what it does."""
    first_sentence = prompt.first_sentence(skill.description).rstrip(".")
    first_sentence = _CLAUSE.split(first_sentence)[0] if briefly else first_sentence
    return f"{skill.name} ({first_sentence[:1].lower()}{first_sentence[1:]})" if first_sentence else skill.name


def _capabilities_with_effects(orchestra: OpenOrchestra) -> Iterator[Capability]:
    """Yields the tools and workflows with effects."""
    yield from (
        Capability.from_contract(tool.contract)
        for tool in orchestra.registry.tools.values()
        if tool.contract.effect != "pure"
    )
    for name in orchestra.workflows():
        try:
            program = orchestra.program(orchestra.find(name))
        except InputError:
            continue  # `orchestra validate` reports the error.
        if any(node.has_effects for node in program.nodes):
            yield Capability.from_workflow(program)


def _broadest(node: CompiledNode, offer: Capabilities) -> list[Capability]:
    """Returns a few capabilities as examples: those of the project first, and workflows before their parts."""
    parts = {
        agent
        for workflow in plan_module.require_node_plan_settings(node).workflows.values()
        for agent, _ in workflow.program.possible_agents
    }
    agents = {path.name for path in builtin_folder("agents").iterdir()}
    packaged_names = {*agents, *(path.stem for path in builtin_folder("workflows").iterdir()), *PACKAGE_TOOLS}
    order = sorted(
        offer.by_name.values(), key=lambda capability: (capability.name in packaged_names, capability.name in parts)
    )
    return order[:MAX_BROADEST]


def capabilities_of(
    orchestra: OpenOrchestra, request: str, values: Mapping[str, Any], options: PlanOptions | None = None
) -> Capabilities:
    """Returns what a plan for a request may consist of. Raises `InputError` C004 for an unknown capability."""
    return plan_module.build_request(
        plan_node(orchestra, request_workflow(orchestra, request, values, options)), request
    ).capabilities
