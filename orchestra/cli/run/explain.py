"""Explains a program step by step: the called agents and servers, and the maximum cost. After a run, it adds the actual
cost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from orchestra.agents.card import Card
from orchestra.app.project import Project
from orchestra.cli.output import make_console, print_table, print_text
from orchestra.core.errors import InputError
from orchestra.core.errors import display_width as wide
from orchestra.core.labels import Label, is_allowed, meet
from orchestra.core.paths import workflow_path
from orchestra.core.quantities import format_duration, format_money
from orchestra.core.untrusted_text import escape_invisible
from orchestra.fleet.config import FleetConfig, configured_fleet
from orchestra.fleet.local_workers import LOCAL_SERVER as LOCAL
from orchestra.journal.history import History, NodeRow
from orchestra.workflows.analysis import callee_name, critical_path
from orchestra.workflows.compile.agent_choice import choice_of
from orchestra.workflows.cost_bounds import CostBound, compute_bounds, total
from orchestra.workflows.model import AgentNode, Budget
from orchestra.workflows.program import CompiledNode, Program

PLANNER_NODE = "line"
"""The node in which a plan calls its router; named by `orchestra.router.plan.question`."""
_OUTCOME_WORDS = {"value": "done", "abstained": "withheld"}


@dataclass(frozen=True, slots=True)
class StepActuals:
    """The actual cost of a step: its calls, over all elements and turns."""

    outcome: str
    calls: int
    prompt_tokens: int
    output_tokens: int
    seconds: float | None
    """From the first start to the last end; None while it runs."""
    servers: tuple[str, ...]
    money: float = 0.0


@dataclass(frozen=True, slots=True)
class ExplainedStep:
    """One step of a program. `planned` is None for composite steps, and for steps of a plan written at run time."""

    path: str
    callee: str
    planned: CostBound | None
    critical: bool
    label: Label
    """The label of its inputs."""
    targets: tuple[CallTarget, ...]
    certificate: bool | None
    """True if the agent has a certificate; None for tools."""
    actual: StepActuals | None = None
    choice: str = ""
    """For a node that selects an agent: the source of the label."""
    choice_labels: str = ""
    """For one of several agents: the labels for which it is called."""
    escalation_condition: str = ""
    """The condition for calling the larger model at once; empty without one."""

    @property
    def is_composite(self) -> bool:
        """True if it consists of other steps and makes no call itself."""
        return not self.targets and self.certificate is None

    @property
    def cleared_targets(self) -> tuple[CallTarget, ...]:
        """The targets that are cleared for its data."""
        return tuple(target for target in self.targets if is_allowed(self.label, target.clearance))

    @property
    def barred_targets(self) -> tuple[CallTarget, ...]:
        """The primary targets that are not cleared for its data."""
        return tuple(
            target for target in self.targets if not target.escalated and not is_allowed(self.label, target.clearance)
        )

    @property
    def is_allowed(self) -> bool:
        """True if one of the primary targets is cleared for its data; for an ensemble, one of each member."""
        members = {target.member for target in self.targets}
        return bool(members) and {target.member for target in self.cleared_targets if not target.escalated} == members


@dataclass(frozen=True)
class ProgramExplanation:
    """An explained program: its steps and, after a run, their actual cost."""

    steps: tuple[ExplainedStep, ...]
    critical_path: tuple[str, ...]
    """The steps on the critical path in order; a step of several nodes counts as one."""
    budget: Budget | None = None
    history: History | None = None

    @property
    def has_refused_steps(self) -> bool:
        """True if a step has no target that is cleared for its data, or a model that the fleet lacks."""
        return any(not step.is_allowed and not step.is_composite for step in self.steps)

    @property
    def total(self) -> tuple[int, int, int | None]:
        """The maximum of calls, output tokens and total tokens; the last is None if unbounded."""
        rows = [step.planned for step in self.steps if step.planned is not None]
        return total(rows, self.budget.tokens if self.budget else None)


def explain(
    project: Project,
    program: Program,
    given: Mapping[str, Any],
    label: Label | None = None,
    *,
    budget: Budget | None = None,
    history: History | None = None,
) -> ProgramExplanation:
    """Explains a program with these inputs; with a `history`, also its run. The default label is that of the program.

    Raises `InputError` if the fleet file cannot be read.
    """
    label = label or program.label
    fleet = configured_fleet(project.settings)
    bounds = {
        row.node: row for row in compute_bounds(program, given, context_lengths(project, fleet), len(fleet.tiers))
    }
    critical = frozenset(_critical_paths(program, ""))
    rows = _rows_by_step(history) if history is not None else {}
    explained_steps: list[ExplainedStep] = []
    choice_labels: dict[str, str] = {}
    for path, node in _walk_nodes(program, ""):
        if path not in bounds and node.body is None:
            continue  # it makes no call
        goes_to, certificate = node_targets(project, fleet, node) if path in bounds else ((), None)
        asks = bounds[path].callee if path in bounds else "one of them" if choice_of(node.source) else callee_name(node)
        escalation_condition = node.source.escalate or "" if isinstance(node.source, AgentNode) else ""
        choice = choice_of(node.source)
        step = ExplainedStep(
            path,
            asks,
            bounds.get(path),
            path in critical,
            label,
            goes_to,
            certificate,
            escalation_condition=escalation_condition,
        )
        step = replace(step, choice=choice.by if choice is not None else "", choice_labels=choice_labels.get(path, ""))
        choice_labels |= {
            f"{path}/{inner.name}": inner.source.when or ""
            for inner in (node.body.nodes if choice is not None and node.body else ())
        }
        if node.plan_settings is not None and history is not None:
            # The router's calls and the steps of the plan follow it.
            explained_steps.append(replace(step, callee="", planned=None, targets=(), certificate=None))
            explained_steps += _plan_steps(step, rows, project, fleet)
        else:
            explained_steps.append(step)
    if history is not None:
        explained_steps = [replace(step, actual=_step_actuals(rows.get(step.path, []))) for step in explained_steps]
    return ProgramExplanation(
        tuple(explained_steps),
        tuple(critical_path(program)),
        budget.with_defaults(program.budget) if budget else program.budget,
        history,
    )


def explain_planned_run(
    explanation: ProgramExplanation, project: Project, request_program: Program, planner_row: NodeRow
) -> ProgramExplanation:
    """Explains a run of a plan, with the cost of its planning first. `request_program` is the request: a workflow of
    one `plan` node.
    """
    (node,) = request_program.nodes
    fleet = configured_fleet(project.settings)
    bound = next(iter(compute_bounds(request_program, {}, context_lengths(project, fleet), len(fleet.tiers))))
    goes_to, certificate = node_targets(project, fleet, node)
    label = explanation.steps[0].label if explanation.steps else request_program.label
    step = ExplainedStep(
        planner_row.path, bound.callee, bound, False, label, goes_to, certificate, _step_actuals([planner_row])
    )
    return replace(explanation, steps=(step, *explanation.steps))


def context_lengths(project: Project, fleet: FleetConfig | None = None) -> dict[str, int]:
    """The context length in tokens by agent, as stated in the fleet file; for an ensemble, that of all members."""
    fleet = fleet or configured_fleet(project.settings)
    lengths: dict[str, int] = {}
    for name, card in project.registry.cards.items():
        part_lengths = [_context_length(fleet, part) for part in card.member_cards or (card,) if part.kind == "model"]
        if part_lengths and all(part_lengths):
            lengths[name] = sum(part_lengths)
    return lengths


def _context_length(fleet: FleetConfig, card: Card) -> int:
    """The longest context among the servers of a card; 0 if one is unknown or there is none."""
    lengths = [fleet.servers[server].max_model_len or 0 for server in fleet.servers_for(card.model)]
    return max(lengths) if lengths and all(lengths) else 0


def _walk_nodes(program: Program, prefix: str) -> Iterator[tuple[str, CompiledNode]]:
    for node in program.nodes:
        yield f"{prefix}{node.name}", node
        if node.body is not None:
            yield from _walk_nodes(node.body, f"{prefix}{node.name}/")


def _critical_paths(program: Program, prefix: str) -> Iterator[str]:
    """The paths on the critical path, including bodies."""
    nodes_by_name = {node.name: node for node in program.nodes}
    for name in critical_path(program):
        yield f"{prefix}{name}"
        if (body := nodes_by_name[name].body) is not None:
            yield from _critical_paths(body, f"{prefix}{name}/")


def _plan_steps(
    step: ExplainedStep, rows: Mapping[str, list[NodeRow]], project: Project, fleet: FleetConfig
) -> Iterator[ExplainedStep]:
    """The steps of a plan written at run time, after the calls of its router."""
    for path, inside in rows.items():
        name = next((row.name for row in inside if row.name), "")
        if not path.startswith(f"{step.path}/") or not name:
            continue
        if path == f"{step.path}/{PLANNER_NODE}":
            yield replace(step, path=path)
            continue
        card = project.registry.cards.get(name)
        certificate = None if card is None else has_valid_certificate(project, name)
        yield ExplainedStep(
            path, name, None, step.critical, step.label, model_targets(fleet, card, escalates=False), certificate
        )


def _rows_by_step(history: History) -> dict[str, list[NodeRow]]:
    """The rows of a history by step, over all elements and turns: `a[1]/b#2/c` belongs to the step `a/b/c`."""
    node_rows: dict[str, list[NodeRow]] = {}
    for row in history.rows:
        if row.kind != "turn":
            node_rows.setdefault(workflow_path(row.path), []).append(row)
    return node_rows


def _step_actuals(rows: list[NodeRow]) -> StepActuals:
    """Sums the rows of one step: the node itself, or its elements, in all turns."""
    calls = [attempt for row in rows for attempt in row.attempts]
    finish_times = [row.finished for row in rows]
    duration = max((end for end in finish_times if end is not None), default=0.0) - min(
        (row.started for row in rows), default=0.0
    )
    return StepActuals(
        _format_outcomes(rows),
        len(calls),
        sum(call.usage.prompt_tokens for call in calls),
        sum(call.usage.output_tokens for call in calls),
        duration if rows and None not in finish_times else None,
        tuple(
            dict.fromkeys(
                THIS_PROCESS if name == LOCAL else name
                for call in calls
                if call.server
                for name in call.server.split("+")
            )
        ),
        sum(call.usage.money for call in calls),
    )


def _format_outcomes(rows: list[NodeRow]) -> str:
    """`done`, or the number of each outcome. Elements are counted instead of their list."""
    if not rows:
        return "not run"
    counts = Counter(
        _OUTCOME_WORDS.get(row.status, row.status) for row in ([row for row in rows if row.elements is None] or rows)
    )
    return (
        next(iter(counts)) if len(counts) == 1 else ", ".join(f"{count} {status}" for status, count in counts.items())
    )


def show_explanation(explanation: ProgramExplanation) -> None:
    """Prints an explanation: the table as wide as the terminal, then omitted details and remarks."""
    screen = make_console()
    ran = explanation.history is not None
    columns = [column for column in _COLUMNS if column.after_run in (None, ran)]
    while _table_width(columns, explanation) > screen.width and any(column.drop_priority for column in columns):
        columns.remove(max(columns, key=lambda column: column.drop_priority))
    rows = [[column.cell(step) for column in columns] for step in explanation.steps]
    print_table(
        [column.heading for column in columns],
        rows,
        right=[at for at, column in enumerate(columns) if column.is_number],
    )
    print_text()
    headings = {column.heading for column in columns}
    for text in _omitted_details(explanation, headings):
        print_text(escape_invisible(text), style="dim")
    for text in _remarks(explanation):
        print_text(escape_invisible(text), style="yellow")
    _show_total(explanation)


def _table_width(columns: Iterable[_Column], explanation: ProgramExplanation) -> int:
    """The width of a table with these columns."""
    rows = ((column.heading, *(column.cell(step) for step in explanation.steps)) for column in columns)
    return sum(max(map(wide, cells)) + 2 for cells in rows) - 2


def _omitted_details(explanation: ProgramExplanation, headings: Container[str]) -> Iterator[str]:
    """Details that the table only marks or has no space for."""
    if len(explanation.critical_path) > 1:
        yield f"* the critical path: {' → '.join(explanation.critical_path)}"
    explained_steps = [step for step in explanation.steps if step.targets]
    if _CLEARED not in headings and explained_steps:
        clearances = {target.name: target.clearance for step in explained_steps for target in step.targets}
        yield (
            f"inputs are {explained_steps[0].label}; cleared: "
            f"{', '.join(f'{name} for {label}' for name, label in clearances.items())}"
        )
    for step in explanation.steps:
        if step.choice_labels:
            yield f"{step.path} where {step.choice_labels}"
    if _CERTIFICATE not in headings:
        certified_callees = dict.fromkeys(step.callee for step in explained_steps if step.certificate)
        yield f"certificates: {', '.join(certified_callees) or 'none'}"


def _show_total(explanation: ProgramExplanation) -> None:
    calls, output_tokens, tokens = explanation.total
    budget = explanation.budget.tokens if explanation.budget else None
    within = f", bounded by the budget of {budget:,}" if budget and tokens == budget else ""
    total_text = (
        f"{calls:,} calls, {output_tokens:,} tokens written, {'?' if tokens is None else f'{tokens:,}'} tokens "
        f"read and written{within}"
    )
    if explanation.history is None:
        print_text(f"in all {total_text}")
        return
    actuals = [step.actual for step in explanation.steps if step.actual is not None]
    out = sum(actual.output_tokens for actual in actuals)
    token_total = sum(actual.prompt_tokens for actual in actuals) + out
    money_text = format_money(sum(actual.money for actual in actuals))
    cost = f", {money_text} of money" if money_text else ""
    print_text(
        f"in all {sum(actual.calls for actual in actuals):,} calls, {out:,} tokens written, {token_total:,} tokens "
        f"read and written{cost}"
    )
    print_text(f"at most {total_text}", style="dim")


def _remarks(explanation: ProgramExplanation) -> Iterator[str]:
    """Remarks: data that may not go to a target or leaves the user's machines, and unwritten plans."""
    refusals: dict[str, list[str]] = {}
    for step in explanation.steps:
        if step.is_allowed or step.is_composite:
            continue
        clearance_text = " or ".join(dict.fromkeys(target.clearance for target in step.barred_targets))
        reason = (
            f"the inputs are {step.label}, but {_format_targets(step)} is only cleared for {clearance_text}: "
            "refused (F202)"
        )
        refusals.setdefault(
            reason if step.barred_targets else f"the fleet has no model for {step.callee}: refused (F201)", []
        ).append(step.path)
    yield from (f"{', '.join(paths)}: {refusal_reason}" for refusal_reason, paths in refusals.items())
    over: dict[str, list[str]] = {}
    for step in explanation.steps:
        for target in step.targets if step.is_allowed else ():
            if target.escalated and not is_allowed(step.label, target.clearance):
                name = _mark_external(target.name, target.external)
                message = (
                    f"{name} is skipped: the inputs are {step.label}, but it is only cleared for {target.clearance}"
                )
                over.setdefault(message, []).append(step.path)
    yield from (f"{', '.join(paths)}: {limit_text}" for limit_text, paths in over.items())
    outside = dict.fromkeys(name for step in explanation.steps for name in _external_servers(step))
    if outside:
        yield f"data {'may leave' if explanation.history is None else 'left'} your machines: {', '.join(outside)}"
    plans = [step.path for step in explanation.steps if step.planned is not None and step.planned.kind == "plan"]
    if plans and explanation.history is None:
        yield f"{', '.join(plans)}: only the calls of the router are counted; the budget limits the plan"


