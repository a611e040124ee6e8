"""Modifiers: what any node may carry, compiled and checked: `each`, `when`, `fallback`, acceptance, retry, timeout."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestra.agents.contract import Contract, Schema
from orchestra.core.errors import InputError
from orchestra.schema.json_schema import ANY, element_type, format_type, resolve, subschema, union_members
from orchestra.workflows import model
from orchestra.workflows.compile import agent_choice
from orchestra.workflows.compile.inputs import KeyPath, Types, as_reference, check_assignable, join_names, try_compile, widen_constant_list
from orchestra.workflows.compile.nodes import NodeDraft, TypeScope, compile_condition, compile_kind
from orchestra.workflows.compile.ordering import NodeReferences, referenced_names
from orchestra.workflows.expressions.coverage import combine_conditions, when_conditions
from orchestra.workflows.expressions.parser import KEYWORDS, sole_reference
from orchestra.workflows.model import DEFAULT_RETRY, AnyNode, Graph
from orchestra.workflows.program import Acceptance, Expression

if TYPE_CHECKING:
    from orchestra.verification.certificates.claims_file import ClaimsCertificate
    from orchestra.verification.certificates.combination import Combination
    from orchestra.verification.certificates.file import Certificate
    from orchestra.workflows.compile.checks import CompiledChecks
    from orchestra.workflows.compile.compiler import CompiledBody, Compiler

_MODIFIERS = frozenset(model.Node.model_fields) - {"after"} | {"escalate"}
"""What a bare node has nothing of."""


def compile_node(compiler: Compiler, name: str, node: AnyNode, types: TypeScope, reads: NodeReferences, path: KeyPath) -> NodeDraft:
    """A node, compiled: its kind, then its modifiers. Notes whether it always has a value."""
    if not reads.is_plain_call:
        return _compile_node(compiler, name, node, types, reads, path)
    draft = compile_kind(compiler, name, node, types, path, reads)
    if draft.contract is not None and draft.contract.checks:
        _apply_modifiers(compiler, node, draft, types, path)
    else:
        draft.retry, draft.timeout = compiler.defaults.retry or DEFAULT_RETRY, compiler.defaults.timeout
    compiler.always_present[name] = draft.acceptance is None and compiler.all_present(reads.hard)
    if not compiler.always_present[name]:
        compiler.presence_conditions[name] = compiler.conditions_of(reads.hard) if draft.acceptance is None else None
    return draft


def _compile_node(compiler: Compiler, name: str, node: AnyNode, types: TypeScope, reads: NodeReferences, path: KeyPath) -> NodeDraft:
    bare = node.model_fields_set.isdisjoint(_MODIFIERS)
    items, found = (None, ANY) if bare else _compile_each(compiler, node, types, path)
    hidden = types.get(node.as_) if node.as_ else None
    if node.as_:
        types[node.as_] = found
    draft = compile_kind(compiler, name, node, types, path, reads)
    draft.each = items
    if isinstance(node, model.AgentNode) and agent_choice.choice_of(node) is not None:
        _apply_modifiers(compiler, agent_choice.outer_node(node), draft, types, path)
        draft.timeout = None  # of an attempt, and so its agents'
    elif bare and not isinstance(node, model.VerifyNode) and (draft.contract is None or not draft.contract.checks):
        draft.retry, draft.timeout = compiler.defaults.retry or DEFAULT_RETRY, compiler.defaults.timeout
    else:
        _apply_modifiers(compiler, node, draft, types, path)
    if node.as_:
        del types[node.as_]
        if hidden is not None:
            types[node.as_] = hidden
    alone = node.each is not None or (draft.always_present and draft.acceptance is None)
    held = alone and (node.when is None or _is_per_element(node)) and compiler.all_present(reads.hard)
    fallback = draft.fallback
    compiler.always_present[name] = held or (fallback is not None and compiler.all_present(fallback.references))
    if not compiler.always_present[name]:
        own = () if _is_per_element(node) else when_conditions(node.when)
        compiler.presence_conditions[name] = combine_conditions((own, compiler.conditions_of(reads.hard))) if alone else None
    return draft


def _is_per_element(node: AnyNode) -> bool:
    """Whether `when` is asked of each element: then it drops elements, and not the node."""
    return node.as_ is not None and node.as_ in referenced_names(node.when)


def _compile_each(compiler: Compiler, node: AnyNode, types: TypeScope, path: KeyPath) -> tuple[Expression | None, Schema]:
    """The list of a node under `each`, and the type of one element."""
    findings = compiler.findings
    if node.each is None:
        for key in ("as_", "limit", "concurrency", "at_least"):
            if getattr(node, key) is not None:
                word = key.rstrip("_")
                findings.error("L117", f"`{word}` goes with `each`", findings.place_of(*path, word, key=True), hint="each: ${list}")
        return None, ANY
    items = try_compile(node.each, types, findings, (*path, "each"))
    found: Schema = ANY
    if items is not None and items.schema != ANY:
        element = element_type(widen_constant_list(items.schema))
        if isinstance(element, str):
            hint = f"each: {as_reference(node.each)}" if as_reference(node.each) else _list_hint(items.schema, node.each)
            findings.error("L114", f"`each` takes a list, got {format_type(items.schema)}", findings.place_of(*path, "each"), hint=hint)
        else:
            found = element
    if node.as_ is None:
        hint = "as: item, which the other keys then refer to"
        findings.error("L117", "`each` needs `as`", findings.place_of(*path, "each", key=True), hint=hint)
        return items, found
    if node.as_ in KEYWORDS:
        hint = f"call it {node.as_}_"
        findings.error("L115", f"{node.as_!r} is a word of the expression language", findings.place_of(*path, "as"), hint=hint)
    elif compiler.is_in_scope(node.as_, types):
        hint = "give the element a name of its own"
        findings.error("L115", f"{node.as_!r} hides another of that name", findings.place_of(*path, "as"), hint=hint)
    return items, found


def _list_hint(schema: Schema, written: str) -> str:
    """A field of a record that is a list, or what to do about null."""
    text = sole_reference(written)
    if text and any(part.get("type") == "null" for part in union_members(schema)):
        return f"say what stands there for null: ${{{text} != null ? {text} : []}}"
    fields = resolve(schema).get("properties", {})
    lists = [name for name, part in fields.items() if isinstance(element_type(subschema(schema, part)), dict) and part]
    return f"did you mean ${{{text}.{lists[0]}}}?" if text and lists else "give it a list, such as ${documents}"


def _apply_modifiers(compiler: Compiler, node: AnyNode, draft: NodeDraft, types: Types, path: KeyPath) -> None:
    """Adds what the modifiers say. `types` are the names that one element sees."""
    if node.when is not None:
        draft.when = compile_condition(compiler, node.when, types, (*path, "when"))
    if node.fallback is not None:
        draft.fallback = try_compile(node.fallback, types, compiler.findings, (*path, "fallback"))
        if draft.fallback is not None and draft.output != ANY:
            check_assignable("`fallback`", draft.fallback.schema, draft.output, compiler.findings, (*path, "fallback"), node.fallback)
    draft.variable = node.as_ or ""
    draft.limit = node.limit or 10_000
    draft.concurrency, draft.at_least = node.concurrency, node.at_least
    if isinstance(node.at_least, int) and node.at_least > draft.limit:
        said = f"`at_least: {node.at_least}` can never be met: the list has {draft.limit:,} elements at most"
        compiler.findings.error(
            "L118", said, compiler.findings.place_of(*path, "at_least"), hint=f"at_least: {draft.limit}, or at_least: all"
        )
    draft.retry = node.retry or compiler.defaults.retry or DEFAULT_RETRY
    draft.timeout = node.timeout or compiler.defaults.timeout
    draft.acceptance = _compile_acceptance(compiler, node, draft, types, path)
    if isinstance(node, model.AgentNode) and node.escalate is not None:
        draft.escalate = _compile_escalation(compiler, node.escalate, draft, types, (*path, "escalate"))


def _compile_escalation(compiler: Compiler, text: str, draft: NodeDraft, types: Types, path: KeyPath) -> Expression | None:
    """The condition on which the larger model is asked at once. An agent with tools is asked line by line, and has no such condition."""
    findings = compiler.findings
    if draft.contract is not None and draft.contract.tool_use is not None:
        why = f"{draft.contract.name} uses tools, and each of its lines is a call of its own"
        hint = "name the larger model in the agent's card"
        findings.error("L117", "`escalate` goes with an agent without tools", findings.place_of(*path, key=True), hint=hint, why=why)
    if draft.acceptance is not None and draft.acceptance.certificate is not None:
        findings.warn("what the larger model says at once is without the promise of the certificate", findings.place_of(*path))
    return compile_condition(compiler, text, types, path)


def _compile_acceptance(compiler: Compiler, node: AnyNode, draft: NodeDraft, types: Types, path: KeyPath) -> Acceptance | None:
    """When the node's value is accepted: as it says, else as its agent's card does."""
    contract = draft.contract
    checks = node.checks or (contract.checks if contract is not None else ())
    findings = compiler.findings
    if not checks:
        _reject_check_keys(compiler, node, path)
        return None
    from orchestra.workflows.compile import checks as checks_module

    asked = checks_module.compile_checks(compiler, node, draft, checks, path)
    if contract is not None and contract.effect == "transactional":
        said = f"the message of {contract.name} is in the outbox before checks can speak"
        hint = "put the checks on the node that makes its inputs"
        findings.error("L117", said, findings.place_of(*path, "checks" if node.checks else ""), hint=hint)
    against = _compile_evidence(compiler, node, contract, asked, types, path)
    accept = node.accept if node.accept is not None else contract.accept if contract is not None else None
    otherwise = node.otherwise or (contract.otherwise if contract is not None else ())
    backs_off = "back_off" in otherwise
    if backs_off:
        checks_module.validate_back_off(compiler, node, checks, asked.names, otherwise, path)
    certificate, combination = None, _resolve_combination(compiler, node, contract, checks, path, backs_off=backs_off)
    if accept == "certified":
        from orchestra.verification.certificates.file import Certificate

        certificate = _resolve_certificate(compiler, node, contract, checks, path, claims=backs_off)
        if isinstance(certificate, Certificate) and not (node.score and combination is None):
            _check_score_match(compiler, node, certificate, combination, path)
        accept = certificate.threshold if certificate is not None else None
    if "retry" in otherwise and draft.kind not in ("agent", "tool"):
        findings.warn(
            f"a `{draft.kind}` node is not retried when its checks refuse: retries belong to the nodes inside", findings.place_of(*path)
        )
    otherwise = otherwise or ("abstain",)
    called = isinstance(node, model.CallNode) and isinstance(node.call, str) and node.accept is not None
    if certificate is not None and (again := [action for action in otherwise if action in ("retry", "escalate")]):
        said = f"what `{again[0]}` brings is accepted by the same threshold, but without the promise of the certificate"
        findings.warn(f"{said}, which is about first answers; otherwise: [abstain] keeps to those", findings.place_of(*path))
    return Acceptance(
        checks=checks,
        against=against,
        accept=0.5 if accept is None else float(accept),
        otherwise=otherwise,
        certificate=certificate,
        combination=combination,
        uses_model_checks=asked.uses_model_checks,
        judges=asked.judges,
        whole_workflow=called and frozenset(checks) == {model.CONFIDENCE},
    )


def enclose_workflow(compiler: Compiler, graph: Graph, body: CompiledBody) -> CompiledBody:
    """A workflow's own body, enclosed in a node that judges what it gives."""
    enclosed = graph.as_single_node
    name, node = next(iter(enclosed.nodes.items()))
    accept, certificate = graph.accept, None
    if accept == "certified":
        certificate = _workflow_certificate(compiler, graph.name, ("accept",))
        accept = certificate.threshold if certificate is not None else 0.0
    acceptance = Acceptance((model.CONFIDENCE,), None, float(accept or 0), certificate=certificate, whole_workflow=True)
    draft = NodeDraft(kind="call", output=body.schema, body=body.to_program(graph.name), acceptance=acceptance, always_present=False)
    made = try_compile(enclosed.output, {name: body.schema}, compiler.findings, ("output",))
    assert made is not None, "it is one reference"
    only = draft.build_node(0, name, node, (), (), frozenset(), 1)
    return replace(body, nodes=(only,), output=made, always_present=False, types={}, present_nodes=frozenset())


