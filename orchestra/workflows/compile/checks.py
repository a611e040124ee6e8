"""Compiles the acceptance of a node: its checks and their judges, the evidence, certificates and combinations of
scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from orchestra.agents.contract import Contract
from orchestra.core.errors import InputError, SourceLocation
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
from orchestra.workflows import model
from orchestra.workflows.compile.assemble import NodeDraft
from orchestra.workflows.compile.context import CompileContext, CompiledBody
from orchestra.workflows.compile.diagnostics import KeyPath, Types, join_names, suggestion, try_compile
from orchestra.workflows.model import AnyNode, Graph
from orchestra.workflows.program import Acceptance, Expression

if TYPE_CHECKING:
    from orchestra.verification.certificates.claims_file import ClaimsCertificate
    from orchestra.verification.certificates.combination import Combination
    from orchestra.verification.certificates.file import Certificate


EVIDENCE_CHECKS = frozenset({"quote", "numbers", ENTAILMENT})
"""The checks that compare a value with evidence."""


EVIDENCE_READERS = EVIDENCE_CHECKS | {REDERIVE, AGREE, TOOL}
"""The evidence checks, and the checks that pass evidence on to an agent or a tool."""


class CompiledChecks(msgspec.Struct, frozen=True):
    """The compiled checks of a node."""

    names: tuple[str, ...] = ()
    """The names of the checks, each once."""
    uses_model_checks: bool = False
    judges: Mapping[str, Contract] = {}

    @property
    def evidence_checks(self) -> tuple[list[str], list[str]]:
        """The checks that compare with evidence: those that require it, and those that can do without."""
        contracts = {
            name: judge
            for name, judge in self.judges.items()
            if judge.kind == "tool" and custom_checks.takes_evidence(judge)
        }
        without = [name for name, judge in contracts.items() if EVIDENCE_INPUT not in judge.input.get("required", ())]
        return [
            *(name for name in self.names if name in EVIDENCE_CHECKS),
            *(name for name in contracts if name not in without),
        ], without


NO_CHECKS = CompiledChecks()


def compile_acceptance(
    context: CompileContext, node: AnyNode, draft: NodeDraft, types: Types, path: KeyPath
) -> Acceptance:
    """Compiles the conditions of acceptance: those of the node, or those of its agent's card."""
    contract = draft.contract
    checks = node.checks or (contract.checks if contract is not None else ())
    findings = context.findings
    compiled_checks = compile_checks(context, node, draft, checks, path)
    if contract is not None and contract.effect == "transactional":
        message = f"the message of {contract.name} is in the outbox before checks can speak"
        hint = "put the checks on the node that makes its inputs"
        findings.error("L117", message, findings.location_of(*path, "checks" if node.checks else ""), hint=hint)
    against = _compile_evidence(context, node, contract, compiled_checks, types, path)
    accept = node.accept if node.accept is not None else contract.accept if contract is not None else None
    otherwise = node.otherwise or (contract.otherwise if contract is not None else ())
    backs_off = "back_off" in otherwise
    if backs_off:
        validate_back_off(context, node, checks, compiled_checks.names, otherwise, path)
    certificate, combination = None, _resolve_combination(context, node, contract, checks, path, backs_off=backs_off)
    if accept == "certified":
        from orchestra.verification.certificates.file import Certificate

        certificate = _resolve_certificate(context, node, contract, checks, path, claims=backs_off)
        if isinstance(certificate, Certificate) and not (node.score and combination is None):
            _check_score_match(context, node, certificate, combination, path)
        accept = certificate.threshold if certificate is not None else None
    if "retry" in otherwise and draft.kind not in ("agent", "tool"):
        findings.warn(
            f"a `{draft.kind}` node is not retried when its checks refuse: retries belong to the nodes inside",
            findings.location_of(*path),
        )
    otherwise = otherwise or ("abstain",)
    is_accepted_call = isinstance(node, model.CallNode) and isinstance(node.call, str) and node.accept is not None
    if certificate is not None and (again := [action for action in otherwise if action in ("retry", "escalate")]):
        message = f"what `{again[0]}` returns is accepted by the same threshold, but not covered by the certificate"
        findings.warn(
            f"{message}, which is about first answers; otherwise: [abstain] keeps to those", findings.location_of(*path)
        )
    return Acceptance(
        checks=checks,
        against=against,
        accept=0.5 if accept is None else float(accept),
        otherwise=otherwise,
        certificate=certificate,
        combination=combination,
        uses_model_checks=compiled_checks.uses_model_checks,
        judges=compiled_checks.judges,
        whole_workflow=is_accepted_call and frozenset(checks) == {model.CONFIDENCE},
    )


