"""EXPLAIN: what a program would take, step by step, before it runs: who is asked, where that goes, what it may cost at most; and after a
run, beside it, what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from orchestra.agents.card import Card
from orchestra.app.project import Project
from orchestra.cli.output import console, money, say, seconds, table
from orchestra.cli.run.targets import HERE, Target, certified, servers, targets
from orchestra.core.errors import columns as wide
from orchestra.core.labels import Label, may_go
from orchestra.core.paths import without_numbers
from orchestra.core.untrusted_text import visible
from orchestra.fleet.config import FleetConfig, read
from orchestra.fleet.local_workers import HERE as LOCAL
from orchestra.journal.history import History, Row
from orchestra.workflows.analysis import callee, critical_path
from orchestra.workflows.compile.agent_choice import choice_of
from orchestra.workflows.cost_bounds import Bound, bounds, total
from orchestra.workflows.model import AgentNode, Budget
from orchestra.workflows.program import CompiledNode, Program

QUESTION = "line"
"""The node in which a plan asks its router, as `orchestra.router.plan.question` calls it."""
_ENDED = {"value": "done", "abstained": "withheld"}


@dataclass(frozen=True, slots=True)
class Actual:
    """What came of a step: its calls, all elements and turns together."""

    came_to: str
    calls: int
    prompt_tokens: int
    output_tokens: int
    seconds: float | None
    """From the start of the first to the end of the last; None while it goes on."""
    servers: tuple[str, ...]
    money: float = 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a program. `planned` is None for what is made of other steps, and for what a plan node wrote at run time."""

    path: str
    asks: str
    planned: Bound | None
    critical: bool
    label: Label
    """Of its inputs."""
    targets: tuple[Target, ...]
    certificate: bool | None
    """Whether the agent has one; None for tools."""
    actual: Actual | None = None
    choice: str = ""
    """Of a node that chooses its agent: what gives the label."""
    only: str = ""
    """Of one agent of several: on which labels it is asked."""
    at_once: str = ""
    """The condition on which the larger model is asked at once; empty where there is none."""

    @property
    def made(self) -> bool:
        """Whether it is made of other steps, and asks nobody itself."""
        return not self.targets and self.certificate is None

    @property
    def cleared(self) -> tuple[Target, ...]:
        """The targets that its data may go to."""
        return tuple(target for target in self.targets if may_go(self.label, target.cleared))

    @property
    def barred(self) -> tuple[Target, ...]:
        """Those of the targets that are asked first that its data may not go to."""
        return tuple(target for target in self.targets if not target.escalated and not may_go(self.label, target.cleared))

    @property
    def allowed(self) -> bool:
        """Whether its data may go to one of the targets that are asked first; of an ensemble, to one of each member."""
        members = {target.member for target in self.targets}
        return bool(members) and {target.member for target in self.cleared if not target.escalated} == members