def _workflow_certificate(compiler: Compiler, name: str, path: KeyPath) -> Certificate | None:
    """The certificate of a workflow as a whole; where there is none that holds, that is noted (L119, V002 on)."""
    findings, place = compiler.findings, compiler.findings.place_of(*path)
    try:
        found: Certificate | None = compiler.catalog.workflow_certificates.get(name)
    except InputError as error:
        why = error.why or (str(error.location) if error.location is not None else "")
        findings.error(error.code, error.message, place, hint=error.hint, why=why)
        return None
    if found is None:
        said = f"there is no certificate for the workflow {name!r}"
        findings.error("L119", said, place, hint=f"orchestra certify {name} --data FILE")
    return found


def _reject_check_keys(compiler: Compiler, node: AnyNode, path: KeyPath) -> None:
    """Notes what a node states of its checks, where it has none."""
    findings = compiler.findings
    for key in ("against", "score", "accept", "otherwise"):
        if getattr(node, key) not in (None, ()):
            findings.error("L117", f"`{key}` goes with `checks`", findings.place_of(*path, key, key=True), hint="checks: [quote]")
    if isinstance(node, model.VerifyNode):
        findings.error("L117", "a `verify` node needs `checks`", findings.place_of(*path, key=True), hint="checks: [quote]")


