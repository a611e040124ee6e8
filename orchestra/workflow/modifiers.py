"""Modifiers: what any node may carry, compiled and checked: `each`, `when`, `fallback`, acceptance, retry, timeout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestra.agent.contract import Contract, Schema
from orchestra.values.schema import ANY, elements, nearest, show
from orchestra.workflow import nodes
from orchestra.workflow.drafts import BOOL, Draft, Path, Types, constant, template
from orchestra.workflow.nodes import AnyNode, Retry
from orchestra.workflow.program import Acceptance, Expression
from orchestra.workflow.syntax import KEYWORDS
from orchestra.workflow.wiring import fits

if TYPE_CHECKING:
    from orchestra.workflow.compiler import Compiler

EVIDENCE = frozenset({"quote", "numbers", "entailment"})
"""Checks that compare with evidence."""


def spread(compiler: Compiler, node: AnyNode, types: Types, path: Path) -> tuple[Mapping[str, Schema], Expression | None]:
    """The names that one element sees, and the list, of a node under `each`; for another node the names that are there."""
    findings = compiler.findings
    for key in ("as_", "limit", "concurrency"):
        if node.each is None and getattr(node, key) is not None:
            word = key.rstrip("_")
            findings.fault("L117", f"`{word}` goes with `each`", findings.at(*path, word, key=True), hint="each: ${list}")
    if node.each is None:
        return types, None
    items = template(compiler, node.each, types, (*path, "each"))
    found: Schema = ANY
    if items is not None and items.schema != ANY:
        listed = elements(items.schema)
        if isinstance(listed, str):
            hint = "give it a list, such as ${documents}"
            findings.fault("L114", f"`each` takes a list, got {show(items.schema)}", findings.at(*path, "each"), hint=hint)
        else:
            found = listed
    if node.as_ is None:
        findings.fault(
            "L117", "`each` needs `as`", findings.at(*path, "each", key=True), hint="as: item, which the other keys then refer to"
        )
        return types, items
    place = findings.at(*path, "as")
    if node.as_ in types or node.as_ == path[-1]:
        findings.fault("L115", f"{node.as_!r} hides another of that name", place, hint="give the element a name of its own")
    elif node.as_ in KEYWORDS:
        findings.fault("L115", f"{node.as_!r} is a word of the expression language", place, hint=f"call it {node.as_}_")
    return {**types, node.as_: found}, items


def completed(compiler: Compiler, node: AnyNode, draft: Draft, types: Types, inner: Types, path: Path) -> Draft:
    """The draft with its modifiers. `types` are the names around the node, `inner` those that an element sees."""
    when = None
    if node.when is not None:
        when = template(compiler, node.when, inner, (*path, "when"), BOOL)
        constant(compiler, when, "when", (*path, "when"))
    fallback = None
    if node.fallback is not None:
        fallback = template(compiler, node.fallback, inner, (*path, "fallback"))
        if fallback is not None and draft.output != ANY:
            fits("`fallback`", fallback.schema, draft.output, compiler.findings, compiler.findings.at(*path, "fallback"), node.fallback)
    defaults = compiler.defaults
    return replace(
        draft,
        when=when,
        fallback=fallback,
        variable=node.as_ or "",
        limit=node.limit or 10_000,
        concurrency=node.concurrency,
        retry=node.retry or defaults.retry or Retry(),
        timeout=node.timeout or defaults.timeout,
        acceptance=_acceptance(compiler, node, draft, inner, path),
    )


def _acceptance(compiler: Compiler, node: AnyNode, draft: Draft, types: Types, path: Path) -> Acceptance | None:
    """When the node's value is accepted: as it says, else as its agent's card does."""
    contract = draft.contract
    checks = node.checks or (contract.checks if contract is not None else ())
    findings = compiler.findings
    _known(compiler, node, path)
    if not checks:
        for key in ("against", "accept", "otherwise"):
            if getattr(node, key) not in (None, ()):
                findings.fault("L117", f"`{key}` goes with `checks`", findings.at(*path, key, key=True), hint="checks: [quote]")
        if isinstance(node, nodes.VerifyNode):
            findings.fault("L117", "a `verify` node needs `checks`", findings.at(*path, key=True), hint="checks: [quote]")
        return None
    against = _against(compiler, node, contract, checks, types, path)
    accept = node.accept if node.accept is not None else contract.accept if contract is not None else None
    if accept == "certified":
        name = contract.name if contract is not None else path[-1]
        place = findings.at(*path, "accept")
        why = "certificates come with calibration, which this version does not do yet"
        findings.fault("L119", f"there is no certificate for {name!r}", place, hint="accept: 0.5", why=why)
        accept = None
    otherwise = node.otherwise or (contract.otherwise if contract is not None else ())
    if "retry" in otherwise and draft.kind not in ("agent", "tool"):
        findings.warn(
            f"a `{draft.kind}` node is not retried when its checks refuse: retries belong to the nodes inside", findings.at(*path)
        )
    return Acceptance(checks, against, 0.5 if accept is None else float(accept), otherwise or ("abstain",))


def _known(compiler: Compiler, node: AnyNode, path: Path) -> None:
    for number, check in enumerate(node.checks):
        if check not in compiler.catalog.checks:
            near = nearest(check, compiler.catalog.checks)
            hint = f"did you mean {near!r}?" if near else f"checks: {', '.join(sorted(compiler.catalog.checks))}"
            compiler.findings.fault("L111", f"there is no check {check!r}", compiler.findings.at(*path, "checks", number), hint=hint)


def _against(
    compiler: Compiler, node: AnyNode, contract: Contract | None, checks: tuple[str, ...], types: Types, path: Path
) -> Expression | None:
    """The evidence: as the node says, else the input that its agent's card names."""
    findings = compiler.findings
    wanting = [check for check in checks if check in EVIDENCE]
    if node.against is not None:
        if not wanting:
            findings.fault("L117", "no check here needs `against`", findings.at(*path, "against", key=True), hint="checks: [quote]")
        return template(compiler, node.against, types, (*path, "against"))
    if not wanting:
        return None
    given = getattr(node, "with_", {})
    if contract is not None and contract.evidence in given:
        return template(compiler, given[contract.evidence], types, (*path, "with", contract.evidence))
    place = findings.at(*path, "checks", key=True)
    findings.fault(
        "L117", f"the check {wanting[0]!r} needs `against`", place, hint="against: ${passage.text}, the text that the output must rest on"
    )
    return None