def _external_servers(step: ExplainedStep) -> list[str]:
    """The external servers that a step would call or has called."""
    external = [target.name for target in step.cleared_targets if target.external] if step.is_allowed else []
    return external if step.actual is None else [name for name in external if name in step.actual.servers]


def _format_targets(step: ExplainedStep) -> str:
    """The servers that a step would call, escalation servers last; only cleared servers if there are any."""
    targets = step.cleared_targets if step.is_allowed else step.barred_targets
    texts = dict.fromkeys(_mark_external(target.name, target.external) for target in targets if not target.escalated)
    tiers: dict[int, list[str]] = {}
    for target in targets:
        if target.escalated:
            tiers.setdefault(target.tier, []).append(_mark_external(target.name, target.external))
    words = [
        f", {'or' if step.escalation_condition and not number else 'then'} {', '.join(names)}"
        for number, names in enumerate(tiers.values())
    ]
    return ", ".join(texts) + "".join(words)


def _mark_external(name: str, external: bool) -> str:
    return f"{name} (external)" if external else name


def _format_clearance(step: ExplainedStep) -> str:
    """The label of a step's inputs and the clearance of its servers."""
    if not step.targets:
        return ""
    clearances = (step.cleared_targets if step.is_allowed else step.barred_targets or step.targets)[0].clearance
    return f"{step.label} {'≤' if step.is_allowed else '>'} {clearances}"


