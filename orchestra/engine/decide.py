"""The decision: state in, proposals out. Deterministic, without I/O and without a clock."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop
from typing import TypeAlias

from orchestra.core.error_codes import NO_BUDGET, OPEN, SAID_NO, TOO_FEW, UNFIT
from orchestra.core.errors import OrchestraError
from orchestra.core.outcomes import Abstained, Failed, Outcome, Skipped, Value, blamed
from orchestra.core.untrusted_text import counted
from orchestra.engine import kinds
from orchestra.engine.kinds import ask, call, checks, first_of, subworkflow
from orchestra.engine.kinds.acceptance import settle
from orchestra.engine.proposals import Conclude, Enter, Expand, Finish, Invoke, Proposal
from orchestra.engine.size_limits import kept
from orchestra.engine.state import Phase, Scope, State, Unit, contradiction, hurried

_Step: TypeAlias = Callable[[State, Unit], Proposal | None]
NAMED, SAID = 5, 200
"""Elements of a list that a failure names, and characters of the reason of each."""
READY, RUNNING = Phase.READY, Phase.RUNNING


def decide(state: State) -> list[Proposal]:
    """What to do next, given all facts. The caller carries out every proposal, feeds back what came of it, and asks again."""
    proposals: list[Proposal] = []
    if state.cancelled or state.finished:
        return proposals
    if state.agenda:
        agenda, state.agenda = state.agenda, []
        for unit, phase in agenda:
            if unit is None:
                proposals.append(_conclude(state))
            elif unit.phase is phase:
                _propose(proposals, state, unit, _advance)
    ready = state.ready
    while ready and state.running < state.limit:
        unit = heappop(ready)[3]
        if unit.phase is READY and _propose(proposals, state, unit, _begin):
            break  # its time runs: what is inside goes out before another such body is entered
    return proposals


def _propose(proposals: list[Proposal], state: State, unit: Unit, step: _Step) -> bool:
    """A step of a unit; an expression that fails on these values fails the node. A call that goes out takes its place at once. Whether it
    enters a body whose time runs."""
    try:
        proposal = step(state, unit)
    except OrchestraError as error:
        proposal = Finish(unit, Failed(error.code, error.message, unit.path, error.hint))
    except RecursionError:
        proposal = Finish(unit, Failed("E023", "a value is nested too deeply", unit.path, "flatten it in the tool that makes it"))
    if type(proposal) is Invoke:
        unit.phase = RUNNING
        state.running += 1
        if proposal.reserved >= 0 and unit.scope.purse is not None:
            unit.reserved, unit.promised = proposal.reserved, proposal.money
            unit.scope.purse.reserve(proposal.reserved, proposal.money)
    elif proposal is None:
        return False
    elif type(proposal) is Finish:
        if unit.answer is None:  # else its value is on record
            proposal = _small(unit, proposal)
        if unit.node.fallback is not None:
            proposal = _or_fallback(unit, proposal)
    proposals.append(proposal)
    return type(proposal) is Enter and hurried(unit.node)


def _small(unit: Unit, proposal: Finish) -> Finish:
    outcome = kept(proposal.outcome, unit.path)
    return proposal if outcome is proposal.outcome else Finish(unit, outcome)


def give_up(unit: Unit, outcome: Outcome) -> Finish:
    """The end of a unit whose time is up: its fallback, where it has one."""
    return _or_fallback(unit, Finish(unit, outcome))


def _begin(state: State, unit: Unit) -> Proposal | None:
    node = unit.node
    if unit.attempt:
        return call.invoke(state, unit)
    if state.given and (said := ask.given(state, unit)) is not None:
        return said
    if not unit.scope.whole and unit.owner is None and (inherited := _inherited(unit)) is not None:
        return Finish(unit, inherited)
    if node.when is not None and _about_elements(unit) == (unit.owner is not None) and not node.when.evaluate(unit.bindings):
        return Finish(unit, Skipped("its condition is false", unit.path))
    if node.each is not None and unit.owner is None:  # `unit.spread`, without the call: every node comes here
        return _spread(unit)
    match node.kind:
        case "agent" | "tool":
            return call.invoke(state, unit) if node.using is None else kinds.tool_use.begin(unit)
        case "first_of":
            return settle(unit, first_of.chosen(unit))
        case "call" | "loop":
            return subworkflow.enter(unit)
        case "verify":
            return settle(unit, first_of.given(unit))
        case "ask":
            return ask.ask(state, unit)
        case "plan":
            return kinds.plan_cache.begin(state, unit)
        case kind:
            raise contradiction(f"{unit.path} is of kind {kind!r}")


def _about_elements(unit: Unit) -> bool:
    """Whether the node's `when` reads its `as` variable, and so is asked of each element."""
    node = unit.node
    return node.when is not None and node.each is not None and node.variable in node.when.references