def _compile_evidence(
    context: CompileContext,
    node: AnyNode,
    contract: Contract | None,
    compiled_checks: CompiledChecks,
    types: Types,
    path: KeyPath,
) -> Expression | None:
    """Compiles the evidence: `against` of the node, or the evidence input of its agent's card."""
    findings, checks = context.findings, compiled_checks.names
    evidence_checks, able = compiled_checks.evidence_checks
    if node.against is not None:
        if EVIDENCE_READERS.isdisjoint(checks) and all(check in context.catalog.checks for check in checks):
            findings.error(
                "L117",
                "no check here needs `against`",
                findings.location_of(*path, "against", key=True),
                hint="checks: [quote]",
            )
        return try_compile(node.against, types, findings, (*path, "against"))
    if not evidence_checks and not able:
        return None
    input_templates = getattr(node, "with_", {})
    if contract is not None and contract.tool_use is not None:
        return None  # the evidence is the results of its tools, which are unknown here
    if contract is not None and contract.evidence in input_templates:
        return try_compile(input_templates[contract.evidence], types, findings, (*path, "with", contract.evidence))
    if not evidence_checks:
        return None
    location = findings.location_of(*path, "checks", key=True) if node.checks else findings.location_of(*path, key=True)
    reason = "" if node.checks or contract is None else f"the card of {contract.name} asks for this check"
    hint = "against: ${passage.text}, the text that the output must rest on"
    findings.error("L117", f"the check {evidence_checks[0]!r} needs `against`", location, hint=hint, why=reason)
    return None


def compile_checks(
    context: CompileContext, node: AnyNode, draft: NodeDraft, checks: tuple[str, ...], path: KeyPath
) -> CompiledChecks:
    """Compiles the checks of a node. Reports unknown checks (L111) and what the model checks lack (L070 to L074)."""
    if not checks:
        return NO_CHECKS
    if (
        not node.checks
        and context.catalog.checks.issuperset(checks)
        and not any(check in MODEL_CHECKS for check in checks)
    ):
        return CompiledChecks(tuple(checks))  # the common case: checks of a card
    reason = "" if node.checks or draft.contract is None else f"the card of {draft.contract.name} asks for this check"
    names: dict[str, None] = {}
    judges: dict[str, Contract] = {}
    for number, text in enumerate(checks):
        location = (
            context.findings.location_of(*path, "checks", number)
            if node.checks
            else context.findings.location_of(*path, key=True)
        )
        for check in _parse_checks(context, text, location, reason):
            names[check.check] = None
            if check.check not in context.catalog.checks:
                _report_unknown_check(context, node, check.check, location)
            elif (judge := _resolve_judge(context, draft, check, location, reason)) is not None:
                judges[judge_name(check)] = judge
    return CompiledChecks(tuple(names), any(name in MODEL_CHECKS for name in names), judges)


