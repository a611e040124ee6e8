"""What a run stores of its workflow, so that it is resumed on what it began with: the graph, and all that it names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from pydantic import ValidationError

from orchestra.agents.contract import Catalog, Contract, serves
from orchestra.app.snapshot import WORKFLOW, Parcel
from orchestra.core.errors import OrchestraError
from orchestra.core.events import RunStarted
from orchestra.core.labels import Label
from orchestra.core.protocols import Journal
from orchestra.schema.types import Schema
from orchestra.workflows.model import Budget, Graph
from orchestra.workflows.program import CompiledNode, Program, contracts, programs, sampled

if TYPE_CHECKING:
    from orchestra.agents.card import Card
    from orchestra.app.project import Compiled, Project
    from orchestra.workflows.python.acceptance import Accept

CARD, CONTRACT, TYPES, CODE, SERVED = "card", "contract", "types", "code", "served"
T = TypeVar("T")
CERTIFICATE, CLAIMS, COMBINATION, WHOLE = "certificate", "claims", "combination", "whole"
MAX_SAMPLE = 1 << 31


async def workflows(journal: Journal, started: RunStarted) -> dict[str, bytes]:
    """The frozen workflows that a run stored, as `Parcel.workflows` gives them; those that are not there any more are left out."""
    marks = {"": started.graph, **{name: mark for name, mark in started.versions.items() if name.startswith(f"{WORKFLOW}/")}}
    found = {name: await journal.blob(mark) for name, mark in marks.items() if mark}
    return {name: data for name, data in found.items() if data is not None}


def parcel(project: Project, made: Compiled) -> Parcel:
    """A program's parcel, the same for all of its runs."""
    if made.parcel is None:
        made.parcel = _parcel(project, made.program, made.models)
    return made.parcel


def _parcel(project: Project, program: Program, models: Mapping[str, Schema]) -> Parcel:
    parts: dict[str, bytes] = {}
    code: dict[str, str] = {}
    for part in programs(program):
        if part is not program and part.graph is not None:
            parts[f"{WORKFLOW}/{part.name}"] = _written(part.graph)
        for node in part.nodes:
            for contract in contracts(node):
                if uncounted(contract) and (tool := project.registry.tools.get(contract.name)) is not None:
                    code[contract.name] = tool.code
                if (card := project.card_of(contract)) is not None:
                    parts[f"{CARD}/{contract.name}"] = card.dump()
                else:
                    parts[f"{CONTRACT}/{contract.kind}/{contract.name}"] = msgspec.json.encode(contract)
            if node.acceptance is not None and (certificate := node.acceptance.certificate) is not None:
                from orchestra.verification.certificates.file import Certificate

                kind = WHOLE if node.acceptance.whole else CERTIFICATE if isinstance(certificate, Certificate) else CLAIMS
                parts[f"{kind}/{certificate.agent}"] = certificate.written()
            if node.acceptance is not None and (combination := node.acceptance.combination) is not None:
                parts[f"{COMBINATION}/{combination.agent}"] = combination.written()
    if code:
        parts[CODE] = msgspec.json.encode(code, order="sorted")
    if shared := project.shared:
        parts[SERVED] = msgspec.json.encode(shared, order="sorted")
    known = {**project.catalog().models, **models}
    if known:
        parts[TYPES] = msgspec.json.encode(known)
    return Parcel.of(_written(program.graph) if program.graph is not None else b"", parts)


def uncounted(contract: Contract) -> bool:
    """Whether it is a pure tool whose author does not count the versions of its code."""
    return contract.kind == "tool" and contract.effect == "pure" and not contract.version


async def code_of(journal: Journal, started: RunStarted) -> dict[str, str]:
    """The digests of the code of the pure tools without a version, as it was when a run began; none for older runs.

    Raises `OrchestraError` E019 where they are missing, or are none.
    """
    mark = started.versions.get(CODE)
    return _decoded(started.run, await _blob(journal, started.run, mark), dict[str, str]) if mark else {}


def reached(node: CompiledNode) -> Iterator[Contract]:
    """The same, with what the workflows call that its plan may call; what stands in its body is left out."""
    yield from contracts(node)
    for one in node.planning.workflows.values() if node.planning is not None else ():
        yield from called(one.program)