def _advance(state: State, unit: Unit) -> Proposal | None:
    match unit.phase:
        case Phase.ANSWERED:
            return call.answered(unit)
        case Phase.REPLIED:
            return ask.replied(state, unit)
        case Phase.DOUBTFUL:
            return ask.doubt(unit)
        case Phase.ERRED:
            return call.erred(state, unit)
        case Phase.JUDGED:
            return call.judged(state, unit)
        case Phase.CHECKED:
            return checks.heard(unit, call.candidate(unit))
        case Phase.EXPANDED:
            return Finish(unit, _gathered(unit))
        case Phase.EMERGED:
            if unit.node.using is not None:
                return kinds.tool_use.emerged(unit)
            if unit.node.planning is None:
                return subworkflow.emerged(state, unit)
            return kinds.plan_voting.emerged(unit) if kinds.plan_voting.under_way(unit) else kinds.plan.emerged(unit)
        case phase:
            raise contradiction(f"{unit.path} asks for a decision in phase {phase.name}")


def _inherited(unit: Unit) -> Outcome | None:
    """The first non-value among the needs that the node does not tolerate, in the order of the file. What a person gave, and is not taken,
    no node goes on without."""
    for need in unit.node.needs:
        outcome = unit.scope.outcomes[need]
        if (need not in unit.node.soft or _untaken(outcome)) and outcome is not None and not isinstance(outcome, Value):
            return blamed(outcome, unit.scope.program.nodes[need].name)
    return None


def _untaken(outcome: Outcome | None) -> bool:
    """Whether it is the failure of a value that a person gave, and that its node does not take."""
    return isinstance(outcome, Failed) and outcome.code == UNFIT


def _or_fallback(unit: Unit, proposal: Finish) -> Finish:
    """The node's fallback, where it has no value and the fallback can be computed."""
    fallback = unit.node.fallback
    if fallback is None or isinstance(proposal.outcome, Value) or unit.spread or _untaken(proposal.outcome):
        return proposal
    if any(name not in unit.bindings for name in fallback.references):
        return proposal
    try:
        outcome = kept(Value(fallback.evaluate(unit.bindings)), unit.path)
    except OrchestraError as error:
        outcome = Failed(error.code, error.message, unit.path, error.hint)
    if isinstance(outcome, Failed):
        outcome = Failed(outcome.code, f"its fallback: {outcome.reason}", unit.path, outcome.hint)
    return Finish(unit, outcome, proposal.outcome if isinstance(outcome, Value) else None)


def _spread(unit: Unit) -> Proposal:
    node = unit.node
    items = node.each.evaluate(unit.bindings) if node.each else []
    if len(items) > node.limit:
        hint = f"raise `limit` (at most 10,000), or pass fewer elements to {unit.path}"
        return Finish(unit, Failed("E004", f"{len(items)} elements, and the limit is {node.limit}", unit.path, hint))
    if type(node.at_least) is int and len(items) < node.at_least:
        hint = f"lower `at_least`, or pass more elements to {unit.path}"
        said = f"{counted(len(items), 'element')}, and {node.at_least:,} {_needed(node.at_least)}"
        return Finish(unit, Failed(TOO_FEW, said, unit.path, hint))
    return Expand(unit, len(items))


