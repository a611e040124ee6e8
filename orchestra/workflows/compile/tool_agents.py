"""Kits at their nodes: the tools and agents of an agent with tools, looked up, with what they may call in their turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import TYPE_CHECKING, Any

from orchestra.agents.contract import READING, Contract, Kit
from orchestra.schema.json_schema import under
from orchestra.workflows.compile.inputs import Path, listed, meant
from orchestra.workflows.compile.ordering import names_in
from orchestra.workflows.expressions.evaluation import Listing
from orchestra.workflows.expressions.parser import KEYWORDS
from orchestra.workflows.model import AgentNode, AnyNode, CallNode, PlanNode
from orchestra.workflows.program import CompiledNode, Program, Using

if TYPE_CHECKING:
    from orchestra.workflows.compile.compiler import Called, Compiler


def using(compiler: Compiler, node: AgentNode, contract: Contract, path: Path) -> Using | None:
    """What an agent may use at a node; None where it has no tools, or names what is not there. Faults are noted (A019 to A021, L115)."""
    kit, findings = contract.kit, compiler.findings
    if kit is None:
        hint = "leave `tools` out, or list them on the card"
        findings.fault("A021", f"the card of {contract.name} has no tools", findings.at(*path, "tools", key=True), hint=hint)
        return None
    before = len(findings.faults)
    _named(compiler, contract, path)
    known: dict[str, Contract] = {}
    skills = _skills(compiler, contract, known, (contract.name,), (*path, "agent"))
    plain = _plain(node, node.with_)
    _permitted(compiler, node, kit, plain, path)
    if len(findings.faults) > before:
        return None
    offered = tuple(one for one in skills if not acts(one) or one.name in node.tools)
    called = tuple(known.values())
    return Using(kit, offered, (*called, *judges(compiler, called, (*path, "agent"))), plain, compiler.models)


def reached(compiler: Compiler, skills: Iterable[Contract], path: Path) -> tuple[Contract, ...]:
    """What the agents among some skills may call, and these in their turn; what is not there is noted (A019, A020)."""
    known: dict[str, Contract] = {}
    for one in skills:
        if one.kit is not None:
            _skills(compiler, one, known, (one.name,), path)
    return tuple(known.values())


def judges(compiler: Compiler, skills: Iterable[Contract], path: Path) -> tuple[Contract, ...]:
    """What checks of some skills' cards ask, agents and tools, as far as it is there. Where it is not, or cannot judge, a call of the skill
    would fail: that is noted, and no fault, for nobody may ever call it."""
    found: dict[str, Contract] = {}
    for skill in skills:
        if skill.checks:
            from orchestra.verification.session import judge_among, judges_of

            for name in judges_of(skill.checks):
                judge = judge_among(name, compiler.catalog.agents, compiler.catalog.tools)
                if why := _misfit(skill, judge):
                    said = f"a call of {skill.name} would fail: the check {name} of its card {why}"
                    compiler.findings.warn(said, compiler.findings.at(*path))
                if judge is not None:
                    found[name] = judge
    return tuple(found.values())


def _misfit(skill: Contract, judge: Contract | None) -> str:
    """Why a check of a skill's card cannot be asked of what its calls give; empty where it can, as far as that is known here."""
    from orchestra.verification import custom_checks

    if judge is None:
        return "asks what is not there"
    if judge.kind == "agent":
        return ""
    fields, required = skill.input.get("properties", {}), skill.input.get("required", ())
    given = custom_checks.own_types(skill, {name: under(skill.input, part) for name, part in fields.items() if name in required})
    return f"cannot judge it: {why}" if (why := custom_checks.misfit(judge, skill.output, given)) else ""


def acts(contract: Contract) -> bool:
    """Whether it needs the leave of a node's author beside that of the card's."""
    return contract.kind == "tool" and contract.effect not in READING


def acts_unasked(program: Program) -> bool:
    """Whether a workflow may change the world before a person was asked in it."""
    return any((node.contract is not None and acts(node.contract)) or _led(node) for node in _unasked(program))


def _unasked(program: Program) -> Iterator[CompiledNode]:
    """The nodes of a workflow, those in bodies among them, that may run though no person has answered."""
    sure = _resting(program)
    for node in program.nodes:
        if _waits(node, sure):
            continue
        yield node
        if node.body is not None:
            yield from _unasked(node.body)


def _resting(program: Program) -> set[int]:
    """The nodes that have a value only where a person has answered: what has a `fallback` has one in any case."""
    sure: set[int] = set()
    for node in program.nodes:
        if node.fallback is None and (_waits(node, sure) or _asks(node)):
            sure.add(node.index)
    return sure


def _waits(node: CompiledNode, sure: Set[int]) -> bool:
    return any(one in sure and one not in node.soft for one in node.needs)