@dataclass(frozen=True)
class Explanation:
    """A program, explained: its steps, with what came of them where it has run."""

    steps: tuple[Step, ...]
    critical: tuple[str, ...]
    """The steps on the critical path, first to last; a step of several nodes counts as one."""
    budget: Budget | None = None
    history: History | None = None

    @property
    def refused(self) -> bool:
        """Whether a step asks what must not see its data, or a model that the fleet does not have."""
        return any(not step.allowed and not step.made for step in self.steps)

    @property
    def total(self) -> tuple[int, int, int | None]:
        """Calls, output tokens and tokens in all, at most; the last None where nothing bounds it."""
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
) -> Explanation:
    """What a program with these inputs would take; with a `history`, what it took. The inputs' label is the program's, unless one is given.

    Raises `InputError` where the fleet's file cannot be read.
    """
    label = label or program.label
    fleet = read(project.settings.find_resource("configs", project.settings.fleet))
    planned = {row.node: row for row in bounds(program, given, contexts(project, fleet), len(fleet.tiers))}
    critical = frozenset(_critical(program, ""))
    rows = _rows(history) if history is not None else {}
    found: list[Step] = []
    only: dict[str, str] = {}
    for path, node in _nodes(program, ""):
        if path not in planned and node.body is None:
            continue  # it calls nothing
        goes_to, certificate = targets(project, fleet, node) if path in planned else ((), None)
        asks = planned[path].asks if path in planned else "one of them" if choice_of(node.source) else callee(node)
        at_once = node.source.escalate or "" if isinstance(node.source, AgentNode) else ""
        choice = choice_of(node.source)
        step = Step(path, asks, planned.get(path), path in critical, label, goes_to, certificate, at_once=at_once)
        step = replace(step, choice=choice.by if choice is not None else "", only=only.get(path, ""))
        only |= {f"{path}/{inner.name}": inner.source.when or "" for inner in (node.body.nodes if choice is not None and node.body else ())}
        if node.planning is not None and history is not None:
            # What it asked stands behind it: the router, and then what the plan was made of.
            found.append(replace(step, asks="", planned=None, targets=(), certificate=None))
            found += _of_plan(step, rows, project, fleet)
        else:
            found.append(step)
    if history is not None:
        found = [replace(step, actual=_actual(rows.get(step.path, []))) for step in found]
    return Explanation(tuple(found), tuple(critical_path(program)), budget.beside(program.budget) if budget else program.budget, history)


def planned_by(explanation: Explanation, project: Project, asked: Program, questions: Row) -> Explanation:
    """A plan that has run, explained, with what the questions to its planner took before it. `asked` is the request that they were asked
    for, a workflow of one `plan` node."""
    (node,) = asked.nodes
    fleet = read(project.settings.find_resource("configs", project.settings.fleet))
    most = next(iter(bounds(asked, {}, contexts(project, fleet), len(fleet.tiers))))
    goes_to, certificate = targets(project, fleet, node)
    label = explanation.steps[0].label if explanation.steps else asked.label
    step = Step(questions.path, most.asks, most, False, label, goes_to, certificate, _actual([questions]))
    return replace(explanation, steps=(step, *explanation.steps))


def contexts(project: Project, fleet: FleetConfig | None = None) -> dict[str, int]:
    """The tokens that prompt and output of one call share, by agent, where the fleet's file says so: of an ensemble all members'."""
    fleet = fleet or read(project.settings.find_resource("configs", project.settings.fleet))
    found: dict[str, int] = {}
    for name, card in project.registry.cards.items():
        asked = [_context(fleet, part) for part in card.parts or (card,) if part.kind == "model"]
        if asked and all(asked):
            found[name] = sum(asked)
    return found


def _context(fleet: FleetConfig, card: Card) -> int:
    """The longest context among a card's servers; 0 where one of them does not tell, or there is none."""
    lengths = [fleet.servers[server].max_model_len or 0 for server in fleet.serving(card.model)]
    return max(lengths) if lengths and all(lengths) else 0


def _nodes(program: Program, above: str) -> Iterator[tuple[str, CompiledNode]]:
    for node in program.nodes:
        yield f"{above}{node.name}", node
        if node.body is not None:
            yield from _nodes(node.body, f"{above}{node.name}/")


def _critical(program: Program, above: str) -> Iterator[str]:
    """The paths on the critical path, those of bodies on it included."""
    named = {node.name: node for node in program.nodes}
    for name in critical_path(program):
        yield f"{above}{name}"
        if (body := named[name].body) is not None:
            yield from _critical(body, f"{above}{name}/")


def _of_plan(step: Step, rows: Mapping[str, list[Row]], project: Project, fleet: FleetConfig) -> Iterator[Step]:
    """The steps of a plan that was written at run time, the questions to its router first."""
    for path, inside in rows.items():
        name = next((row.name for row in inside if row.name), "")
        if not path.startswith(f"{step.path}/") or not name:
            continue
        if path == f"{step.path}/{QUESTION}":
            yield replace(step, path=path)
            continue
        card = project.registry.cards.get(name)
        certificate = None if card is None else certified(project, name)
        yield Step(path, name, None, step.critical, step.label, servers(fleet, card, escalates=False), certificate)


