"""Checks of a node, compiled: their rules read, their names known, and whom they ask found and held to what is asked of him."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from orchestra.agents.contract import Contract
from orchestra.core.errors import SourceLocation
from orchestra.schema.fields import CONTRADICTED, SUPPORTED
from orchestra.schema.json_schema import ANY, Schema
from orchestra.verification import custom_checks
from orchestra.verification.acceptance import parse_checks
from orchestra.verification.check_expression import AGREE, CheckCall, CheckSyntaxError, check_calls, parse_check
from orchestra.verification.custom_checks import TOOL
from orchestra.verification.entailment import CLAIM, ENTAILMENT, may_have_claims
from orchestra.verification.entailment import EVIDENCE as EVIDENCE_INPUT
from orchestra.verification.model_checks import MODEL_CHECKS, is_same_agent, judge_name
from orchestra.verification.rederivation import DEFAULT_SAMPLES, MAX_SAMPLES, REDERIVE
from orchestra.workflows.compile.inputs import KeyPath, join_names, suggestion
from orchestra.workflows.compile.nodes import NodeDraft
from orchestra.workflows.model import AnyNode

if TYPE_CHECKING:
    from orchestra.workflows.compile.compiler import Compiler

EVIDENCE_CHECKS = frozenset({"quote", "numbers", ENTAILMENT})
"""Checks that compare with evidence."""
EVIDENCE_READERS = EVIDENCE_CHECKS | {REDERIVE, AGREE, TOOL}
"""And those that show evidence to an agent or a tool, where there is some."""


class CompiledChecks(msgspec.Struct, frozen=True):
    """What the checks of a node are."""

    names: tuple[str, ...] = ()
    """Of the checks in them, each once."""
    uses_model_checks: bool = False
    judges: Mapping[str, Contract] = {}

    @property
    def evidence_checks(self) -> tuple[list[str], list[str]]:
        """Those that compare with evidence: which cannot do without it, and which can."""
        own = {name: judge for name, judge in self.judges.items() if judge.kind == "tool" and custom_checks.takes_evidence(judge)}
        without = [name for name, judge in own.items() if EVIDENCE_INPUT not in judge.input.get("required", ())]
        return [*(name for name in self.names if name in EVIDENCE_CHECKS), *(name for name in own if name not in without)], without


NO_CHECKS = CompiledChecks()


def compile_checks(compiler: Compiler, node: AnyNode, draft: NodeDraft, checks: tuple[str, ...], path: KeyPath) -> CompiledChecks:
    """The checks of a node. Faults are noted: L111 for a name that nothing has, L070 to L074 for what checks that ask agents need."""
    if not checks:
        return NO_CHECKS
    if not node.checks and compiler.catalog.checks.issuperset(checks) and not any(check in MODEL_CHECKS for check in checks):
        return CompiledChecks(tuple(checks))  # those of a card, as most have
    why = "" if node.checks or draft.contract is None else f"the card of {draft.contract.name} asks for this check"
    names: dict[str, None] = {}
    judges: dict[str, Contract] = {}
    for number, text in enumerate(checks):
        place = compiler.findings.place_of(*path, "checks", number) if node.checks else compiler.findings.place_of(*path, key=True)
        for check in _parse_checks(compiler, text, place, why):
            names[check.check] = None
            if check.check not in compiler.catalog.checks:
                _report_unknown_check(compiler, node, check.check, place)
            elif (judge := _resolve_judge(compiler, draft, check, place, why)) is not None:
                judges[judge_name(check)] = judge
    return CompiledChecks(tuple(names), any(name in MODEL_CHECKS for name in names), judges)


def validate_back_off(
    compiler: Compiler, node: AnyNode, checks: tuple[str, ...], names: tuple[str, ...], otherwise: Sequence[object], path: KeyPath
) -> None:
    """Notes what keeps a node from backing off (L075): its checks must say part by part what the evidence bears out, of a first answer."""
    findings = compiler.findings
    place = findings.place_of(*path, "otherwise", key=True) if node.otherwise else findings.place_of(*path, key=True)
    if not any(isinstance(rule, CheckCall) and rule.check == ENTAILMENT for rule in parse_checks(checks)):
        said = f"`back_off` needs the check `{ENTAILMENT}` by itself, which says part by part what the evidence bears out"
        findings.error("L075", said, place, hint=f"checks: [{ENTAILMENT}]")
    for name in names:
        if name in (REDERIVE, AGREE):
            findings.error("L075", f"`{name}` is about whole values, and `back_off` takes parts out of them", place, hint="leave it out")
    for again in otherwise:
        if again in ("retry", "escalate"):
            said = f"`back_off` keeps what is borne out of the first answer, and so `{again}` would never come"
            findings.error("L075", said, place, hint="otherwise: [back_off, abstain]")


def _parse_checks(compiler: Compiler, text: str, place: SourceLocation, why: str) -> Iterator[CheckCall]:
    """The checks of a rule; one of its whole text where it is none, which is noted (L072)."""
    try:
        return check_calls(parse_check(text))
    except CheckSyntaxError as error:
        hint = 'checks: [quote, numbers], or "quote | entailment", or "tool(NAME)"'
        compiler.findings.error("L072", f"{text!r} is no check: {error.reason}", place, hint=hint, why=why)
        return iter(())


def _report_unknown_check(compiler: Compiler, node: AnyNode, name: str, place: SourceLocation) -> None:
    """Notes a check that is not there (L111); those of cards are `unknown` when they are asked."""
    if node.checks:
        known = sorted(compiler.catalog.checks)
        own = f'checks: ["{custom_checks.tool_reference(name)}"] asks the tool of that name' if name in compiler.catalog.tools else ""
        hint = own or suggestion(name, known, f"checks: {join_names(known)}")
        compiler.findings.error("L111", f"there is no check {name!r}", place, hint=hint)


def _resolve_judge(compiler: Compiler, draft: NodeDraft, check: CheckCall, place: SourceLocation, why: str) -> Contract | None:
    """The agent or the tool that a check asks; None for one that asks nobody else, or that has a fault."""
    findings = compiler.findings
    if check.check not in MODEL_CHECKS:
        if check.argument:
            findings.error("L072", f"the check {check.check!r} takes nothing in brackets", place, hint=f"checks: [{check.check}]")
        return None
    if check.check == AGREE:
        _validate_agreement(compiler, draft, check, place)
        return None
    if check.check == TOOL:
        return _resolve_tool(compiler, draft, check, place, why)
    name = judge_name(check)
    if not name or name.isdigit():
        findings.error("L070", f"`{check.check}` needs the name of an agent", place, hint=f"{check.check}(NAME)", why=why)
        return None
    agents = compiler.catalog.agents
    if name in compiler.catalog.broken:
        findings.add_error(compiler.catalog.broken[name])
        return None
    if name not in agents:
        hint = suggestion(name, agents, f"{check.check}(NAME), one of {join_names(sorted(agents))}" if agents else "add the agent")
        findings.error("L070", f"the check `{check}` asks the agent {name!r}, and there is none", place, hint=hint, why=why)
        return None
    judge = agents[name]
    if draft.contract is not None and is_same_agent(judge, draft.contract):
        findings.warn(f"`{check}` asks the agent that is judged, so it is always `unknown`", place)
    misfit = _judge_mismatch(judge) if check.check == ENTAILMENT else _rederivation_mismatch(draft, judge)
    if misfit:
        findings.error("L071", f"the agent {name!r} cannot do `{check.check}`: {misfit}", place, hint="orchestra explain L071", why=why)
        return None
    if check.check == ENTAILMENT and draft.output != ANY and not may_have_claims(draft.output):
        findings.warn("`entailment` finds no text that claims anything in this type, so it is always `unknown`", place)
    return judge


def _resolve_tool(compiler: Compiler, draft: NodeDraft, check: CheckCall, place: SourceLocation, why: str) -> Contract | None:
    """The tool that a check asks; None for one that is not there, or cannot judge this value."""
    findings, own = compiler.findings, compiler.catalog.tools
    name = check.argument
    if not name or name.isdigit():
        findings.error("L070", "`tool` needs the name of a tool", place, hint=custom_checks.tool_reference("NAME"), why=why)
        return None
    if name not in own:
        hint = suggestion(name, own, f"there are: {join_names(sorted(own))}; your own come from `modules` in orchestra.toml")
        findings.error("L070", f"the check `{check}` asks the tool {name!r}, and there is none", place, hint=hint, why=why)
        return None
    given: dict[str, Schema] | None = None
    if draft.inputs is not None or draft.contract is None:  # a call without inputs has faults, which are noted already
        given = {key: part.schema for key, part in ((draft.inputs.parts if draft.inputs is not None else None) or {}).items()}
        given = given if draft.contract is None else custom_checks.producer_types(draft.contract, given)
    if misfit := custom_checks.signature_error(own[name], None if draft.output == ANY else draft.output, given):
        findings.error("L071", f"the tool {name!r} cannot judge this: {misfit}", place, hint="orchestra explain L071", why=why)
        return None
    return own[name]


def _judge_mismatch(judge: Contract) -> str:
    """Why an agent cannot judge claims; empty where it can."""
    given: Mapping[str, object] = judge.input.get("properties", {})
    if judge.tool_use is not None:
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


def _rederivation_mismatch(draft: NodeDraft, judge: Contract) -> str:
    """Why an agent cannot answer what a node's callee is asked; empty where it can."""
    if draft.inputs is None:
        return "this node has no `with:`, and so no question that another could answer"
    if judge.tool_use is not None:
        return "it uses tools, and a check's question is one call"
    types = {name: part.schema for name, part in (draft.inputs.parts or {}).items()}
    given = types if draft.contract is None else custom_checks.producer_types(draft.contract, types)
    missing = [name for name in judge.input.get("required", ()) if name not in given and name != EVIDENCE_INPUT]
    return f"it wants the input {missing[0]!r}, which this node does not have" if missing else ""


def _validate_agreement(compiler: Compiler, draft: NodeDraft, check: CheckCall, place: SourceLocation) -> None:
    if draft.contract is None or draft.contract.kind != "agent":
        said = "`agree` asks the agent of its node again, and this node asks none"
        compiler.findings.error("L073", said, place, hint="put it on the node that asks the agent")
    elif not draft.contract.max_output:
        said = f"`agree` asks a model again, and {draft.contract.name} asks none: it would say the same"
        compiler.findings.error("L073", said, place, hint="leave it out")
    count = check.argument or str(DEFAULT_SAMPLES)
    if not count.isdigit() or not 2 <= int(count) <= MAX_SAMPLES:
        said = f"`agree` takes a number of samples from 2 to {MAX_SAMPLES}, not {check.argument!r}"
        compiler.findings.error("L074", said, place, hint=f"agree({DEFAULT_SAMPLES})")
