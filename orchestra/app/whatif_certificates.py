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
    certificate_files: CertificateMap = {}
    return CertificateCoverage(
        certificate_files, tuple(_find_uncertified(project, program, replacements, certificate_files))
    )


def _find_uncertified(
    project: Project, program: Program, instead: Mapping[str, Card | Contract], certificate_files: CertificateMap
) -> Iterator[UncertifiedNode]:
    for path, node in walk_nodes(program):
        if node.acceptance is not None and node.acceptance.whole_workflow:
            yield from _uncertified_in_workflow(path, node, instead)
            continue
        rests = _certificates_of(node)
        name = node.contract.name if node.contract is not None else ""
        for kind, before in rests.items():
            if (other_contract := instead.get(name)) is not None:
                try:
                    certificate_files[kind, other_contract.name] = _current_certificate(
                        project, kind, other_contract, before
                    )
                except InputError as error:
                    yield UncertifiedNode(path, other_contract.name, error.code, error.message, error.hint)
        for judge, old_contract in node.acceptance.judges.items() if rests and node.acceptance is not None else ():
            judge_replacement = instead.get(judge)
            if judge_replacement is not None and judge_replacement.digest != old_contract.digest:
                replacement = _replacement_text(judge_replacement, judge)
                reason = f"the acceptance of {name!r} rests on checks by {judge}, and not by {replacement}"
                yield UncertifiedNode(
                    path, judge_replacement.name, "V002", reason, f"orchestra certify {name} --data FILE"
                )


def _uncertified_in_workflow(
    path: str, node: CompiledNode, instead: Mapping[str, Card | Contract]
) -> Iterator[UncertifiedNode]:
    """Yields the replaced agents of a workflow that is accepted by the certificate of its whole output."""
    certificate = node.acceptance.certificate if node.acceptance is not None else None
    if certificate is None or node.body is None:
        return
    before = {
        contract.name: contract
        for part in reachable_programs(node.body)
        for inner in part.nodes
        for contract in node_contracts(inner)
    }
    for name, other_contract in instead.items():
        if name in before and before[name].digest != other_contract.digest:
            replacement = _replacement_text(other_contract, name)
            subject = f"the certificate of the workflow {certificate.agent!r}"
            reason = f"{subject} is about {name} as it was, and not {replacement}"
            yield UncertifiedNode(path, other_contract.name, "V002", reason, certificate.renew_command)


def _replacement_text(contract: Card | Contract, judge: str) -> str:
    return f"another {judge}" if contract.name == judge else contract.name


def _certificates_of(node: CompiledNode) -> dict[str, Any]:
    """Yields the certificate and the combination of a node's acceptance, by kind."""
    from orchestra.verification.certificates.file import Certificate

    acceptance = node.acceptance
    certificate, combination = (
        (acceptance.certificate, acceptance.combination) if acceptance is not None else (None, None)
    )
    kind = CERTIFICATE if isinstance(certificate, Certificate) else CLAIMS
    return ({kind: certificate} if certificate else {}) | ({COMBINATION: combination} if combination else {})


def _current_certificate(project: Project, kind: str, contract: Card | Contract, before: Any) -> Any:
    """Returns what applies to a replacement. Raises `InputError` L119 or L076 if there is nothing, V002 to V007 if it
    is invalid, V005 if it is for other checks.
    """
    from orchestra.app.certificates import AgentCertificates, AgentCombinations, ClaimsCertificates

    registry = project.registry.with_cards([contract]) if isinstance(contract, Card) else project.registry
    beside: dict[str, Callable[..., Mapping[str, Any]]] = {
        CERTIFICATE: AgentCertificates,
        CLAIMS: ClaimsCertificates,
        COMBINATION: AgentCombinations,
    }
    certificate = beside[kind](project.settings, lambda: registry).get(contract.name)
    if certificate is None and kind == COMBINATION:
        hint = f"orchestra learn combine {contract.name} --data FILE"
        raise InputError("L076", f"there is no combination of checks for {contract.name!r}", hint=hint)
    if certificate is None:
        option = " --claims" if kind == CLAIMS else ""
        hint = f"orchestra certify {contract.name}{option} --data FILE"
        raise InputError("L119", f"there is no certificate for {contract.name!r}", hint=hint)
    if kind == CLAIMS and certificate.check != before.check:
        raise InputError(
            "V005",
            f"the certificate of {contract.name!r} is about claims that {certificate.check} scores",
            hint=certificate.renew_command,
        )
    if kind != CLAIMS and frozenset(certificate.checks) != frozenset(before.checks):
        wrong, right = join_names(certificate.checks), join_names(before.checks)
        reason = f"the {certificate.title} of {contract.name!r} is about the checks {wrong}, and this node has {right}"
        makes = "learn combine" if kind == COMBINATION else "certify"
        raise InputError(
            "V005",
            reason,
            hint=f"orchestra {makes} {contract.name} --data FILE --checks '{','.join(before.checks)}'",
        )
    return certificate
