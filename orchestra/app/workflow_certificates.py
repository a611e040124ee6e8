"""The certificates of whole workflows: their files, and what they depend on. Calls no server.

A workflow is treated as an agent: it has a typed contract, a folder with its name beside its file (`workflows/NAME/`)
with `certificate.json`, `attempts.jsonl` and `evaluation.yaml`, and user folders before the packaged one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from orchestra.agents.card import Card
from orchestra.agents.contract import Catalog, Contract
from orchestra.agents.registry import Registry
from orchestra.app import certificates
from orchestra.core.errors import InputError, SourceLocation
from orchestra.core.resources import builtin_folder
from orchestra.core.settings import Settings
from orchestra.schema.json_schema import bundle_definitions, object_type
from orchestra.schema.strict_json import canonical, digest
from orchestra.workflows.compile.compiler import compile_graph
from orchestra.workflows.model import Graph
from orchestra.workflows.program import CompiledNode, Program, node_contracts, reachable_programs

if TYPE_CHECKING:
    from orchestra.verification.certificates.file import Certificate, DependencyDigests

EVALUATION = "evaluation.yaml"
SCORING_SOURCES = ("engine/kinds/acceptance.py", "engine/kinds/confidence.py", "schema/content.py")
"""The files of the package whose code makes the score of a whole output, beside those of checks."""
_IGNORED_KEYS = ("accept", "description")
"""Keys on which a workflow's answers do not depend."""


class WorkflowProject(Protocol):
    """What a project knows of its workflows (`orchestra.app.project.Project`)."""

    settings: Settings
    registry: Registry

    def catalog(self) -> Catalog:
        """Returns everything that a workflow may name."""

    def tiers(self, program: Program) -> tuple[str, ...]:
        """Returns the fleet's larger models for a program, in the order of escalation."""

    def graph(self, name: str) -> Graph:
        """Returns the graph of a workflow by name. Raises `KeyError` if there is none."""

    def file_of(self, graph: Graph) -> Path | None:
        """Returns the file of a workflow; None for one in Python."""

    def workflow_names(self) -> list[str]:
        """Returns the names of all workflows."""


@dataclass(frozen=True)
class WorkflowTarget:
    """A workflow to certify."""

    project: WorkflowProject
    graph: Graph
    """Without its own acceptance."""
    file: Path | None = None
    """Its file; None for one in Python."""

    @classmethod
    def of(cls, project: WorkflowProject, graph: Graph) -> WorkflowTarget:
        """Returns the target of a workflow of a project."""
        return cls(project, graph.model_copy(update={"accept": None}), project.file_of(graph))

    @property
    def name(self) -> str:
        """The name of the workflow."""
        return self.graph.name

    @cached_property
    def program(self) -> Program:
        """The compiled workflow. Raises `InputError` or `InputErrors`."""
        return compile_graph(self.graph, self.project.catalog())

    @cached_property
    def settings(self) -> Settings:
        """The settings with the folders in which its own folder may be."""
        settings = self.project.settings
        beside = (
            (self.file.parent,)
            if self.file is not None and not self.file.is_relative_to(builtin_folder("workflows"))
            else ()
        )
        return settings.model_copy(update={"agents": tuple(dict.fromkeys((*beside, *settings.workflows)))})

    @cached_property
    def card(self) -> Card:
        """Its inputs and outputs, as a card."""
        inputs = self.program.inputs
        fields = {name: entry.schema for name, entry in inputs.items()}
        takes = bundle_definitions(
            {"title": "input", **object_type(fields, [name for name, entry in inputs.items() if entry.required])}
        )
        folders = [folder / self.name for folder in (*self.settings.agents, builtin_folder("workflows"))]
        folder = next(
            (search_folder for search_folder in folders if (search_folder / EVALUATION).is_file()), folders[0]
        )
        return Card.from_schemas(self.name, takes, self.program.output_schema, folder)

    @cached_property
    def registry(self) -> Registry:
        """A registry with that card."""
        return self.project.registry.with_cards([self.card])

    @property
    def certificate_path(self) -> Path | None:
        """The path of its certificate; None if there is none."""
        return certificates.find_certificate(self.settings, self.registry, self.name)

    @property
    def effect_reason(self) -> str:
        """Returns what in it has effects or asks a person; empty if nothing does."""
        for part in reachable_programs(self.program):
            for node in part.nodes:
                if node.kind == "ask" or (node.acceptance is not None and "ask" in node.acceptance.otherwise):
                    return f"{node.name} asks a person"
                if (
                    contract := next(
                        (node_contract for node_contract in node_contracts(node) if node_contract.effect != "pure"),
                        None,
                    )
                ) is not None:
                    return f"{contract.name} has effects"
        return ""

    def dependency_digests(self) -> DependencyDigests:
        """Returns the digests on which its answers and scores depend today.

        Raises:
            InputError: V007: one is unknown: a server without a revision, weights that are not here, code without a
            version.
        """
        from orchestra.verification.certificates.file import DependencyDigests

        parts: dict[str, str] = {}
        for part in reachable_programs(self.program):
            if part is not self.program and part.graph is not None:
                parts[f"the workflow {part.name!r}"] = _graph_digest(part.graph)
            for node in part.nodes:
                for contract in node_contracts(node):
                    parts |= self._agent_digests(contract) if contract.kind == "agent" else self._tool_digests(contract)
                parts |= dict(_acceptance_digests(node))
        if tiers := self.project.tiers(self.program):
            parts["the larger models of the fleet"] = digest(canonical(list(tiers)))
        scoring_digests = [(name, _source_text(name)) for name in SCORING_SOURCES]
        return DependencyDigests(
            _graph_digest(self.graph), "", "", digest(canonical([certificates.checks_digest(), scoring_digests])), parts
        )

    def _agent_digests(self, contract: Contract) -> dict[str, str]:
        settings, registry, name = self.project.settings, self.project.registry, contract.name
        bound = certificates.dependency_digests(settings, registry, name)
        card = registry.card(name).with_settings(description="", label="restricted")
        digests = {"the card or prompt": card.digest, "the model": bound.model, "the adapter or arrays": bound.adapter}
        return {f"{part} of {name!r}": mark for part, mark in digests.items() if mark}

    def _tool_digests(self, contract: Contract) -> dict[str, str]:
        tool = self.project.registry.tools.get(contract.name)
        code = "" if tool is None else tool.version or tool.source_digest
        if not code:
            hint = '@tool(effect="pure", version="1")'
            raise InputError("V007", f"the code of the tool {contract.name!r} may change unseen", hint=hint)
        return {f"the tool {contract.name!r}": digest(canonical([contract.digest, code]))}

    def certificate(self) -> Certificate | None:
        """Returns its certificate, compared with what it depends on; None if there is none. Raises `InputError` V002 to
        V007.
        """
        path = self.certificate_path
        if path is None:
            return None
        location, certificate = SourceLocation(str(path), 1), certificates.read_certificate(path, self.name)
        if certificate.subject_kind != "workflow":
            message = f"{path} is about the agent {certificate.agent!r}, and {self.name!r} is a workflow"
            raise InputError("V005", message, location=location, hint=certificate.renew_command)
        reason = certificate.void_reason or " and ".join(certificate.dependencies.changes(self.dependency_digests()))
        if reason:
            message = reason if certificate.void_reason else f"{reason} changed since it was made"
            raise InputError(
                "V002",
                f"the certificate of the workflow {self.name!r} is void: {message}",
                location=location,
                hint=certificate.renew_command,
            )
        return certificate


