"""Snapshots of workflows. A run stores the graph and everything that the graph names, and is resumed with exactly
these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from pydantic import ValidationError

from orchestra.agents.contract import Catalog, Contract, is_compatible
from orchestra.app.snapshot import WORKFLOW, WorkflowSnapshot
from orchestra.core.errors import OrchestraError
from orchestra.core.events import RunStarted
from orchestra.core.labels import Label
from orchestra.core.protocols import Journal
from orchestra.schema.types import Schema
from orchestra.workflows.model import Budget, Graph
from orchestra.workflows.program import (
    CompiledNode,
    Program,
    node_contracts,
    reachable_programs,
    stop_at_plan,
    with_sample,
)

if TYPE_CHECKING:
    from orchestra.agents.card import Card
    from orchestra.app.project import CompiledWorkflow, Project
    from orchestra.verification.certificates.format import CertificateFile
    from orchestra.workflows.python.checks import AcceptThreshold

CARD, CONTRACT, TYPES, CODE, SERVED = "card", "contract", "types", "code", "served"
T = TypeVar("T")
CERTIFICATE, CLAIMS, COMBINATION, WORKFLOW_CERTIFICATE = "certificate", "claims", "combination", "workflow_certificate"
_CERTIFICATE_KINDS = (CERTIFICATE, CLAIMS, COMBINATION, WORKFLOW_CERTIFICATE)
MAX_SAMPLE = 1 << 31


async def stored_workflows(journal: Journal, started: RunStarted) -> dict[str, bytes]:
    """Returns the workflows that a run stored, in the form of `WorkflowSnapshot.workflows`; missing ones are left
    out.
    """
    marks = {
        "": started.graph,
        **{name: mark for name, mark in started.versions.items() if name.startswith(f"{WORKFLOW}/")},
    }
    blobs = {name: await journal.get_blob(mark) for name, mark in marks.items() if mark}
    return {name: data for name, data in blobs.items() if data is not None}


def get_snapshot(project: Project, made: CompiledWorkflow) -> WorkflowSnapshot:
    """Returns a program's snapshot, the same for all of its runs."""
    if made.snapshot is None:
        made.snapshot = _build_snapshot(project, made.program, made.models)
    return made.snapshot


def _build_snapshot(project: Project, program: Program, models: Mapping[str, Schema]) -> WorkflowSnapshot:
    parts: dict[str, bytes] = {}
    code: dict[str, str] = {}
    for part in reachable_programs(program):
        if part is not program and part.graph is not None:
            parts[f"{WORKFLOW}/{part.name}"] = _encode_graph(part.graph)
        for node in part.nodes:
            for contract in node_contracts(node):
                if is_unversioned_tool(contract) and (tool := project.registry.tools.get(contract.name)) is not None:
                    code[contract.name] = tool.source_digest
                if (card := project.find_card(contract)) is not None:
                    parts[f"{CARD}/{contract.name}"] = card.dump()
                else:
                    parts[f"{CONTRACT}/{contract.kind}/{contract.name}"] = msgspec.json.encode(contract)
            if node.acceptance is not None and (certificate := node.acceptance.certificate) is not None:
                from orchestra.verification.certificates.file import Certificate

                kind = (
                    WORKFLOW_CERTIFICATE
                    if node.acceptance.whole_workflow
                    else CERTIFICATE
                    if isinstance(certificate, Certificate)
                    else CLAIMS
                )
                parts[f"{kind}/{certificate.agent}"] = certificate.to_bytes()
            if node.acceptance is not None and (combination := node.acceptance.combination) is not None:
                parts[f"{COMBINATION}/{combination.agent}"] = combination.to_bytes()
    if code:
        parts[CODE] = msgspec.json.encode(code, order="sorted")
    if any(part.startswith(f"{CARD}/") for part in parts) and (served_names := project.served_names):
        parts[SERVED] = msgspec.json.encode(served_names, order="sorted")
    all_models = {**project.catalog().models, **models}
    if all_models:
        parts[TYPES] = msgspec.json.encode(all_models)
    return WorkflowSnapshot.of(_encode_graph(program.graph) if program.graph is not None else b"", parts)


def is_unversioned_tool(contract: Contract) -> bool:
    """Whether it is a pure tool without a declared version of its code."""
    return contract.kind == "tool" and contract.effect == "pure" and not contract.version


async def stored_code_digests(journal: Journal, started: RunStarted) -> dict[str, str]:
    """Returns the code digests of pure tools without a version, as of the start of a run; empty for older runs. Raises
    `OrchestraError` E019 if they are missing or invalid.
    """
    mark = started.versions.get(CODE)
    return _decode(started.run, await _read_blob(journal, started.run, mark), dict[str, str]) if mark else {}


