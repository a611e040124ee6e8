"""Which certificates and combinations apply to agents that replace others in a simulated run, and which nodes have
none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from orchestra.agents.card import Card
from orchestra.agents.contract import Contract
from orchestra.app.reuse import walk_nodes
from orchestra.app.snapshot_store import CERTIFICATE, CLAIMS, COMBINATION
from orchestra.core.errors import InputError
from orchestra.workflows.compile.diagnostics import join_names
from orchestra.workflows.program import CompiledNode, Program, node_contracts, reachable_programs

if TYPE_CHECKING:
    from orchestra.app.project import Project
    from orchestra.verification.certificates.format import CertificateFile

CertificateMap: TypeAlias = "dict[tuple[str, str], CertificateFile]"
"""By kind, as runs store them, and by agent."""


@dataclass(frozen=True, slots=True)
class UncertifiedNode:
    """A node that would be refused if its workflow named the replacement, with the reason."""

    node: str
    agent: str
    """The replacement."""
    code: str
    reason: str
    hint: str

    @property
    def message(self) -> str:
        """The reason as text."""
        return f"no certificate: would be refused: {self.reason}; {self.hint}"


@dataclass(frozen=True, slots=True)
class CertificateCoverage:
    """The certificates that apply, and the nodes without one."""

    certificates: CertificateMap = field(default_factory=dict)
    uncertified: tuple[UncertifiedNode, ...] = ()


def certificate_coverage(
    project: Project, program: Program, replacements: Mapping[str, Card | Contract]
) -> CertificateCoverage:
    """Returns the coverage of a program with replaced agents."""
    if not program.certified_acceptances:
        return CertificateCoverage()
    held: CertificateMap = {}
    return CertificateCoverage(held, tuple(_find_uncertified(project, program, replacements, held)))


def _find_uncertified(
    project: Project, program: Program, instead: Mapping[str, Card | Contract], held: CertificateMap
) -> Iterator[UncertifiedNode]:
    for path, node in walk_nodes(program):
        if node.acceptance is not None and node.acceptance.whole_workflow:
            yield from _uncertified_in_workflow(path, node, instead)
            continue
        rests = _certificates_of(node)
        name = node.contract.name if node.contract is not None else ""
        for kind, before in rests.items():
            if (other := instead.get(name)) is not None:
                try:
                    held[kind, other.name] = _current_certificate(project, kind, other, before)
                except InputError as error:
                    yield UncertifiedNode(path, other.name, error.code, error.message, error.hint)
        for judge, was in node.acceptance.judges.items() if rests and node.acceptance is not None else ():
            asked = instead.get(judge)
            if asked is not None and asked.digest != was.digest:
                replacement = _replacement_text(asked, judge)
                why = f"the acceptance of {name!r} rests on checks by {judge}, and not by {replacement}"
                yield UncertifiedNode(path, asked.name, "V002", why, f"orchestra certify {name} --data FILE")


def _uncertified_in_workflow(
    path: str, node: CompiledNode, instead: Mapping[str, Card | Contract]
) -> Iterator[UncertifiedNode]:
    """Yields the replaced agents of a workflow that is accepted by the certificate of its whole output."""
    certificate = node.acceptance.certificate if node.acceptance is not None else None
    if certificate is None or node.body is None:
        return
    before = {
        one.name: one for part in reachable_programs(node.body) for inner in part.nodes for one in node_contracts(inner)
    }
    for name, other in instead.items():
        if name in before and before[name].digest != other.digest:
            replacement = _replacement_text(other, name)
            whole = f"the certificate of the workflow {certificate.agent!r}"
            why = f"{whole} is about {name} as it was, and not {replacement}"
            yield UncertifiedNode(path, other.name, "V002", why, certificate.renew_command)


def _replacement_text(asked: Card | Contract, judge: str) -> str:
    return f"another {judge}" if asked.name == judge else asked.name


def _certificates_of(node: CompiledNode) -> dict[str, Any]:
    """Yields the certificate and the combination of a node's acceptance, by kind."""
    from orchestra.verification.certificates.file import Certificate

    acceptance = node.acceptance
    certificate, combination = (
        (acceptance.certificate, acceptance.combination) if acceptance is not None else (None, None)
    )
    kind = CERTIFICATE if isinstance(certificate, Certificate) else CLAIMS
    return ({kind: certificate} if certificate else {}) | ({COMBINATION: combination} if combination else {})


def _current_certificate(project: Project, kind: str, other: Card | Contract, before: Any) -> Any:
    """Returns what applies to a replacement. Raises `InputError` L119 or L076 if there is nothing, V002 to V007 if it
    is invalid, V005 if it is for other checks.
    """
    from orchestra.app.certificates import AgentCertificates, AgentCombinations, ClaimsCertificates

    registry = project.registry.with_cards([other]) if isinstance(other, Card) else project.registry
    beside: dict[str, Callable[..., Mapping[str, Any]]] = {
        CERTIFICATE: AgentCertificates,
        CLAIMS: ClaimsCertificates,
        COMBINATION: AgentCombinations,
    }
    found = beside[kind](project.settings, lambda: registry).get(other.name)
    if found is None and kind == COMBINATION:
        hint = f"orchestra learn combine {other.name} --data FILE"
        raise InputError("L076", f"there is no combination of checks for {other.name!r}", hint=hint)
    if found is None:
        option = " --claims" if kind == CLAIMS else ""
        hint = f"orchestra certify {other.name}{option} --data FILE"
        raise InputError("L119", f"there is no certificate for {other.name!r}", hint=hint)
    if kind == CLAIMS and found.check != before.check:
        raise InputError(
            "V005",
            f"the certificate of {other.name!r} is about claims that {found.check} scores",
            hint=found.renew_command,
        )
    if kind != CLAIMS and frozenset(found.checks) != frozenset(before.checks):
        wrong, right = join_names(found.checks), join_names(before.checks)
        reason = f"the {found.title} of {other.name!r} is about the checks {wrong}, and this node has {right}"
        makes = "learn combine" if kind == COMBINATION else "certify"
        raise InputError(
            "V005", reason, hint=f"orchestra {makes} {other.name} --data FILE --checks '{','.join(before.checks)}'"
        )
    return found
