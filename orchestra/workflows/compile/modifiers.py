"""Modifiers: what any node may carry, compiled and checked: `each`, `when`, `fallback`, acceptance, retry, timeout."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestra.agents.contract import Contract, Schema
from orchestra.core.errors import InputError
from orchestra.schema.json_schema import ANY, branches, elements, resolve, show, under
from orchestra.workflows import model
from orchestra.workflows.compile import agent_choice
from orchestra.workflows.compile.inputs import Path, Types, compiled, fits, listed, typed, unreferenced
from orchestra.workflows.compile.nodes import Draft, Names, condition, drafted
from orchestra.workflows.compile.ordering import Uses, names_in
from orchestra.workflows.expressions.coverage import of_when, together
from orchestra.workflows.expressions.parser import KEYWORDS, reference
from orchestra.workflows.model import RETRY, AnyNode, Graph
from orchestra.workflows.program import Acceptance, Expression

if TYPE_CHECKING:
    from orchestra.verification.certificates.claims_file import ClaimsCertificate
    from orchestra.verification.certificates.combination import Combination
    from orchestra.verification.certificates.file import Certificate
    from orchestra.workflows.compile.checks import Checked
    from orchestra.workflows.compile.compiler import Body, Compiler

_MODIFIERS = frozenset(model.Node.model_fields) - {"after"} | {"escalate"}
"""What a bare node has nothing of."""


def modified(compiler: Compiler, name: str, node: AnyNode, types: Names, reads: Uses, path: Path) -> Draft:
    """A node, compiled: its kind, then its modifiers. Notes whether it always has a value."""
    if not reads.bare:
        return _modified(compiler, name, node, types, reads, path)
    draft = drafted(compiler, name, node, types, path, reads)
    if draft.contract is not None and draft.contract.checks:
        _complete(compiler, node, draft, types, path)
    else:
        draft.retry, draft.timeout = compiler.defaults.retry or RETRY, compiler.defaults.timeout
    compiler.sure[name] = draft.acceptance is None and compiler.surely(reads.hard)
    if not compiler.sure[name]:
        compiler.given[name] = compiler.conditions(reads.hard) if draft.acceptance is None else None
    return draft


def _modified(compiler: Compiler, name: str, node: AnyNode, types: Names, reads: Uses, path: Path) -> Draft:
    bare = node.model_fields_set.isdisjoint(_MODIFIERS)
    items, found = (None, ANY) if bare else _spread(compiler, node, types, path)
    hidden = types.get(node.as_) if node.as_ else None
    if node.as_:
        types[node.as_] = found
    draft = drafted(compiler, name, node, types, path, reads)
    draft.each = items
    if isinstance(node, model.AgentNode) and agent_choice.choice_of(node) is not None:
        _complete(compiler, agent_choice.outer(node), draft, types, path)
        draft.timeout = None  # of an attempt, and so its agents'
    elif bare and not isinstance(node, model.VerifyNode) and (draft.contract is None or not draft.contract.checks):
        draft.retry, draft.timeout = compiler.defaults.retry or RETRY, compiler.defaults.timeout
    else:
        _complete(compiler, node, draft, types, path)
    if node.as_:
        del types[node.as_]
        if hidden is not None:
            types[node.as_] = hidden
    alone = node.each is not None or (draft.sure and draft.acceptance is None)
    held = alone and (node.when is None or _of_element(node)) and compiler.surely(reads.hard)
    fallback = draft.fallback
    compiler.sure[name] = held or (fallback is not None and compiler.surely(fallback.references))
    if not compiler.sure[name]:
        own = () if _of_element(node) else of_when(node.when)
        compiler.given[name] = together((own, compiler.conditions(reads.hard))) if alone else None
    return draft


def _of_element(node: AnyNode) -> bool:
    """Whether `when` is asked of each element: then it drops elements, and not the node."""
    return node.as_ is not None and node.as_ in names_in(node.when)


def _spread(compiler: Compiler, node: AnyNode, types: Names, path: Path) -> tuple[Expression | None, Schema]:
    """The list of a node under `each`, and the type of one element."""
    findings = compiler.findings
    if node.each is None:
        for key in ("as_", "limit", "concurrency", "at_least"):
            if getattr(node, key) is not None:
                word = key.rstrip("_")
                findings.fault("L117", f"`{word}` goes with `each`", findings.at(*path, word, key=True), hint="each: ${list}")
        return None, ANY
    items = compiled(node.each, types, findings, (*path, "each"))
    found: Schema = ANY
    if items is not None and items.schema != ANY:
        element = elements(typed(items.schema))
        if isinstance(element, str):
            hint = f"each: {unreferenced(node.each)}" if unreferenced(node.each) else _lists(items.schema, node.each)
            findings.fault("L114", f"`each` takes a list, got {show(items.schema)}", findings.at(*path, "each"), hint=hint)
        else:
            found = element
    if node.as_ is None:
        hint = "as: item, which the other keys then refer to"
        findings.fault("L117", "`each` needs `as`", findings.at(*path, "each", key=True), hint=hint)
        return items, found
    if node.as_ in KEYWORDS:
        hint = f"call it {node.as_}_"
        findings.fault("L115", f"{node.as_!r} is a word of the expression language", findings.at(*path, "as"), hint=hint)
    elif compiler.sees(node.as_, types):
        hint = "give the element a name of its own"
        findings.fault("L115", f"{node.as_!r} hides another of that name", findings.at(*path, "as"), hint=hint)
    return items, found


def _lists(schema: Schema, written: str) -> str:
    """A field of a record that is a list, or what to do about null."""
    text = reference(written)
    if text and any(part.get("type") == "null" for part in branches(schema)):
        return f"say what stands there for null: ${{{text} != null ? {text} : []}}"
    fields = resolve(schema).get("properties", {})
    lists = [name for name, part in fields.items() if isinstance(elements(under(schema, part)), dict) and part]
    return f"did you mean ${{{text}.{lists[0]}}}?" if text and lists else "give it a list, such as ${documents}"


def _complete(compiler: Compiler, node: AnyNode, draft: Draft, types: Types, path: Path) -> None:
    """Adds what the modifiers say. `types` are the names that one element sees."""
    if node.when is not None:
        draft.when = condition(compiler, node.when, types, (*path, "when"))
    if node.fallback is not None:
        draft.fallback = compiled(node.fallback, types, compiler.findings, (*path, "fallback"))
        if draft.fallback is not None and draft.output != ANY:
            fits("`fallback`", draft.fallback.schema, draft.output, compiler.findings, (*path, "fallback"), node.fallback)
    draft.variable = node.as_ or ""
    draft.limit = node.limit or 10_000
    draft.concurrency, draft.at_least = node.concurrency, node.at_least
    if isinstance(node.at_least, int) and node.at_least > draft.limit:
        said = f"`at_least: {node.at_least}` can never be met: the list has {draft.limit:,} elements at most"
        compiler.findings.fault("L118", said, compiler.findings.at(*path, "at_least"), hint=f"at_least: {draft.limit}, or at_least: all")
    draft.retry = node.retry or compiler.defaults.retry or RETRY
    draft.timeout = node.timeout or compiler.defaults.timeout
    draft.acceptance = _acceptance(compiler, node, draft, types, path)
    if isinstance(node, model.AgentNode) and node.escalate is not None:
        draft.escalate = _escalated(compiler, node.escalate, draft, types, (*path, "escalate"))


def _escalated(compiler: Compiler, text: str, draft: Draft, types: Types, path: Path) -> Expression | None:
    """The condition on which the larger model is asked at once. An agent with tools is asked line by line, and has no such condition."""
    findings = compiler.findings
    if draft.contract is not None and draft.contract.kit is not None:
        why = f"{draft.contract.name} uses tools, and each of its lines is a call of its own"
        hint = "name the larger model in the agent's card"
        findings.fault("L117", "`escalate` goes with an agent without tools", findings.at(*path, key=True), hint=hint, why=why)
    if draft.acceptance is not None and draft.acceptance.certificate is not None:
        findings.warn("what the larger model says at once is without the promise of the certificate", findings.at(*path))
    return condition(compiler, text, types, path)


def _acceptance(compiler: Compiler, node: AnyNode, draft: Draft, types: Types, path: Path) -> Acceptance | None:
    """When the node's value is accepted: as it says, else as its agent's card does."""
    contract = draft.contract
    checks = node.checks or (contract.checks if contract is not None else ())
    findings = compiler.findings
    if not checks:
        _unchecked(compiler, node, path)
        return None
    from orchestra.workflows.compile import checks as checks_module

    asked = checks_module.read_rules(compiler, node, draft, checks, path)
    if contract is not None and contract.effect == "transactional":
        said = f"the message of {contract.name} is in the outbox before checks can speak"
        hint = "put the checks on the node that makes its inputs"
        findings.fault("L117", said, findings.at(*path, "checks" if node.checks else ""), hint=hint)
    against = _against(compiler, node, contract, asked, types, path)
    accept = node.accept if node.accept is not None else contract.accept if contract is not None else None
    otherwise = node.otherwise or (contract.otherwise if contract is not None else ())
    backs_off = "back_off" in otherwise
    if backs_off:
        checks_module.back_off(compiler, node, checks, asked.names, otherwise, path)
    certificate, combination = None, _combination(compiler, node, contract, checks, path, backs_off=backs_off)
    if accept == "certified":
        from orchestra.verification.certificates.file import Certificate

        certificate = _certificate(compiler, node, contract, checks, path, claims=backs_off)
        if isinstance(certificate, Certificate) and not (node.score and combination is None):
            _same_score(compiler, node, certificate, combination, path)
        accept = certificate.threshold if certificate is not None else None
    if "retry" in otherwise and draft.kind not in ("agent", "tool"):
        findings.warn(
            f"a `{draft.kind}` node is not retried when its checks refuse: retries belong to the nodes inside", findings.at(*path)
        )
    otherwise = otherwise or ("abstain",)
    called = isinstance(node, model.CallNode) and isinstance(node.call, str) and node.accept is not None
    if certificate is not None and (again := [action for action in otherwise if action in ("retry", "escalate")]):
        said = f"what `{again[0]}` brings is accepted by the same threshold, but without the promise of the certificate"
        findings.warn(f"{said}, which is about first answers; otherwise: [abstain] keeps to those", findings.at(*path))
    return Acceptance(
        checks=checks,
        against=against,
        accept=0.5 if accept is None else float(accept),
        otherwise=otherwise,
        certificate=certificate,
        combination=combination,
        asking=asked.asking,
        judges=asked.judges,
        whole=called and frozenset(checks) == {model.CONFIDENCE},
    )


def whole(compiler: Compiler, graph: Graph, body: Body) -> Body:
    """A workflow's own body, enclosed in a node that judges what it gives."""
    enclosed = graph.enclosed
    name, node = next(iter(enclosed.nodes.items()))
    accept, certificate = graph.accept, None
    if accept == "certified":
        certificate = _whole(compiler, graph.name, ("accept",))
        accept = certificate.threshold if certificate is not None else 0.0
    acceptance = Acceptance((model.CONFIDENCE,), None, float(accept or 0), certificate=certificate, whole=True)
    draft = Draft(kind="call", output=body.schema, body=body.program(graph.name), acceptance=acceptance, sure=False)
    made = compiled(enclosed.output, {name: body.schema}, compiler.findings, ("output",))
    assert made is not None, "it is one reference"
    only = draft.node(0, name, node, (), (), frozenset(), 1)
    return replace(body, nodes=(only,), output=made, sure=False, types={}, certain=frozenset())