def reachable_contracts(node: CompiledNode) -> Iterator[Contract]:
    """Yields what a node may call, with what the workflows call that its plan may call; without its body."""
    yield from node_contracts(node)
    for workflow in node.plan_settings.callable_workflows.values() if node.plan_settings is not None else ():
        yield from called_contracts(workflow.program)


def called_contracts(program: Program) -> Iterator[Contract]:
    """Yields what a program may call, in bodies and in the workflows of its plans too; with repetitions."""
    for part in reachable_programs(program):
        for node in part.nodes:
            yield from node_contracts(node)


def _encode_graph(graph: Graph) -> bytes:
    # Not canonical: the order of nodes is part of a workflow.
    return msgspec.json.encode(graph.model_dump(mode="json", by_alias=True, exclude_defaults=True))


async def restore_program(
    project: Project,
    journal: Journal,
    started: RunStarted,
    *,
    will_call: bool = True,
    replacements: Mapping[str, Contract] | None = None,
    held: Mapping[tuple[str, str], Any] | None = None,
) -> Program:
    """Restores the program with which a run began; registers its cards with the project under their digests.

    Args:
        project: The project.
        journal: The journal of the run.
        started: The first event of the run.
        will_call: Whether calls will be made. If not, agents that were trained since are no error, and no card is
        registered.
        replacements: Other agents, by the names that the workflow has for the replaced ones.
        held: The certificates of the replacements, by kind and name. Other certificates are kept, without a guarantee
        for the replacements.

    Raises:
        OrchestraError: E019: parts are missing or invalid; and the errors of compiling.
    """
    from orchestra.workflows.compile.compiler import compile_graph

    graph = await stored_graph(journal, started)
    catalog = await _catalog(project, journal, started, replacements or {}, held or {}, will_call=will_call)
    return apply_run_options(compile_graph(graph, catalog), started)


async def _catalog(
    project: Project,
    journal: Journal,
    start_event: RunStarted,
    replacements: Mapping[str, Contract],
    certificates_by_kind: Mapping[tuple[str, str], Any],
    *,
    will_call: bool,
) -> Catalog:
    """Returns the catalog of everything that the workflow of a run names, as stored."""
    run = start_event.run
    agents: dict[str, Contract] = {}
    tools: dict[str, Contract] = {}
    workflows: dict[str, Graph] = {}
    models: dict[str, Schema] = {}
    certificates: dict[str, dict[str, Any]] = {kind: {} for kind in _CERTIFICATE_KINDS}
    mark = start_event.versions.get(SERVED)
    served_names = _decode(run, await _read_blob(journal, run, mark), dict[str, tuple[str, ...]]) if mark else {}
    for name, mark in start_event.versions.items():
        data = await _read_blob(journal, run, mark)
        kind, _, rest = name.partition("/")
        if kind == "card" and rest in replacements:
            continue
        match kind:
            case "card":
                card = _restore_card(project, rest, data, will_call=will_call)
                if will_call:
                    project.keep_card(card)
                agents[rest] = card.served_contract(served_names)
            case "contract":
                contract = _restore_contract(project, run, data)
                (tools if contract.kind == "tool" else agents)[contract.name] = contract
            case "workflow":
                workflows[rest] = _decode_graph(run, data)
            case "certificate" | "claims" | "combination" | "workflow_certificate":
                certificates[kind][rest] = _decode_certificate(kind, data)
            case "served":
                continue
            case "code":
                continue  # A run continues with the current code.
            case "types":
                models = _decode(run, data, dict[str, Any])
            case _:
                raise _unreadable_error(run, f"it names {name!r}, which this version does not know")
    for name, contract in replacements.items():  # In the fleet with which the run began, as the other agents.
        current_card = project.find_card(contract)
        agents[name] = current_card.served_contract(served_names) if current_card is not None else contract
    workflow_certificates = certificates.pop(WORKFLOW_CERTIFICATE)
    _transfer_certificates(certificates, replacements, certificates_by_kind)
    catalog = Catalog(
        agents,
        tools,
        workflows,
        models,
        certificates=certificates[CERTIFICATE],
        claims_certificates=certificates[CLAIMS],
        combinations=certificates[COMBINATION],
    )
    return replace(catalog, workflow_certificates=workflow_certificates, stored=True)


def _restore_contract(project: Project, run: str, data: bytes) -> Contract:
    """Returns a stored contract; the current one of a tool that only got optional inputs since."""
    contract = _decode(run, data, Contract)
    tool = project.registry.tools.get(contract.name) if contract.kind == "tool" else None
    return tool.contract if tool is not None and is_compatible(tool.contract, contract) else contract


def _decode_certificate(kind: str, data: bytes) -> CertificateFile:
    """Decodes a certificate of one of `_CERTIFICATE_KINDS`. A run keeps the threshold with which it began."""
    from orchestra.verification.certificates.claims_file import ClaimsCertificate
    from orchestra.verification.certificates.combination import Combination
    from orchestra.verification.certificates.file import Certificate

    formats: dict[str, type[CertificateFile]] = {CLAIMS: ClaimsCertificate, COMBINATION: Combination}
    return formats.get(kind, Certificate).from_bytes(data)