def _resolve_certificate(
    compiler: Compiler, node: AnyNode, contract: Contract | None, checks: tuple[str, ...], path: KeyPath, *, claims: bool
) -> Certificate | ClaimsCertificate | None:
    """What `accept: certified` stands for, of whole answers or of their `claims`; where nothing does, that is noted (L119, V002 on)."""
    findings = compiler.findings
    place = findings.place_of(*path, "accept") if node.accept is not None else findings.place_of(*path)
    if isinstance(node, model.CallNode) and isinstance(node.call, str) and not claims:
        if frozenset(checks) == {model.CONFIDENCE}:
            return _workflow_certificate(compiler, node.call, (*path, "accept"))
        said = f"the certificate of a workflow is about how sure it is, and this node has {join_names(checks)}"
        findings.error("V005", said, place, hint=f"checks: [{model.CONFIDENCE}]")
        return None
    if contract is None or contract.kind != "agent":
        why = "certificates are of agents, and this node asks none"
        name = contract.name if contract is not None else path[-1]
        findings.error("L119", f"there is no certificate for {name!r}", place, hint="accept: 0.5", why=why)
        return None
    option = " --claims" if claims else ""
    try:
        known = compiler.catalog.claims_certificates if claims else compiler.catalog.certificates
        found: Certificate | ClaimsCertificate | None = known.get(contract.name)
    except InputError as error:
        why = error.why or (str(error.location) if error.location is not None else "")
        findings.error(error.code, error.message, place, hint=error.hint, why=why)
        return None
    if found is None:
        of = f"of {contract.name!r} about claims" if claims else f"for {contract.name!r}"
        findings.error("L119", f"there is no certificate {of}", place, hint=f"orchestra certify {contract.name}{option} --data FILE")
        return None
    from orchestra.verification.certificates.claims_file import ClaimsCertificate

    if isinstance(found, ClaimsCertificate):
        # Other checks only withhold more, which no promise about what is kept suffers from.
        if found.check not in checks:
            said = f"the certificate of {contract.name!r} is about claims that {found.check} scores, and this node has {join_names(checks)}"
            findings.error("V005", said, place, hint=f"checks: [{found.check}]")
            return None
    elif frozenset(found.checks) != frozenset(checks):
        said = (
            f"the certificate of {contract.name!r} is about the checks {join_names(found.checks)}, and this node has {join_names(checks)}"
        )
        hint = f"checks: [{', '.join(found.checks)}], or {found.renew_command} --checks {','.join(checks)}"
        findings.error("V005", said, place, hint=hint)
        return None
    given = getattr(node, "with_", {})
    if node.against is not None and contract.evidence and node.against != given.get(contract.evidence):
        said = f"the certificate of {contract.name!r} is about answers judged against the input {contract.evidence!r}"
        findings.error("V005", said, findings.place_of(*path, "against"), hint=f"against: {given.get(contract.evidence, '')}")
        return None
    return found