def validate_back_off(
    context: CompileContext,
    node: AnyNode,
    checks: tuple[str, ...],
    names: tuple[str, ...],
    otherwise: Sequence[object],
    path: KeyPath,
) -> None:
    """Reports what prevents a node from backing off (L075): its checks must judge each part of a first answer by the
    evidence.
    """
    findings = context.findings
    location = (
        findings.location_of(*path, "otherwise", key=True) if node.otherwise else findings.location_of(*path, key=True)
    )
    if not any(isinstance(rule, CheckCall) and rule.check == ENTAILMENT for rule in parse_checks(checks)):
        message = f"`back_off` needs the check `{ENTAILMENT}` itself, which judges each part by the evidence"
        findings.error("L075", message, location, hint=f"checks: [{ENTAILMENT}]")
    for name in names:
        if name in (REDERIVE, AGREE):
            findings.error(
                "L075",
                f"`{name}` is about whole values, and `back_off` removes parts of them",
                location,
                hint="leave it out",
            )
    for again in otherwise:
        if again in ("retry", "escalate"):
            message = f"`back_off` keeps the supported parts of the first answer, so `{again}` would never happen"
            findings.error("L075", message, location, hint="otherwise: [back_off, abstain]")


def _parse_checks(context: CompileContext, text: str, location: SourceLocation, reason: str) -> Iterator[CheckCall]:
    """Returns the checks of a rule; none for an invalid rule, which is reported (L072)."""
    try:
        return check_calls(parse_check(text))
    except CheckSyntaxError as error:
        hint = 'checks: [quote, numbers], or "quote | entailment", or "tool(NAME)"'
        context.findings.error("L072", f"{text!r} is not a check: {error.reason}", location, hint=hint, why=reason)
        return iter(())


def _report_unknown_check(context: CompileContext, node: AnyNode, name: str, location: SourceLocation) -> None:
    """Reports an unknown check (L111). An unknown check of a card has the verdict `unknown` at run time instead."""
    if node.checks:
        checks = sorted(context.catalog.checks)
        tool_hint = (
            f'checks: ["{custom_checks.tool_reference(name)}"] asks the tool of that name'
            if name in context.catalog.tools
            else ""
        )
        hint = tool_hint or suggestion(name, checks, f"checks: {join_names(checks)}")
        context.findings.error("L111", f"there is no check {name!r}", location, hint=hint)


def _resolve_judge(
    context: CompileContext, draft: NodeDraft, check: CheckCall, location: SourceLocation, reason: str
) -> Contract | None:
    """Returns the agent or tool that a check calls; None if it calls none or is invalid."""
    findings = context.findings
    if check.check not in MODEL_CHECKS:
        if check.argument:
            findings.error(
                "L072", f"the check {check.check!r} takes no argument", location, hint=f"checks: [{check.check}]"
            )
        return None
    if check.check == AGREE:
        _validate_agreement(context, draft, check, location)
        return None
    if check.check == TOOL:
        return _resolve_tool(context, draft, check, location, reason)
    name = judge_name(check)
    if not name or name.isdigit():
        findings.error(
            "L070", f"`{check.check}` needs the name of an agent", location, hint=f"{check.check}(NAME)", why=reason
        )
        return None
    agents = context.catalog.agents
    if name in context.catalog.broken:
        findings.add_error(context.catalog.broken[name])
        return None
    if name not in agents:
        hint = suggestion(
            name, agents, f"{check.check}(NAME), one of {join_names(sorted(agents))}" if agents else "add the agent"
        )
        findings.error(
            "L070",
            f"the check `{check}` needs the agent {name!r}, which does not exist",
            location,
            hint=hint,
            why=reason,
        )
        return None
    judge = agents[name]
    if draft.contract is not None and is_same_agent(judge, draft.contract):
        findings.warn(f"`{check}` calls the agent that it judges, so it is always `unknown`", location)
    misfit = _judge_mismatch(judge) if check.check == ENTAILMENT else _rederivation_mismatch(draft, judge)
    if misfit:
        findings.error(
            "L071",
            f"the agent {name!r} cannot do `{check.check}`: {misfit}",
            location,
            hint="orchestra explain L071",
            why=reason,
        )
        return None
    if check.check == ENTAILMENT and draft.output != ANY and not may_have_claims(draft.output):
        findings.warn(
            "`entailment` finds no text that claims anything in this type, so it is always `unknown`", location
        )
    return judge