def _format_servers(step: ExplainedStep) -> str:
    """The called servers; before a run, those that would be called."""
    if step.actual is None:
        return _format_targets(step)
    external = {target.name for target in step.targets if target.external}
    externals = [_mark_external(name, name in external) for name in step.actual.servers]
    return ", ".join(externals) or (THIS_PROCESS if step.actual.calls else "")


def _step_name(step: ExplainedStep) -> str:
    """The name of a step without that of its parent."""
    *above, name = step.path.split("/")
    return ("* " if step.critical else "  ") + "  " * len(above) + name


def _format_used(calls: int, limit: int | None) -> str:
    """The actual amount and its maximum."""
    return "" if not calls else f"{calls:,}" if limit is None else f"{calls:,} of {limit:,}"


def _format_time(step: ExplainedStep) -> str:
    return format_duration(step.actual.seconds) if step.actual is not None and step.actual.seconds is not None else ""


def _format_calls(step: ExplainedStep) -> str:
    return (
        _format_used(step.actual.calls, step.planned.calls if step.planned is not None else None)
        if step.actual is not None
        else ""
    )


def _format_output_tokens(step: ExplainedStep) -> str:
    return (
        _format_used(step.actual.output_tokens, step.planned.output_tokens if step.planned is not None else None)
        if step.actual is not None
        else ""
    )