def _resolve_combination(
    compiler: Compiler, node: AnyNode, contract: Contract | None, checks: tuple[str, ...], path: KeyPath, *, backs_off: bool
) -> Combination | None:
    """What `score: combined` stands for; where nothing does, that is noted (L076, V002 on)."""
    if node.score is None:
        return None
    findings, place = compiler.findings, compiler.findings.place_of(*path, "score")
    if backs_off:
        said = "`back_off` keeps parts by what `entailment` says of each, and a combination is about whole values"
        findings.error("L076", said, place, hint="leave one of them out")
        return None
    if contract is None or contract.kind != "agent":
        name = contract.name if contract is not None else path[-1]
        why = "combinations are of agents, and this node asks none"
        findings.error("L076", f"there is no combination of checks for {name!r}", place, hint="leave `score` out", why=why)
        return None
    stated = f"--checks '{','.join(checks)}'"
    try:
        found: Combination | None = compiler.catalog.combinations.get(contract.name)
    except InputError as error:
        why = error.why or (str(error.location) if error.location is not None else "")
        findings.error(error.code, error.message, place, hint=error.hint, why=why)
        return None
    if found is None:
        said = f"there is no combination of checks for {contract.name!r}"
        findings.error("L076", said, place, hint=f"orchestra learn combine {contract.name} --data FILE {stated}")
        return None
    from orchestra.verification.acceptance import parse_checks

    if frozenset(found.checks) != frozenset(map(str, parse_checks(checks))):
        said = f"the combination of {contract.name!r} is of the checks {join_names(found.checks)}, and this node has {join_names(checks)}"
        hint = f"checks: [{', '.join(found.checks)}], or orchestra learn combine {contract.name} --data FILE {stated}"
        findings.error("V005", said, place, hint=hint)
        return None
    return found