def _resolve_tool(
    context: CompileContext, draft: NodeDraft, check: CheckCall, location: SourceLocation, reason: str
) -> Contract | None:
    """Returns the tool that a check calls; None if it is unknown or cannot judge this value."""
    findings, known_tools = context.findings, context.catalog.tools
    name = check.argument
    if not name or name.isdigit():
        findings.error(
            "L070", "`tool` needs the name of a tool", location, hint=custom_checks.tool_reference("NAME"), why=reason
        )
        return None
    if name not in known_tools:
        hint = suggestion(
            name,
            known_tools,
            f"there are: {join_names(sorted(known_tools))}; your own come from `modules` in orchestra.toml",
        )
        findings.error(
            "L070",
            f"the check `{check}` needs the tool {name!r}, which does not exist",
            location,
            hint=hint,
            why=reason,
        )
        return None
    argument_types: dict[str, Schema] | None = None
    if draft.inputs is not None or draft.contract is None:  # a call without inputs is invalid and reported already
        argument_types = {
            key: part.schema for key, part in ((draft.inputs.parts if draft.inputs is not None else None) or {}).items()
        }
        argument_types = (
            argument_types if draft.contract is None else custom_checks.producer_types(draft.contract, argument_types)
        )
    if misfit := custom_checks.signature_error(
        known_tools[name], None if draft.output == ANY else draft.output, argument_types
    ):
        findings.error(
            "L071",
            f"the tool {name!r} cannot judge this: {misfit}",
            location,
            hint="orchestra explain L071",
            why=reason,
        )
        return None
    return known_tools[name]


def _judge_mismatch(judge: Contract) -> str:
    """Returns why an agent cannot judge claims; empty if it can."""
    judge_inputs: Mapping[str, object] = judge.input.get("properties", {})
    if judge.tool_use is not None:
        return "it uses tools, and a check's question is one call"
    for name in (CLAIM, EVIDENCE_INPUT):
        if name not in judge_inputs:
            return f"it has no input {name!r}"
    if extra_inputs := [name for name in judge.input.get("required", ()) if name not in (CLAIM, EVIDENCE_INPUT)]:
        return f"it requires {extra_inputs[0]!r} besides claim and evidence"
    judge_outputs: Mapping[str, object] = judge.output.get("properties", {})
    for names in (SUPPORTED, CONTRADICTED):
        if not any(name in judge_outputs for name in names):
            return f"it has no output {names[0]!r}"
    return ""


def _rederivation_mismatch(draft: NodeDraft, judge: Contract) -> str:
    """Returns why an agent cannot answer the question of the node's callee; empty if it can."""
    if draft.inputs is None:
        return "this node has no `with:`, and so no question that another could answer"
    if judge.tool_use is not None:
        return "it uses tools, and a check's question is one call"
    types = {name: part.schema for name, part in (draft.inputs.parts or {}).items()}
    producer_types = types if draft.contract is None else custom_checks.producer_types(draft.contract, types)
    missing = [
        name for name in judge.input.get("required", ()) if name not in producer_types and name != EVIDENCE_INPUT
    ]
    return f"it requires the input {missing[0]!r}, which this node does not have" if missing else ""


def _validate_agreement(context: CompileContext, draft: NodeDraft, check: CheckCall, location: SourceLocation) -> None:
    if draft.contract is None or draft.contract.kind != "agent":
        message = "`agree` calls the agent of its node again, and this node calls none"
        context.findings.error("L073", message, location, hint="put it on the node that calls the agent")
    elif not draft.contract.max_output:
        message = f"`agree` calls a model again, and {draft.contract.name} calls none: the answer would be the same"
        context.findings.error("L073", message, location, hint="leave it out")
    count = check.argument or str(DEFAULT_SAMPLES)
    if not count.isdigit() or not 2 <= int(count) <= MAX_SAMPLES:
        message = f"`agree` takes a number of samples from 2 to {MAX_SAMPLES}, not {check.argument!r}"
        context.findings.error("L074", message, location, hint=f"agree({DEFAULT_SAMPLES})")