def _whole(compiler: Compiler, name: str, path: Path) -> Certificate | None:
    """The certificate of a workflow as a whole; where there is none that holds, that is noted (L119, V002 on)."""
    findings, place = compiler.findings, compiler.findings.at(*path)
    try:
        found: Certificate | None = compiler.catalog.wholes.get(name)
    except InputError as error:
        why = error.why or (str(error.place) if error.place is not None else "")
        findings.fault(error.code, error.message, place, hint=error.hint, why=why)
        return None
    if found is None:
        said = f"there is no certificate for the workflow {name!r}"
        findings.fault("L119", said, place, hint=f"orchestra certify {name} --data FILE")
    return found


def _unchecked(compiler: Compiler, node: AnyNode, path: Path) -> None:
    """Notes what a node states of its checks, where it has none."""
    findings = compiler.findings
    for key in ("against", "score", "accept", "otherwise"):
        if getattr(node, key) not in (None, ()):
            findings.fault("L117", f"`{key}` goes with `checks`", findings.at(*path, key, key=True), hint="checks: [quote]")
    if isinstance(node, model.VerifyNode):
        findings.fault("L117", "a `verify` node needs `checks`", findings.at(*path, key=True), hint="checks: [quote]")


def _certificate(
    compiler: Compiler, node: AnyNode, contract: Contract | None, checks: tuple[str, ...], path: Path, *, claims: bool
) -> Certificate | ClaimsCertificate | None:
    """What `accept: certified` stands for, of whole answers or of their `claims`; where nothing does, that is noted (L119, V002 on)."""
    findings = compiler.findings
    place = findings.at(*path, "accept") if node.accept is not None else findings.at(*path)
    if isinstance(node, model.CallNode) and isinstance(node.call, str) and not claims:
        if frozenset(checks) == {model.CONFIDENCE}:
            return _whole(compiler, node.call, (*path, "accept"))
        said = f"the certificate of a workflow is about how sure it is, and this node has {listed(checks)}"
        findings.fault("V005", said, place, hint=f"checks: [{model.CONFIDENCE}]")
        return None
    if contract is None or contract.kind != "agent":
        why = "certificates are of agents, and this node asks none"
        name = contract.name if contract is not None else path[-1]
        findings.fault("L119", f"there is no certificate for {name!r}", place, hint="accept: 0.5", why=why)
        return None
    option = " --claims" if claims else ""
    try:
        known = compiler.catalog.claims if claims else compiler.catalog.certificates
        found: Certificate | ClaimsCertificate | None = known.get(contract.name)
    except InputError as error:
        why = error.why or (str(error.place) if error.place is not None else "")
        findings.fault(error.code, error.message, place, hint=error.hint, why=why)
        return None
    if found is None:
        of = f"of {contract.name!r} about claims" if claims else f"for {contract.name!r}"
        findings.fault("L119", f"there is no certificate {of}", place, hint=f"orchestra certify {contract.name}{option} --data FILE")
        return None
    from orchestra.verification.certificates.claims_file import ClaimsCertificate

    if isinstance(found, ClaimsCertificate):
        # Other checks only withhold more, which no promise about what is kept suffers from.
        if found.check not in checks:
            said = f"the certificate of {contract.name!r} is about claims that {found.check} scores, and this node has {listed(checks)}"
            findings.fault("V005", said, place, hint=f"checks: [{found.check}]")
            return None
    elif frozenset(found.checks) != frozenset(checks):
        said = f"the certificate of {contract.name!r} is about the checks {listed(found.checks)}, and this node has {listed(checks)}"
        hint = f"checks: [{', '.join(found.checks)}], or {found.command} --checks {','.join(checks)}"
        findings.fault("V005", said, place, hint=hint)
        return None
    given = getattr(node, "with_", {})
    if node.against is not None and contract.evidence and node.against != given.get(contract.evidence):
        said = f"the certificate of {contract.name!r} is about answers judged against the input {contract.evidence!r}"
        findings.fault("V005", said, findings.at(*path, "against"), hint=f"against: {given.get(contract.evidence, '')}")
        return None
    return found