def _check_score_match(compiler: Compiler, node: AnyNode, certificate: Certificate, combination: Combination | None, path: KeyPath) -> None:
    """Notes a certificate of another score than the node's (V005)."""
    mark = combination.digest if combination is not None else ""
    if (certificate.combination or "") == mark:
        return
    of = "the lowest score of the checks" if not certificate.combination else "what a combination makes of the scores of the checks"
    said = f"the certificate of {certificate.agent!r} is about {of}, and this node has another score"
    if certificate.combination and mark:
        said = f"the certificate of {certificate.agent!r} is about a combination of checks that is not the one of today"
    more = " --combined" if mark else ""
    place = compiler.findings.place_of(*path, "accept") if node.accept is not None else compiler.findings.place_of(*path)
    compiler.findings.error("V005", said, place, hint=f"orchestra certify {certificate.agent} --data FILE{more}")


def _compile_evidence(
    compiler: Compiler, node: AnyNode, contract: Contract | None, asked: CompiledChecks, types: Types, path: KeyPath
) -> Expression | None:
    """The evidence: as the node says, else the input that its agent's card names."""
    from orchestra.workflows.compile import checks as checks_module

    findings, checks = compiler.findings, asked.names
    wanting, able = asked.evidence_checks
    if node.against is not None:
        if checks_module.EVIDENCE_READERS.isdisjoint(checks) and all(check in compiler.catalog.checks for check in checks):
            findings.error("L117", "no check here needs `against`", findings.place_of(*path, "against", key=True), hint="checks: [quote]")
        return try_compile(node.against, types, findings, (*path, "against"))
    if not wanting and not able:
        return None
    given = getattr(node, "with_", {})
    if contract is not None and contract.tool_use is not None:
        return None  # what its tools gave, which nobody knows yet
    if contract is not None and contract.evidence in given:
        return try_compile(given[contract.evidence], types, findings, (*path, "with", contract.evidence))
    if not wanting:
        return None
    place = findings.place_of(*path, "checks", key=True) if node.checks else findings.place_of(*path, key=True)
    why = "" if node.checks or contract is None else f"the card of {contract.name} asks for this check"
    hint = "against: ${passage.text}, the text that the output must rest on"
    findings.error("L117", f"the check {wanting[0]!r} needs `against`", place, hint=hint, why=why)
    return None