def _resolve_certificate(
    context: CompileContext,
    node: AnyNode,
    contract: Contract | None,
    checks: tuple[str, ...],
    path: KeyPath,
    *,
    claims: bool,
) -> Certificate | ClaimsCertificate | None:
    """Returns the certificate of `accept: certified`, of whole answers or of `claims`. Reports a missing or unusable
    one (L119, V002 on).
    """
    findings = context.findings
    location = findings.location_of(*path, "accept") if node.accept is not None else findings.location_of(*path)
    if isinstance(node, model.CallNode) and isinstance(node.call, str) and not claims:
        if frozenset(checks) == {model.CONFIDENCE}:
            return _workflow_certificate(context, node.call, (*path, "accept"))
        message = f"the certificate of a workflow is about how sure it is, and this node has {join_names(checks)}"
        findings.error("V005", message, location, hint=f"checks: [{model.CONFIDENCE}]")
        return None
    if contract is None or contract.kind != "agent":
        reason = "certificates are for agents, and this node calls none"
        name = contract.name if contract is not None else path[-1]
        findings.error("L119", f"there is no certificate for {name!r}", location, hint="accept: 0.5", why=reason)
        return None
    option = " --claims" if claims else ""
    try:
        claims_certificates = context.catalog.claims_certificates if claims else context.catalog.certificates
        certificate: Certificate | ClaimsCertificate | None = claims_certificates.get(contract.name)
    except InputError as error:
        reason = error.why or (str(error.location) if error.location is not None else "")
        findings.error(error.code, error.message, location, hint=error.hint, why=reason)
        return None
    if certificate is None:
        of = f"of {contract.name!r} about claims" if claims else f"for {contract.name!r}"
        findings.error(
            "L119",
            f"there is no certificate {of}",
            location,
            hint=f"orchestra certify {contract.name}{option} --data FILE",
        )
        return None
    from orchestra.verification.certificates.claims_file import ClaimsCertificate

    if isinstance(certificate, ClaimsCertificate):
        # Additional checks only withhold more, so the guarantee for accepted claims still holds.
        if certificate.check not in checks:
            message = (
                f"the certificate of {contract.name!r} is about claims that {certificate.check} scores, "
                f"and this node has {join_names(checks)}"
            )
            findings.error("V005", message, location, hint=f"checks: [{certificate.check}]")
            return None
    elif frozenset(certificate.checks) != frozenset(checks):
        message = (
            f"the certificate of {contract.name!r} is about the checks {join_names(certificate.checks)}, "
            f"and this node has {join_names(checks)}"
        )
        hint = f"checks: [{', '.join(certificate.checks)}], or {certificate.renew_command} --checks {','.join(checks)}"
        findings.error("V005", message, location, hint=hint)
        return None
    input_templates = getattr(node, "with_", {})
    if node.against is not None and contract.evidence and node.against != input_templates.get(contract.evidence):
        message = (
            f"the certificate of {contract.name!r} is about answers judged against the input {contract.evidence!r}"
        )
        findings.error(
            "V005",
            message,
            findings.location_of(*path, "against"),
            hint=f"against: {input_templates.get(contract.evidence, '')}",
        )
        return None
    return certificate