def _combination(
    compiler: Compiler, node: AnyNode, contract: Contract | None, checks: tuple[str, ...], path: Path, *, backs_off: bool
) -> Combination | None:
    """What `score: combined` stands for; where nothing does, that is noted (L076, V002 on)."""
    if node.score is None:
        return None
    findings, place = compiler.findings, compiler.findings.at(*path, "score")
    if backs_off:
        said = "`back_off` keeps parts by what `entailment` says of each, and a combination is about whole values"
        findings.fault("L076", said, place, hint="leave one of them out")
        return None
    if contract is None or contract.kind != "agent":
        name = contract.name if contract is not None else path[-1]
        why = "combinations are of agents, and this node asks none"
        findings.fault("L076", f"there is no combination of checks for {name!r}", place, hint="leave `score` out", why=why)
        return None
    stated = f"--checks '{','.join(checks)}'"
    try:
        found: Combination | None = compiler.catalog.combinations.get(contract.name)
    except InputError as error:
        why = error.why or (str(error.place) if error.place is not None else "")
        findings.fault(error.code, error.message, place, hint=error.hint, why=why)
        return None
    if found is None:
        said = f"there is no combination of checks for {contract.name!r}"
        findings.fault("L076", said, place, hint=f"orchestra learn combine {contract.name} --data FILE {stated}")
        return None
    from orchestra.verification.acceptance import rules_of

    if frozenset(found.checks) != frozenset(map(str, rules_of(checks))):
        said = f"the combination of {contract.name!r} is of the checks {listed(found.checks)}, and this node has {listed(checks)}"
        hint = f"checks: [{', '.join(found.checks)}], or orchestra learn combine {contract.name} --data FILE {stated}"
        findings.fault("V005", said, place, hint=hint)
        return None
    return found