def _gathered(unit: Unit) -> Outcome:
    """The list of the elements' values. Where every element failed there is nothing to go on with, and the node fails; so it does where
    fewer than `at_least` can have a value."""
    outcomes = unit.spreading.outcomes if unit.spreading else []
    if unit.spreading and unit.spreading.spare < 0:
        return _too_few(unit, outcomes)
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
    if failures and len(failures) == len(outcomes):
        return blamed(failures[0], unit.path)
    return Value([outcome.value for outcome in outcomes if isinstance(outcome, Value)])


def _too_few(unit: Unit, outcomes: list[Outcome | None]) -> Failed:
    """The failure of a list of which too many elements are without a value: which ones, and why. It is that of the element that settled
    it, and of those before, so that it follows from the facts, however many others come to their end meanwhile."""
    wanted = unit.node.at_least
    missing = [
        (index, found)
        for index, found in enumerate(outcomes)
        if found is not None and not isinstance(found, Value) and not (wanted == "all" and isinstance(found, Skipped))
    ]
    named = "; ".join(f"{unit.path}[{index}] {_because(found)}" for index, found in missing[:NAMED])
    more = f"; and {len(missing) - NAMED:,} more" if len(missing) > NAMED else ""
    needed = f"{wanted:,} of {counted(len(outcomes), 'element')} {_needed(wanted)}" if type(wanted) is int else "all elements are needed"
    hint = _mending(unit, [found for _, found in missing if isinstance(found, Failed)])
    return Failed(TOO_FEW, f"{needed}, and {len(missing):,} cannot be had: {named}{more}", unit.path, hint)


def _needed(number: int) -> str:
    return "is needed" if number == 1 else "are needed"


def _mending(unit: Unit, failures: list[Failed]) -> str:
    """What to do about a list of which these elements failed. Who leaves out one that may have had its effect may never look for it."""
    doubtful = [one for one in failures if unit.node.acts and (one.code in OPEN or one.code == SAID_NO)]
    first = (doubtful or failures)[0] if failures else None
    if first is not None and first.code == TOO_FEW:
        return first.hint
    without = "" if doubtful else "; or leave `at_least` out: the list then does without them, and `left_out` says so"
    own = f"; {first.by or unit.path}: {first.hint}" if first is not None and first.hint else ""
    return f"mend what they failed for{without}{own}"


def _because(outcome: Outcome) -> str:
    """Why an element has no value, in a few words."""
    said = outcome.reason if not isinstance(outcome, Value) else ""
    short = said if len(said) <= SAID else f"{said[:SAID]}…"
    match outcome:
        case Failed(code=code):
            return f"failed ({code}: {short})"
        case Abstained():
            return f"was withheld ({short})"
        case _:
            return f"was skipped ({short})"


def _conclude(state: State) -> Proposal:
    root = state.root
    if root is None:
        raise contradiction("the run has no root")
    try:
        outcome = kept(subworkflow.result(root), "output") if (lost := _lost(root)) is None else lost
    except OrchestraError as error:  # of these values, such as a text that grew too long
        outcome = Failed(error.code, error.message, "output", error.hint)
    status = {Value: "done", Skipped: "abstained", Abstained: "abstained", Failed: "failed"}[type(outcome)]
    if isinstance(outcome, Failed) and outcome.code == NO_BUDGET:
        status = "budget"
    return Conclude(status, outcome)


def _lost(root: Scope) -> Outcome | None:
    """A failure that nobody reads: of a node without readers that the output does not name; or of a value that a person gave."""
    if root.whole:
        return None
    for node, outcome in zip(root.program.nodes, root.outcomes, strict=True):
        unread = not node.children and node.name not in root.program.output.references
        if isinstance(outcome, Failed) and (unread or _untaken(outcome)):
            return blamed(outcome, node.name)
    return None