def _rows(history: History) -> dict[str, list[Row]]:
    """The rows of a history by step, elements and turns together: `a[1]/b#2/c` is of the step `a/b/c`."""
    found: dict[str, list[Row]] = {}
    for row in history.rows:
        if row.kind != "turn":
            found.setdefault(without_numbers(row.path), []).append(row)
    return found


def _actual(rows: list[Row]) -> Actual:
    """What came of the rows of one step: the node itself, or its elements, in all turns."""
    calls = [attempt for row in rows for attempt in row.attempts]
    ended = [row.finished for row in rows]
    took = max((end for end in ended if end is not None), default=0.0) - min((row.started for row in rows), default=0.0)
    return Actual(
        _came_to(rows),
        len(calls),
        sum(call.usage.prompt_tokens for call in calls),
        sum(call.usage.output_tokens for call in calls),
        took if rows and None not in ended else None,
        tuple(dict.fromkeys(HERE if name == LOCAL else name for call in calls if call.server for name in call.server.split("+"))),
        sum(call.usage.money for call in calls),
    )


def _came_to(rows: list[Row]) -> str:
    """`done`, or how many came to what; elements count, and not the list that they are in."""
    if not rows:
        return "not run"
    counts = Counter(_ENDED.get(row.status, row.status) for row in ([row for row in rows if row.elements is None] or rows))
    return next(iter(counts)) if len(counts) == 1 else ", ".join(f"{count} {status}" for status, count in counts.items())


def show(explanation: Explanation) -> None:
    """Prints an explanation for a person: the table, as far as the screen is wide, then what does not fit and what stands out."""
    screen = console()
    ran = explanation.history is not None
    columns = [column for column in _COLUMNS if column.after in (None, ran)]
    while _width(columns, explanation) > screen.width and any(column.spare for column in columns):
        columns.remove(max(columns, key=lambda column: column.spare))
    rows = [[column.cell(step) for column in columns] for step in explanation.steps]
    screen.print(table([column.heading for column in columns], rows, right=[at for at, one in enumerate(columns) if one.number]))
    say()
    headings = {column.heading for column in columns}
    for text in _left_out(explanation, headings):
        say(visible(text), style="dim")
    for text in _remarks(explanation):
        say(visible(text), style="yellow")
    _show_total(explanation)


def _width(columns: Iterable[_Column], explanation: Explanation) -> int:
    """How wide a table of these columns would be."""
    told = ((column.heading, *(column.cell(step) for step in explanation.steps)) for column in columns)
    return sum(max(map(wide, cells)) + 2 for cells in told) - 2


def _left_out(explanation: Explanation, headings: Container[str]) -> Iterator[str]:
    """What the table says only by a mark, or has no room for."""
    if len(explanation.critical) > 1:
        yield f"* the critical path: {' → '.join(explanation.critical)}"
    asking = [step for step in explanation.steps if step.targets]
    if _CLEARED not in headings and asking:
        cleared = {target.name: target.cleared for step in asking for target in step.targets}
        yield f"inputs are {asking[0].label}; cleared: {', '.join(f'{name} for {label}' for name, label in cleared.items())}"
    for step in explanation.steps:
        if step.only:
            yield f"{step.path} where {step.only}"
    if _CERTIFICATE not in headings:
        certified = dict.fromkeys(step.asks for step in asking if step.certificate)
        yield f"certificates: {', '.join(certified) or 'none'}"