def _same_score(compiler: Compiler, node: AnyNode, certificate: Certificate, combination: Combination | None, path: Path) -> None:
    """Notes a certificate of another score than the node's (V005)."""
    mark = combination.digest if combination is not None else ""
    if (certificate.combination or "") == mark:
        return
    of = "the lowest score of the checks" if not certificate.combination else "what a combination makes of the scores of the checks"
    said = f"the certificate of {certificate.agent!r} is about {of}, and this node has another score"
    if certificate.combination and mark:
        said = f"the certificate of {certificate.agent!r} is about a combination of checks that is not the one of today"
    more = " --combined" if mark else ""
    place = compiler.findings.at(*path, "accept") if node.accept is not None else compiler.findings.at(*path)
    compiler.findings.fault("V005", said, place, hint=f"orchestra certify {certificate.agent} --data FILE{more}")


def _against(compiler: Compiler, node: AnyNode, contract: Contract | None, asked: Checked, types: Types, path: Path) -> Expression | None:
    """The evidence: as the node says, else the input that its agent's card names."""
    from orchestra.workflows.compile import checks as checks_module

    findings, checks = compiler.findings, asked.names
    wanting, able = asked.comparing
    if node.against is not None:
        if checks_module.READING.isdisjoint(checks) and all(check in compiler.catalog.checks for check in checks):
            findings.fault("L117", "no check here needs `against`", findings.at(*path, "against", key=True), hint="checks: [quote]")
        return compiled(node.against, types, findings, (*path, "against"))
    if not wanting and not able:
        return None
    given = getattr(node, "with_", {})
    if contract is not None and contract.kit is not None:
        return None  # what its tools gave, which nobody knows yet
    if contract is not None and contract.evidence in given:
        return compiled(given[contract.evidence], types, findings, (*path, "with", contract.evidence))
    if not wanting:
        return None
    place = findings.at(*path, "checks", key=True) if node.checks else findings.at(*path, key=True)
    why = "" if node.checks or contract is None else f"the card of {contract.name} asks for this check"
    hint = "against: ${passage.text}, the text that the output must rest on"
    findings.fault("L117", f"the check {wanting[0]!r} needs `against`", place, hint=hint, why=why)
    return None