def _graph_digest(graph: Graph) -> str:
    """Returns the digest of a workflow's content."""
    graph_fields = graph.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return digest(canonical({key: value for key, value in graph_fields.items() if key not in _IGNORED_KEYS}))


def _acceptance_digests(node: CompiledNode) -> Iterator[tuple[str, str]]:
    """Yields the digests of what a node inside accepts by."""
    acceptance = node.acceptance
    if acceptance is not None and acceptance.certificate is not None:
        yield f"the certificate of {acceptance.certificate.agent!r}", acceptance.certificate.digest
    if acceptance is not None and acceptance.combination is not None:
        yield f"the combination of checks of {acceptance.combination.agent!r}", acceptance.combination.digest


def _source_text(name: str) -> str:
    return resources.files("orchestra").joinpath(name).read_text("utf-8").replace("\r\n", "\n")


class WorkflowCertificates(Mapping[str, "Certificate"]):
    """The certificates by workflow, read on access; raises `InputError` V002 to V007 for an invalid one."""

    def __init__(self, project: WorkflowProject, graph: Callable[[str], Graph]) -> None:
        self._project, self._graph = project, graph

    def __getitem__(self, name: str) -> Certificate:
        if (certificate := WorkflowTarget.of(self._project, self._graph(name)).certificate()) is None:
            raise KeyError(name)
        return certificate

    def __iter__(self) -> Iterator[str]:
        return (
            name
            for name in self._project.workflow_names()
            if WorkflowTarget.of(self._project, self._graph(name)).certificate_path is not None
        )

    def __len__(self) -> int:
        return sum(1 for _ in self)


def workflow_certificate_stamps(project: WorkflowProject, program: Program) -> tuple[Any, ...]:
    """Returns stamps that change when a workflow certificate of a program is replaced."""
    names = [
        certified_acceptance.certificate.agent
        for certified_acceptance in program.certified_acceptances
        if certified_acceptance.whole_workflow and certified_acceptance.certificate is not None
    ]
    paths: list[Path | None] = []
    for name in dict.fromkeys(names):
        graph = program.graph if program.graph is not None and program.graph.name == name else project.graph(name)
        paths.append(WorkflowTarget.of(project, graph).certificate_path)
    return tuple(map(certificates.file_stamp, paths))