def _show_total(explanation: Explanation) -> None:
    calls, written, tokens = explanation.total
    budget = explanation.budget.tokens if explanation.budget else None
    within = f", bounded by the budget of {budget:,}" if budget and tokens == budget else ""
    most = f"{calls:,} calls, {written:,} tokens written, {'?' if tokens is None else f'{tokens:,}'} tokens read and written{within}"
    if explanation.history is None:
        say(f"in all {most}")
        return
    took = [step.actual for step in explanation.steps if step.actual is not None]
    out = sum(actual.output_tokens for actual in took)
    both = sum(actual.prompt_tokens for actual in took) + out
    paid = money(sum(actual.money for actual in took))
    cost = f", {paid} of money" if paid else ""
    say(f"in all {sum(actual.calls for actual in took):,} calls, {out:,} tokens written, {both:,} tokens read and written{cost}")
    say(f"at most {most}", style="dim")


def _remarks(explanation: Explanation) -> Iterator[str]:
    """What stands out: data that may not go where it would, or that leaves the user's machines; plans that are not written yet."""
    refused: dict[str, list[str]] = {}
    for step in explanation.steps:
        if step.allowed or step.made:
            continue
        cleared = " or ".join(dict.fromkeys(target.cleared for target in step.barred))
        why = f"the inputs are {step.label}, and {_targeted(step)} is cleared for {cleared}: refused (F202)"
        refused.setdefault(why if step.barred else f"the fleet has no model for {step.asks}: refused (F201)", []).append(step.path)
    yield from (f"{', '.join(paths)}: {why}" for why, paths in refused.items())
    over: dict[str, list[str]] = {}
    for step in explanation.steps:
        for target in step.targets if step.allowed else ():
            if target.escalated and not may_go(step.label, target.cleared):
                name = _external(target.name, target.external)
                said = f"{name} is passed over: the inputs are {step.label}, and it is cleared for {target.cleared}"
                over.setdefault(said, []).append(step.path)
    yield from (f"{', '.join(paths)}: {said}" for said, paths in over.items())
    outside = dict.fromkeys(name for step in explanation.steps for name in _outside(step))
    if outside:
        yield f"data {'may leave' if explanation.history is None else 'left'} your machines: {', '.join(outside)}"
    plans = [step.path for step in explanation.steps if step.planned is not None and step.planned.kind == "plan"]
    if plans and explanation.history is None:
        yield f"{', '.join(plans)}: only the questions to the router are counted; the budget bounds what the plan takes"


def _outside(step: Step) -> list[str]:
    """The servers on others' machines that a step would ask, or has asked."""
    external = [target.name for target in step.cleared if target.external] if step.allowed else []
    return external if step.actual is None else [name for name in external if name in step.actual.servers]


def _targeted(step: Step) -> str:
    """The servers that a step would ask, the larger model's last; those that are cleared, where some are."""
    going = step.cleared if step.allowed else step.barred
    texts = dict.fromkeys(_external(target.name, target.external) for target in going if not target.escalated)
    tiers: dict[int, list[str]] = {}
    for target in going:
        if target.escalated:
            tiers.setdefault(target.tier, []).append(_external(target.name, target.external))
    words = [f", {'or' if step.at_once and not number else 'then'} {', '.join(names)}" for number, names in enumerate(tiers.values())]
    return ", ".join(texts) + "".join(words)


def _external(name: str, external: bool) -> str:
    return f"{name} (external)" if external else name


def _ceiling(step: Step) -> str:
    """The label of a step's inputs against what its servers are cleared for."""
    if not step.targets:
        return ""
    cleared = (step.cleared if step.allowed else step.barred or step.targets)[0].cleared
    return f"{step.label} {'≤' if step.allowed else '>'} {cleared}"


def _where(step: Step) -> str:
    """The servers that were asked; before a run, those that would be."""
    if step.actual is None:
        return _targeted(step)
    external = {target.name for target in step.targets if target.external}
    asked = [_external(name, name in external) for name in step.actual.servers]
    return ", ".join(asked) or (HERE if step.actual.calls else "")