def called(program: Program) -> Iterator[Contract]:
    """What a program calls, or may call, in bodies and in the workflows of its plans too; some of it more than once."""
    for part in programs(program):
        for node in part.nodes:
            yield from contracts(node)


def _written(graph: Graph) -> bytes:
    # Not canonical: the order of nodes is part of what a workflow says.
    return msgspec.json.encode(graph.model_dump(mode="json", by_alias=True, exclude_defaults=True))


async def restored(
    project: Project,
    journal: Journal,
    started: RunStarted,
    *,
    asking: bool = True,
    instead: Mapping[str, Contract] | None = None,
    held: Mapping[tuple[str, str], Any] | None = None,
) -> Program:
    """The program that a run began with; its cards are made known to the project under their digests.

    Without `asking` no call will be made: what agents have learnt since is no fault then, and no card is made known. `instead` has
    other agents, by the names that the workflow knows them by; what `held` has of these, by kind and name, is what they are accepted by.
    Other certificates are taken over, and promise nothing of them. A tool that only got inputs that can be left out is today's. What plans
    and agents with tools may do in it was asked when it began (L123).
    Raises `OrchestraError` E019 where parts are missing or are not what they should be, and what compiling raises.
    """
    from orchestra.workflows.compile.compiler import compile_graph

    graph = await graph_of(journal, started)
    catalog = await _catalog(project, journal, started, instead or {}, held or {}, asking=asking)
    return as_told(compile_graph(graph, catalog), started)


async def _catalog(
    project: Project,
    journal: Journal,
    started: RunStarted,
    instead: Mapping[str, Contract],
    held: Mapping[tuple[str, str], Any],
    *,
    asking: bool,
) -> Catalog:
    """All that the workflow of a run names, as the run stored it."""
    from orchestra.verification.certificates.claims_file import ClaimsCertificate
    from orchestra.verification.certificates.combination import Combination
    from orchestra.verification.certificates.file import Certificate

    run = started.run
    agents: dict[str, Contract] = {}
    tools: dict[str, Contract] = {}
    workflows: dict[str, Graph] = {}
    models: dict[str, Schema] = {}
    certificates: dict[str, Certificate] = {}
    claims: dict[str, ClaimsCertificate] = {}
    combinations: dict[str, Combination] = {}
    wholes: dict[str, Certificate] = {}
    mark = started.versions.get(SERVED)
    shared = _decoded(run, await _blob(journal, run, mark), dict[str, tuple[str, ...]]) if mark else {}
    for name, mark in started.versions.items():
        data = await _blob(journal, run, mark)
        kind, _, rest = name.partition("/")
        if kind == "card" and rest in instead:
            continue
        match kind:
            case "card":
                card = _card(project, rest, data, asking=asking)
                if asking:
                    project.keep(card)
                agents[rest] = card.served(shared)
            case "contract":
                contract = _decoded(run, data, Contract)
                tool = project.registry.tools.get(contract.name) if contract.kind == "tool" else None
                if tool is not None and serves(tool.contract, contract):
                    contract = tool.contract
                (tools if contract.kind == "tool" else agents)[contract.name] = contract
            case "workflow":
                workflows[rest] = _read(run, data)
            case "certificate":
                certificates[rest] = Certificate.read(data)  # a run goes on with the threshold that it began with
            case "whole":
                wholes[rest] = Certificate.read(data)
            case "claims":
                claims[rest] = ClaimsCertificate.read(data)
            case "combination":
                combinations[rest] = Combination.read(data)
            case "served":
                continue
            case "code":
                continue  # a run goes on with the code that is there
            case "types":
                models = _decoded(run, data, dict[str, Any])
            case _:
                raise _unfit(run, f"it names {name!r}, which this version does not know")
    for name, contract in instead.items():  # in the fleet that the run began with, as those that they stand beside
        other = project.card_of(contract)
        agents[name] = other.served(shared) if other is not None else contract
    _hand_over({CERTIFICATE: certificates, CLAIMS: claims, COMBINATION: combinations}, instead, held)
    found = Catalog(agents, tools, workflows, models, certificates=certificates, claims=claims, combinations=combinations)
    return replace(found, wholes=wholes, stored=True)


