"""Checks of a node, compiled: their rules read, their names known, and whom they ask found and held to what is asked of him."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from orchestra.agents.contract import Contract
from orchestra.core.errors import Place
from orchestra.schema.fields import CONTRADICTED, SUPPORTED
from orchestra.schema.json_schema import ANY, Schema
from orchestra.verification import custom_checks
from orchestra.verification.acceptance import rules_of
from orchestra.verification.check_expression import AGREE, Named, NotARule, named, read
from orchestra.verification.custom_checks import TOOL
from orchestra.verification.entailment import CLAIM, ENTAILMENT, speaks
from orchestra.verification.entailment import EVIDENCE as EVIDENCE_INPUT
from orchestra.verification.model_checks import ASKING, alike, judge_of
from orchestra.verification.rederivation import MOST_SAMPLES, REDERIVE, SAMPLES
from orchestra.workflows.compile.inputs import Path, listed, meant
from orchestra.workflows.compile.nodes import Draft
from orchestra.workflows.model import AnyNode

if TYPE_CHECKING:
    from orchestra.workflows.compile.compiler import Compiler

EVIDENCE = frozenset({"quote", "numbers", ENTAILMENT})
"""Checks that compare with evidence."""
READING = EVIDENCE | {REDERIVE, AGREE, TOOL}
"""And those that show evidence to an agent or a tool, where there is some."""


class Checked(msgspec.Struct, frozen=True):
    """What the checks of a node are."""

    names: tuple[str, ...] = ()
    """Of the checks in them, each once."""
    asking: bool = False
    judges: Mapping[str, Contract] = {}

    @property
    def comparing(self) -> tuple[list[str], list[str]]:
        """Those that compare with evidence: which cannot do without it, and which can."""
        own = {name: judge for name, judge in self.judges.items() if judge.kind == "tool" and custom_checks.compares(judge)}
        without = [name for name, judge in own.items() if EVIDENCE_INPUT not in judge.input.get("required", ())]
        return [*(name for name in self.names if name in EVIDENCE), *(name for name in own if name not in without)], without


NOTHING = Checked()


def read_rules(compiler: Compiler, node: AnyNode, draft: Draft, checks: tuple[str, ...], path: Path) -> Checked:
    """The checks of a node. Faults are noted: L111 for a name that nothing has, L070 to L074 for what checks that ask agents need."""
    if not checks:
        return NOTHING
    if not node.checks and compiler.catalog.checks.issuperset(checks) and not any(check in ASKING for check in checks):
        return Checked(tuple(checks))  # those of a card, as most have
    why = "" if node.checks or draft.contract is None else f"the card of {draft.contract.name} asks for this check"
    names: dict[str, None] = {}
    judges: dict[str, Contract] = {}
    for number, text in enumerate(checks):
        place = compiler.findings.at(*path, "checks", number) if node.checks else compiler.findings.at(*path, key=True)
        for check in _named(compiler, text, place, why):
            names[check.check] = None
            if check.check not in compiler.catalog.checks:
                _unknown(compiler, node, check.check, place)
            elif (judge := _asked(compiler, draft, check, place, why)) is not None:
                judges[judge_of(check)] = judge
    return Checked(tuple(names), any(name in ASKING for name in names), judges)


def back_off(
    compiler: Compiler, node: AnyNode, checks: tuple[str, ...], names: tuple[str, ...], otherwise: Sequence[object], path: Path
) -> None:
    """Notes what keeps a node from backing off (L075): its checks must say part by part what the evidence bears out, of a first answer."""
    findings = compiler.findings
    place = findings.at(*path, "otherwise", key=True) if node.otherwise else findings.at(*path, key=True)
    if not any(isinstance(rule, Named) and rule.check == ENTAILMENT for rule in rules_of(checks)):
        said = f"`back_off` needs the check `{ENTAILMENT}` by itself, which says part by part what the evidence bears out"
        findings.fault("L075", said, place, hint=f"checks: [{ENTAILMENT}]")
    for name in names:
        if name in (REDERIVE, AGREE):
            findings.fault("L075", f"`{name}` is about whole values, and `back_off` takes parts out of them", place, hint="leave it out")
    for again in otherwise:
        if again in ("retry", "escalate"):
            said = f"`back_off` keeps what is borne out of the first answer, and so `{again}` would never come"
            findings.fault("L075", said, place, hint="otherwise: [back_off, abstain]")


def _named(compiler: Compiler, text: str, place: Place, why: str) -> Iterator[Named]:
    """The checks of a rule; one of its whole text where it is none, which is noted (L072)."""
    try:
        return named(read(text))
    except NotARule as error:
        hint = 'checks: [quote, numbers], or "quote | entailment", or "tool(NAME)"'
        compiler.findings.fault("L072", f"{text!r} is no check: {error.why}", place, hint=hint, why=why)
        return iter(())


def _unknown(compiler: Compiler, node: AnyNode, name: str, place: Place) -> None:
    """Notes a check that is not there (L111); those of cards are `unknown` when they are asked."""
    if node.checks:
        known = sorted(compiler.catalog.checks)
        own = f'checks: ["{custom_checks.called(name)}"] asks the tool of that name' if name in compiler.catalog.tools else ""
        hint = own or meant(name, known, f"checks: {listed(known)}")
        compiler.findings.fault("L111", f"there is no check {name!r}", place, hint=hint)


def _asked(compiler: Compiler, draft: Draft, check: Named, place: Place, why: str) -> Contract | None:
    """The agent or the tool that a check asks; None for one that asks nobody else, or that has a fault."""
    findings = compiler.findings
    if check.check not in ASKING:
        if check.argument:
            findings.fault("L072", f"the check {check.check!r} takes nothing in brackets", place, hint=f"checks: [{check.check}]")
        return None
    if check.check == AGREE:
        _agrees(compiler, draft, check, place)
        return None
    if check.check == TOOL:
        return _tool(compiler, draft, check, place, why)
    name = judge_of(check)
    if not name or name.isdigit():
        findings.fault("L070", f"`{check.check}` needs the name of an agent", place, hint=f"{check.check}(NAME)", why=why)
        return None
    agents = compiler.catalog.agents
    if name in compiler.catalog.broken:
        findings.note(compiler.catalog.broken[name])
        return None
    if name not in agents:
        hint = meant(name, agents, f"{check.check}(NAME), one of {listed(sorted(agents))}" if agents else "add the agent")
        findings.fault("L070", f"the check `{check}` asks the agent {name!r}, and there is none", place, hint=hint, why=why)
        return None
    judge = agents[name]
    if draft.contract is not None and alike(judge, draft.contract):
        findings.warn(f"`{check}` asks the agent that is judged, so it is always `unknown`", place)
    misfit = _no_judge(judge) if check.check == ENTAILMENT else _no_second(draft, judge)
    if misfit:
        findings.fault("L071", f"the agent {name!r} cannot do `{check.check}`: {misfit}", place, hint="orchestra explain L071", why=why)
        return None
    if check.check == ENTAILMENT and draft.output != ANY and not speaks(draft.output):
        findings.warn("`entailment` finds no text that claims anything in this type, so it is always `unknown`", place)
    return judge


def _tool(compiler: Compiler, draft: Draft, check: Named, place: Place, why: str) -> Contract | None:
    """The tool that a check asks; None for one that is not there, or cannot judge this value."""
    findings, own = compiler.findings, compiler.catalog.tools
    name = check.argument
    if not name or name.isdigit():
        findings.fault("L070", "`tool` needs the name of a tool", place, hint=custom_checks.called("NAME"), why=why)
        return None
    if name not in own:
        hint = meant(name, own, f"there are: {listed(sorted(own))}; your own come from `modules` in orchestra.toml")
        findings.fault("L070", f"the check `{check}` asks the tool {name!r}, and there is none", place, hint=hint, why=why)
        return None
    given: dict[str, Schema] | None = None
    if draft.inputs is not None or draft.contract is None:  # a call without inputs has faults, which are noted already
        given = {key: part.schema for key, part in ((draft.inputs.parts if draft.inputs is not None else None) or {}).items()}
        given = given if draft.contract is None else custom_checks.own_types(draft.contract, given)
    if misfit := custom_checks.misfit(own[name], None if draft.output == ANY else draft.output, given):
        findings.fault("L071", f"the tool {name!r} cannot judge this: {misfit}", place, hint="orchestra explain L071", why=why)
        return None
    return own[name]


def _no_judge(judge: Contract) -> str:
    """Why an agent cannot judge claims; empty where it can."""
    given: Mapping[str, object] = judge.input.get("properties", {})
    if judge.kit is not None:
        return "it uses tools, and a check's question is one call"
    for name in (CLAIM, EVIDENCE_INPUT):
        if name not in given:
            return f"it has no input {name!r}"
    if more := [name for name in judge.input.get("required", ()) if name not in (CLAIM, EVIDENCE_INPUT)]:
        return f"it wants {more[0]!r} beside claim and evidence"
    said: Mapping[str, object] = judge.output.get("properties", {})
    for names in (SUPPORTED, CONTRADICTED):
        if not any(name in said for name in names):
            return f"it has no output {names[0]!r}"
    return ""


def _no_second(draft: Draft, judge: Contract) -> str:
    """Why an agent cannot answer what a node's callee is asked; empty where it can."""
    if draft.inputs is None:
        return "this node has no `with:`, and so no question that another could answer"
    if judge.kit is not None:
        return "it uses tools, and a check's question is one call"
    types = {name: part.schema for name, part in (draft.inputs.parts or {}).items()}
    given = types if draft.contract is None else custom_checks.own_types(draft.contract, types)
    missing = [name for name in judge.input.get("required", ()) if name not in given and name != EVIDENCE_INPUT]
    return f"it wants the input {missing[0]!r}, which this node does not have" if missing else ""


def _agrees(compiler: Compiler, draft: Draft, check: Named, place: Place) -> None:
    if draft.contract is None or draft.contract.kind != "agent":
        said = "`agree` asks the agent of its node again, and this node asks none"
        compiler.findings.fault("L073", said, place, hint="put it on the node that asks the agent")
    elif not draft.contract.max_output:
        said = f"`agree` asks a model again, and {draft.contract.name} asks none: it would say the same"
        compiler.findings.fault("L073", said, place, hint="leave it out")
    count = check.argument or str(SAMPLES)
    if not count.isdigit() or not 2 <= int(count) <= MOST_SAMPLES:
        said = f"`agree` takes a number of samples from 2 to {MOST_SAMPLES}, not {check.argument!r}"
        compiler.findings.fault("L074", said, place, hint=f"agree({SAMPLES})")