def _transfer_certificates(
    certificates: Mapping[str, dict[str, Any]],
    replacements: Mapping[str, Contract],
    certificates_by_kind: Mapping[tuple[str, str], Any],
) -> None:
    """Gives replacements their own certificates, by kind and name, or else those of the agents that they replace."""
    for name, contract in replacements.items():
        for kind, by_name in certificates.items():
            if (own_certificate := certificates_by_kind.get((kind, contract.name))) is not None:
                by_name[contract.name] = own_certificate
            elif name in by_name:
                by_name.setdefault(contract.name, by_name[name])


def _restore_card(project: Project, name: str, data: bytes, *, will_call: bool) -> Card:
    """Returns a card as a run stored it, with the current files of the card and of its members."""
    from orchestra.agents.card import Card as Stored
    from orchestra.agents.ensemble import check_members

    current = project.cards.get(name)
    if not will_call or current is None:
        return check_members(Stored.restore(data))
    beside = {part.name: part.folder for part in current.member_cards}
    folders = {**{project_card.name: project_card.folder for project_card in project.cards.values()}, **beside}
    card = check_members(Stored.restore(data, current.folder, folders))
    # Older cards lack the keys: then the prompt alone was asked wherever the adapter's base model was not.
    marks = {"elsewhere": current.elsewhere, "untuned": current.untuned}
    return card.model_copy(update=marks) if card.digest == current.digest else card


def apply_run_options(program: Program, started: RunStarted) -> Program:
    """Applies a run's recorded options to its program: the sample number, the limits of plans, the budget, and whether
    it ends at its plan. Raises `OrchestraError` E019 for invalid ones.
    """
    program = with_sample(program, _sample_number(started.options.get("sample")))
    budget = started.options.get("budget")
    program = program if budget is None else replace(program, budget=_decode_budget(started.run, budget))
    program = apply_plan_limits(program, started.options)
    return stop_at_plan(program) if started.plan_only else program


def apply_plan_limits(program: Program, told: Mapping[str, Any]) -> Program:
    """Applies the recorded limits of plans to a program. Raises `InputError` E019 for invalid ones."""
    if not program.has_dynamic_calls:
        return program
    from orchestra.app.planner_limits import apply_limits

    return apply_limits(program, told)


def plan_limit_options(project: Project, program: Program, label: Label, *, fleet: bool, fresh: bool) -> dict[str, Any]:
    """Returns the limits of a run's plans, as its options store them: what fleet and budget allow on data with this
    label. Empty for a program without plans.

    Args:
        fleet: Whether the fleet makes the calls; else other workers replace it.
        fresh: Whether no call is answered from the memo or a parent run.
    """
    if not program.has_dynamic_calls:
        return {}
    from orchestra.app.planner_limits import planner_limits

    return planner_limits(project.fleet if fleet else None, project.cards, program, label, fresh=fresh)


def stored_accept(started: RunStarted) -> AcceptThreshold | None:
    """Returns how a run's output is accepted as a whole; None if its options do not state it."""
    option = started.options.get("accept")
    if option == "certified":
        return "certified"
    return float(option) if isinstance(option, int | float) and 0 <= option <= 1 else None


async def stored_graph(journal: Journal, started: RunStarted) -> Graph:
    """Returns the graph with which a run began. Raises `OrchestraError` E019 if it is missing or invalid."""
    return _decode_graph(started.run, await _read_blob(journal, started.run, started.graph))


async def _read_blob(journal: Journal, run: str, mark: str) -> bytes:
    if (data := await journal.get_blob(mark)) is None:
        raise _unreadable_error(run, f"blob {mark} is missing")
    return data


def _decode_graph(run: str, data: bytes) -> Graph:
    try:
        return Graph.model_validate_json(data)
    except ValidationError as error:
        raise _unreadable_error(run, str(error.errors(include_url=False)[0]["msg"])) from error


def _decode(run: str, data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise _unreadable_error(run, str(error)) from error


def _sample_number(option: Any) -> int:
    """Returns a sample number; 0 for an invalid one."""
    return option if isinstance(option, int) and 0 < option <= MAX_SAMPLE else 0


def _decode_budget(run: str, budget: Any) -> Budget:
    try:
        return Budget.model_validate(budget)
    except ValidationError as error:
        raise _unreadable_error(run, str(error.errors(include_url=False)[0]["msg"])) from error


def _unreadable_error(run: str, reason: str) -> OrchestraError:
    return OrchestraError(
        "E019", f"the workflow that run {run} stored cannot be read: {reason}", hint=f"orchestra runs fork {run}"
    )