def _resolve_combination(
    context: CompileContext,
    node: AnyNode,
    contract: Contract | None,
    checks: tuple[str, ...],
    path: KeyPath,
    *,
    backs_off: bool,
) -> Combination | None:
    """Returns the combination of `score: combined`. Reports a missing or unusable one (L076, V002 on)."""
    if node.score is None:
        return None
    findings, location = context.findings, context.findings.location_of(*path, "score")
    if backs_off:
        message = "`back_off` keeps parts by what `entailment` says of each, and a combination is about whole values"
        findings.error("L076", message, location, hint="leave one of them out")
        return None
    if contract is None or contract.kind != "agent":
        name = contract.name if contract is not None else path[-1]
        reason = "combinations are for agents, and this node calls none"
        findings.error(
            "L076", f"there is no combination of checks for {name!r}", location, hint="leave `score` out", why=reason
        )
        return None
    checks_option = f"--checks '{','.join(checks)}'"
    try:
        combination: Combination | None = context.catalog.combinations.get(contract.name)
    except InputError as error:
        reason = error.why or (str(error.location) if error.location is not None else "")
        findings.error(error.code, error.message, location, hint=error.hint, why=reason)
        return None
    if combination is None:
        message = f"there is no combination of checks for {contract.name!r}"
        findings.error(
            "L076", message, location, hint=f"orchestra learn combine {contract.name} --data FILE {checks_option}"
        )
        return None
    from orchestra.verification.acceptance import parse_checks

    if frozenset(combination.checks) != frozenset(map(str, parse_checks(checks))):
        message = (
            f"the combination of {contract.name!r} uses the checks {join_names(combination.checks)}, "
            f"and this node has {join_names(checks)}"
        )
        hint = (
            f"checks: [{', '.join(combination.checks)}], or orchestra learn combine {contract.name} --data FILE "
            f"{checks_option}"
        )
        findings.error("V005", message, location, hint=hint)
        return None
    return combination


def _check_score_match(
    context: CompileContext, node: AnyNode, certificate: Certificate, combination: Combination | None, path: KeyPath
) -> None:
    """Reports a certificate of another score than the node's (V005)."""
    mark = combination.digest if combination is not None else ""
    if (certificate.combination or "") == mark:
        return
    of = (
        "the lowest score of the checks"
        if not certificate.combination
        else "what a combination makes of the scores of the checks"
    )
    message = f"the certificate of {certificate.agent!r} is about {of}, and this node has another score"
    if certificate.combination and mark:
        message = (
            f"the certificate of {certificate.agent!r} is about a combination of checks that is not the one of today"
        )
    option = " --combined" if mark else ""
    location = (
        context.findings.location_of(*path, "accept")
        if node.accept is not None
        else context.findings.location_of(*path)
    )
    context.findings.error("V005", message, location, hint=f"orchestra certify {certificate.agent} --data FILE{option}")


def enclose_workflow(context: CompileContext, graph: Graph, body: CompiledBody) -> CompiledBody:
    """Wraps the body of a workflow in one node that checks its output."""
    enclosed_node = graph.as_single_node
    name, node = next(iter(enclosed_node.nodes.items()))
    accept, certificate = graph.accept, None
    if accept == "certified":
        certificate = _workflow_certificate(context, graph.name, ("accept",))
        accept = certificate.threshold if certificate is not None else 0.0
    acceptance = Acceptance((model.CONFIDENCE,), None, float(accept or 0), certificate=certificate, whole_workflow=True)
    draft = NodeDraft(
        kind="call", output=body.schema, body=body.to_program(graph.name), acceptance=acceptance, always_present=False
    )
    output_expression = try_compile(enclosed_node.output, {name: body.schema}, context.findings, ("output",))
    assert output_expression is not None, "it is one reference"
    only = draft.build_node(0, name, node, (), (), frozenset(), 1)
    return replace(
        body, nodes=(only,), output=output_expression, always_present=False, types={}, present_nodes=frozenset()
    )


def _workflow_certificate(context: CompileContext, name: str, path: KeyPath) -> Certificate | None:
    """Returns the certificate of a workflow as a whole. Reports a missing or unusable one (L119, V002 on)."""
    findings, location = context.findings, context.findings.location_of(*path)
    try:
        certificate: Certificate | None = context.catalog.workflow_certificates.get(name)
    except InputError as error:
        reason = error.why or (str(error.location) if error.location is not None else "")
        findings.error(error.code, error.message, location, hint=error.hint, why=reason)
        return None
    if certificate is None:
        message = f"there is no certificate for the workflow {name!r}"
        findings.error("L119", message, location, hint=f"orchestra certify {name} --data FILE")
    return certificate