def _format_tokens(step: ExplainedStep) -> str:
    bound, actual = step.planned, step.actual
    if actual is None:
        return ""
    token_count = actual.prompt_tokens + actual.output_tokens
    return _format_used(token_count, bound.tokens if bound is not None else None)


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the table."""

    heading: str
    cell: Callable[[ExplainedStep], str]
    is_number: bool = False
    drop_priority: int = 0
    """The priority for omission on a narrow terminal; 0 for never."""
    after_run: bool | None = None
    """True for the table after a run, False for the table before it, None for both."""


def _format_certificate(step: ExplainedStep) -> str:
    return "" if step.certificate is None else "yes" if step.certificate else "none"


def _format_max_calls(step: ExplainedStep) -> str:
    """The maximum number of calls; elements and attempts apart."""
    bound = step.planned
    if bound is None:
        return ""
    return f"{bound.calls:,}" if 1 in (bound.elements, bound.attempts) else f"{bound.elements:,} × {bound.attempts}"


def _format_max_output_tokens(step: ExplainedStep) -> str:
    return _format_bound(step.planned.output_tokens) if step.planned is not None else ""


def _format_max_tokens(step: ExplainedStep) -> str:
    return _format_bound(step.planned.tokens) if step.planned is not None else ""


def _format_bound(count: int | None) -> str:
    return "?" if count is None else f"{count:,}" if count else ""


_CLEARED, _CERTIFICATE = "label ≤ cleared for", "certificate"
_COLUMNS: tuple[_Column, ...] = (
    _Column("step", _step_name),
    _Column("asks", lambda step: step.callee),
    _Column("server", _format_servers),
    _Column(_CLEARED, _format_clearance, drop_priority=1),
    _Column(_CERTIFICATE, _format_certificate, drop_priority=2),
    _Column("calls", _format_max_calls, is_number=True, after_run=False),
    _Column("tokens out", _format_max_output_tokens, is_number=True, drop_priority=3, after_run=False),
    _Column("tokens", _format_max_tokens, is_number=True, after_run=False),
    _Column("outcome", lambda step: step.actual.outcome if step.actual else "", after_run=True),
    _Column("time", _format_time, is_number=True, after_run=True),
    _Column("calls", _format_calls, is_number=True, after_run=True),
    _Column("tokens out", _format_output_tokens, is_number=True, drop_priority=3, after_run=True),
    _Column("tokens", _format_tokens, is_number=True, after_run=True),
)


def as_data(explanation: ProgramExplanation) -> dict[str, Any]:
    """An explanation as JSON values."""
    calls, output_tokens, tokens = explanation.total
    return {
        "nodes": [_step_data(step) for step in explanation.steps if not step.is_composite],
        "critical_path": explanation.critical_path,
        "calls": calls,
        "output_tokens": output_tokens,
        "tokens": tokens,
    }


def _step_data(step: ExplainedStep) -> dict[str, Any]:
    bound = step.planned
    bound_names = ("elements", "attempts", "calls", "output_tokens", "tokens")
    fields: dict[str, Any] = {
        "node": step.path,
        "asks": step.callee,
        **{name: None if bound is None else getattr(bound, name) for name in bound_names},
        "critical": step.critical,
        "servers": [
            {
                "name": target.name,
                "external": target.external,
                "cleared_for": target.clearance,
                "escalated": target.escalated,
                "tier": target.tier,
            }
            for target in step.targets
        ],
        "label": step.label,
        "allowed": step.is_allowed,
        "certificate": step.certificate,
        "escalation_condition": step.escalation_condition,
        "choice_labels": step.choice_labels,
    }
    return fields if step.actual is None else {**fields, "actual": step.actual}


THIS_PROCESS = "here"
"""The target of tools, and of agents without a server: this process."""


@dataclass(frozen=True, slots=True)
class CallTarget:
    """A target of a call: a server of the fleet, or this process."""

    name: str
    external: bool
    clearance: Label
    """The strictest label of data that may go there, including the ceiling of the agent."""
    escalated: bool = False
    """True if it is called only after a smaller model failed."""
    tier: int = 0
    """The index of the larger model, from 1."""
    member: str = ""
    """For an ensemble: the member whose calls go there."""


def node_targets(
    project: Project, fleet: FleetConfig, node: CompiledNode
) -> tuple[tuple[CallTarget, ...], bool | None]:
    """The targets of a node's calls, and whether its agent has a valid certificate."""
    contract = node.contract if node.plan_settings is None else node.plan_settings.router
    if contract is None or contract.kind == "tool":
        return (CallTarget(THIS_PROCESS, False, "restricted" if contract is None else contract.label),), None
    card = project.registry.cards.get(contract.name)
    escalates = node.escalate is not None or (node.acceptance is not None and "escalate" in node.acceptance.otherwise)
    targets = model_targets(fleet, card, escalates=escalates)
    if node.plan_settings is not None and (larger := node.plan_settings.larger) is not None:
        larger_targets = model_targets(fleet, project.registry.cards.get(larger.name), escalates=False)
        targets += tuple(
            replace(call_target, escalated=True)
            for call_target in larger_targets
            if call_target.name not in {target.name for target in targets}
        )
    return targets, has_valid_certificate(project, contract.name)


def has_valid_certificate(project: Project, agent: str) -> bool:
    """True if an agent has a valid certificate, by which a node may accept."""
    try:
        return agent in project.catalog().certificates
    except InputError:
        return False


def model_targets(fleet: FleetConfig, card: Card | None, *, escalates: bool) -> tuple[CallTarget, ...]:
    """The servers of a card's model and of its larger model; for an ensemble those of each member. Empty if the fleet
    lacks one of the models.
    """
    if card is not None and card.member_cards:
        part_targets = [(part.name, model_targets(fleet, part, escalates=escalates)) for part in card.member_cards]
        if not all(targets for _, targets in part_targets):
            return ()
        return tuple(
            replace(call_target, member=name, clearance=meet((call_target.clearance, card.label)))
            for name, targets in part_targets
            for call_target in targets
        )
    if card is None or card.kind != "model":
        return (CallTarget(THIS_PROCESS, False, card.label if card is not None else "restricted"),)
    call_targets = []
    for tier, model in enumerate((card.model, *(fleet.tiers if escalates else ()))):
        for name in fleet.servers_for(model):
            server = fleet.servers[name]
            call_targets.append(CallTarget(name, server.external, meet((server.label, card.label)), tier > 0, tier))
    return tuple(call_targets)