def _name(step: Step) -> str:
    """A step's own name, below that of what it stands in."""
    *above, name = step.path.split("/")
    return ("* " if step.critical else "  ") + "  " * len(above) + name


def _of(took: int, most: int | None) -> str:
    """What was taken, of what it could have been."""
    return "" if not took else f"{took:,}" if most is None else f"{took:,} of {most:,}"


def _took(step: Step) -> str:
    return seconds(step.actual.seconds) if step.actual is not None and step.actual.seconds is not None else ""


def _called(step: Step) -> str:
    return _of(step.actual.calls, step.planned.calls if step.planned is not None else None) if step.actual is not None else ""


def _written(step: Step) -> str:
    return (
        _of(step.actual.output_tokens, step.planned.output_tokens if step.planned is not None else None) if step.actual is not None else ""
    )


def _spent(step: Step) -> str:
    planned, actual = step.planned, step.actual
    if actual is None:
        return ""
    took = actual.prompt_tokens + actual.output_tokens
    return _of(took, planned.tokens if planned is not None else None)


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the table."""

    heading: str
    cell: Callable[[Step], str]
    number: bool = False
    spare: int = 0
    """How soon it is left out where the screen is too narrow; 0 for never."""
    after: bool | None = None
    """Whether it belongs to the table after a run, or to that before it; None for both."""


def _certificate(step: Step) -> str:
    return "" if step.certificate is None else "yes" if step.certificate else "none"


def _times(step: Step) -> str:
    """Calls at most, elements and attempts apart."""
    planned = step.planned
    if planned is None:
        return ""
    return f"{planned.calls:,}" if 1 in (planned.elements, planned.attempts) else f"{planned.elements:,} × {planned.attempts}"


def _most_written(step: Step) -> str:
    return _bound(step.planned.output_tokens) if step.planned is not None else ""


def _most(step: Step) -> str:
    return _bound(step.planned.tokens) if step.planned is not None else ""


def _bound(count: int | None) -> str:
    return "?" if count is None else f"{count:,}" if count else ""


_CLEARED, _CERTIFICATE = "label ≤ cleared for", "certificate"
_COLUMNS: tuple[_Column, ...] = (
    _Column("step", _name),
    _Column("asks", lambda step: step.asks),
    _Column("server", _where),
    _Column(_CLEARED, _ceiling, spare=1),
    _Column(_CERTIFICATE, _certificate, spare=2),
    _Column("calls", _times, number=True, after=False),
    _Column("tokens out", _most_written, number=True, spare=3, after=False),
    _Column("tokens", _most, number=True, after=False),
    _Column("came to", lambda step: step.actual.came_to if step.actual else "", after=True),
    _Column("time", _took, number=True, after=True),
    _Column("calls", _called, number=True, after=True),
    _Column("tokens out", _written, number=True, spare=3, after=True),
    _Column("tokens", _spent, number=True, after=True),
)


def data(explanation: Explanation) -> dict[str, Any]:
    """An explanation as JSON: the same facts."""
    calls, written, tokens = explanation.total
    return {
        "nodes": [_step(step) for step in explanation.steps if not step.made],
        "critical_path": explanation.critical,
        "calls": calls,
        "output_tokens": written,
        "tokens": tokens,
    }


def _step(step: Step) -> dict[str, Any]:
    planned = step.planned
    most = ("elements", "attempts", "calls", "output_tokens", "tokens")
    found: dict[str, Any] = {
        "node": step.path,
        "asks": step.asks,
        **{name: None if planned is None else getattr(planned, name) for name in most},
        "critical": step.critical,
        "servers": [
            {"name": one.name, "external": one.external, "cleared_for": one.cleared, "escalated": one.escalated, "tier": one.tier}
            for one in step.targets
        ],
        "label": step.label,
        "allowed": step.allowed,
        "certificate": step.certificate,
        "at_once": step.at_once,
        "only": step.only,
    }
    return found if step.actual is None else {**found, "actual": step.actual}