def _hand_over(promises: Mapping[str, dict[str, Any]], instead: Mapping[str, Contract], held: Mapping[tuple[str, str], Any]) -> None:
    """Has other agents accepted by what is `held` of them, by kind and name; else by what the agents were whose place they take."""
    for name, contract in instead.items():
        for kind, promised in promises.items():
            if (own := held.get((kind, contract.name))) is not None:
                promised[contract.name] = own
            elif name in promised:
                promised.setdefault(contract.name, promised[name])


def _card(project: Project, name: str, data: bytes, *, asking: bool) -> Card:
    """A card as a run stored it; its files are those of the current one, and its members' those of the current members."""
    from orchestra.agents.card import Card as Stored
    from orchestra.agents.ensemble import checked

    current = project.cards.get(name)
    if not asking or current is None:
        return checked(Stored.restore(data))
    beside = {part.name: part.folder for part in current.parts}
    folders = {**{one.name: one.folder for one in project.cards.values()}, **beside}
    found = checked(Stored.restore(data, current.folder, folders))
    # Before there was such a key, the prompt alone was asked wherever the adapter's base was not.
    return found.model_copy(update={"elsewhere": current.elsewhere}) if found.digest == current.digest else found


def as_told(program: Program, started: RunStarted) -> Program:
    """A program with what its run was told beside its inputs: the samples that its agents draw, what its plans are admitted, and its
    budget. Raises `OrchestraError` E019 for what is none of it."""
    program = sampled(program, _whole(started.options.get("sample")))
    budget = started.options.get("budget")
    program = program if budget is None else replace(program, budget=_budget(started.run, budget))
    return with_plans(program, started.options)


def with_plans(program: Program, told: Mapping[str, Any]) -> Program:
    """A program with what its run's options tell of its plans. Raises `InputError` E019 for what does not say that."""
    if not program.plans:
        return program
    from orchestra.app.planner_limits import planned

    return planned(program, told)


def of_plans(project: Project, program: Program, label: Label, *, fleet: bool, fresh: bool) -> dict[str, Any]:
    """What a run's options have of its plans, where there are any: what fleet and budget admit of them on data with this label.
    Without `fleet` others stand in for it; with `fresh` no call is recalled."""
    if not program.plans:
        return {}
    from orchestra.app.planner_limits import admitted

    return admitted(project.fleet if fleet else None, project.cards, program, label, fresh=fresh)


def accepted_by(started: RunStarted) -> Accept | None:
    """By what a run was told to accept its output as a whole; None where it was told nothing."""
    said = started.options.get("accept")
    if said == "certified":
        return "certified"
    return float(said) if isinstance(said, int | float) and 0 <= said <= 1 else None


async def graph_of(journal: Journal, started: RunStarted) -> Graph:
    """The graph that a run began with. Raises `OrchestraError` E019 where it is missing, or is none."""
    return _read(started.run, await _blob(journal, started.run, started.graph))


async def _blob(journal: Journal, run: str, mark: str) -> bytes:
    if (data := await journal.blob(mark)) is None:
        raise _unfit(run, f"blob {mark} is missing")
    return data


def _read(run: str, data: bytes) -> Graph:
    try:
        return Graph.model_validate_json(data)
    except ValidationError as error:
        raise _unfit(run, str(error.errors(include_url=False)[0]["msg"])) from error


def _decoded(run: str, data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise _unfit(run, str(error)) from error


def _whole(stated: Any) -> int:
    """A number of a sample; 0 for what is none."""
    return stated if isinstance(stated, int) and 0 < stated <= MAX_SAMPLE else 0


def _budget(run: str, stated: Any) -> Budget:
    try:
        return Budget.model_validate(stated)
    except ValidationError as error:
        raise _unfit(run, str(error.errors(include_url=False)[0]["msg"])) from error


def _unfit(run: str, why: str) -> OrchestraError:
    return OrchestraError("E019", f"the workflow that run {run} stored cannot be read: {why}", hint=f"orchestra runs fork {run}")