def _asks(node: CompiledNode) -> bool:
    """Whether it asks a person, itself or in a workflow that it calls and each part of whose output rests on the answer.
    A question for each element of a list may be asked of nobody: the list may be empty, or its elements skipped."""
    if node.each is not None or node.kind == "ask":
        return node.each is None
    if node.kind != "call" or node.body is None or node.body.one_of:
        return False
    output, names = node.body.output, {node.body.nodes[one].name for one in _resting(node.body)}
    parts = output.items if isinstance(output, Listing) else tuple((output.parts or {}).values())
    return all(part.references & names for part in parts or (output,))


def _led(node: CompiledNode) -> bool:
    """Whether a model, of an agent with tools or of a router, chooses what is done to the world."""
    if node.planning is not None and any(acts_unasked(one.program) for one in node.planning.workflows.values()):
        return True
    chosen = node.using.skills if node.using is not None else node.planning.skills if node.planning is not None else ()
    return any(map(acts, chosen))


def called(compiler: Compiler, node: CallNode, program: Program, path: Path) -> None:
    """Notes a workflow in which a model acts on what it is given, and that is given what other nodes have made (L123)."""
    if compiler.catalog.stored or _plain(node, node.with_) or not any(map(_led, _unasked(program))):
        return
    said = f"a model acts in {program.name} on what it is given, and that is here what other nodes have made"
    hint = "give it the workflow's inputs alone, or ask a person in it first"
    compiler.findings.fault("L123", said, compiler.findings.at(*path, "call"), hint=hint)


def _plain(node: AnyNode, *read: Any) -> bool:
    """Whether what a node reads there is the workflow's inputs, and nothing that another node has made."""
    return node.each is None and names_in(list(read)) <= {"input"}


def planned(compiler: Compiler, node: PlanNode, skills: Iterable[Contract], workflows: Mapping[str, Called], path: Path) -> None:
    """Notes what may act in a plan that a router writes who reads what other nodes have made (L123; DESIGN §11)."""
    if compiler.catalog.stored or _plain(node, node.plan, node.with_):
        return
    findings = compiler.findings
    acting = {one.name for one in skills if acts(one)} | {name for name, one in workflows.items() if acts_unasked(one.program)}
    for key, names in (("tools", node.tools), ("workflows", node.workflows)):
        for number, name in enumerate(names):
            if name in acting:
                said = f"{name} has effects, and the plan is made here of what other nodes have made"
                hint = "give it the workflow's inputs alone, list a workflow that asks a person first, or let a node of its own do it"
                findings.fault("L123", said, findings.at(*path, key, number), hint=hint)


def _named(compiler: Compiler, contract: Contract, path: Path) -> None:
    for name in contract.input.get("properties", {}):
        if name in KEYWORDS:
            said = f"{contract.name}: an agent with tools cannot have an input that is called {name!r}"
            compiler.findings.fault("L115", said, compiler.findings.at(*path, "agent"), hint=f"call it {name}_")


def _permitted(compiler: Compiler, node: AgentNode, kit: Kit, plain: bool, path: Path) -> None:
    """Tools with effects that a node names: of the card, and for inputs that no other node has made (DESIGN §11)."""
    findings = compiler.findings
    for number, name in enumerate(node.tools):
        place = findings.at(*path, "tools", number)
        known = compiler.catalog.tools.get(name)
        if name not in kit.tools:
            hint = meant(name, kit.tools, f"it has: {listed(kit.tools)}")
            findings.fault("A021", f"the card of {node.agent} has no tool {name!r}", place, hint=hint)
        elif known is not None and acts(known) and not plain:
            said = f"{name} has effects, and {node.agent} reads here what other nodes have made"
            hint = "give the agent the workflow's inputs alone, or let a node of its own call the tool"
            findings.fault("A021", said, place, hint=hint)


def _skills(compiler: Compiler, contract: Contract, known: dict[str, Contract], above: tuple[str, ...], path: Path) -> list[Contract]:
    """The tools and agents of a kit. `known` gets them, and those below them."""
    catalog, findings, kit = compiler.catalog, compiler.findings, contract.kit
    found: list[Contract] = []
    for kind, names, there in (
        ("tool", kit.tools if kit else (), catalog.tools),
        ("agent", kit.agents if kit else (), catalog.agents),
    ):
        for name in names:
            place = findings.at(*path)
            if name in above:
                way = " -> ".join((*above[above.index(name) :], name))
                hint = f"take {name!r} out of `agents:` of {above[-1]}"
                findings.fault("A020", f"the agent {name!r} would ask itself: {way}", place, hint=hint)
            elif kind == "agent" and name in catalog.broken:
                findings.note(catalog.broken[name])
            elif (one := there.get(name)) is None:
                other = "an agent" if name in catalog.agents else "a tool" if name in catalog.tools else ""
                hint = f"list it under `{'agents' if kind == 'tool' else 'tools'}:`" if other else ""
                said = f"{name!r} is {other}" if other else f"there is no {kind} {name!r}"
                near = meant(name, there, f"there are: {listed(sorted(there))}")
                findings.fault("A019", f"{above[-1]}: {said}", place, hint=hint or near)
            else:
                found.append(one)
                if f"{kind}/{name}" not in known:
                    known[f"{kind}/{name}"] = one
                    if one.kit is not None:
                        _skills(compiler, one, known, (*above, name), path)
    return found
