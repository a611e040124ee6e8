"""A project: its settings, and everything that it can name: agents, tools, models, workflows. It starts no server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from orchestra.agents.card import Card
from orchestra.agents.card_types import project_models
from orchestra.agents.contract import Catalog, Contract
from orchestra.agents.registry import Registry
from orchestra.agents.tools import ToolFunction
from orchestra.app.snapshot import WorkflowSnapshot
from orchestra.core.errors import InputError
from orchestra.core.event_logging import create_line_logger, log_info
from orchestra.core.lazy_mapping import LazyMapping
from orchestra.core.settings import Settings, installed_modules, load_modules, looks_like_path
from orchestra.core.suggestions import closest_match
from orchestra.schema.types import Schema
from orchestra.workflows.compile.compiler import check_clearance, compile_graph
from orchestra.workflows.model import Graph
from orchestra.workflows.program import Program, node_contracts, reachable_programs
from orchestra.workflows.python.name_resolution import NamedSteps, ambiguous_name_error, declared_models, resolve_names
from orchestra.workflows.python.signatures import models_in
from orchestra.workflows.python.steps import Agent, Step, Tool, Workflow
from orchestra.workflows.single_step import single_step_graph, with_acceptance
from orchestra.workflows.yaml.reader import WorkflowSource, read

if TYPE_CHECKING:
    from orchestra.agents.mcp.tool import McpToolset
    from orchestra.fleet.config import FleetConfig
    from orchestra.workflows.python.checks import AcceptThreshold

MAX_WORKFLOW_BYTES = 1 << 20
"""Bytes of a workflow file at most (RELIABILITY, hostile input)."""


MAX_UNCHECKED = 64
"""Agents without checks that are cached, the latest."""


def load_settings(config: str | Path | Settings | None, project: str | Path | None) -> Settings:
    """Returns the settings of an `Orchestra`, and logs where they were searched.

    Raises:
        InputError: C060: the project is not trusted, if `Settings.load` was asked to check that.
    """
    if not isinstance(config, Settings):
        settings = Settings.load({"fleet": None if config is None else str(config)}, project=project)
    elif project is None:
        settings = config
    else:
        raise InputError("C046", "whole Settings have their project already", hint="Settings.load(..., project=...)")
    settings.require_trust()
    if settings.project is None and settings.sources:  # Without sources no project was searched.
        log_info(
            settings.log,
            "no project here",
            form=settings.log_as,
            folder=str(settings.start),
            fleet=settings.endpoint or settings.fleet,
            journal=str(settings.journal),
        )
    return settings


@dataclass(slots=True)
class CompiledWorkflow:
    """A program, with what its runs store of it; kept and dropped together."""

    program: Program
    models: Mapping[str, Schema]
    """The types with which its step was written."""
    file_stamps: tuple[Any, ...]
    """Stamps of the files on which it depends (`orchestra.app.certificates.dependency_stamps`)."""
    snapshot: WorkflowSnapshot | None = None
    """The snapshot that a run stores, once one has begun."""


class Project:
    """What a project can name. It grows by the Python steps that it is given; the user's names come before packaged
    ones.
    """

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self.settings = settings
        self.registry = registry
        self.cards: dict[str, Card] = dict(registry.cards)
        """The cards by name. The dictionary grows with the project, so that an open fleet sees new cards."""
        self.cards_by_digest: dict[str, Card] = {}
        """Further cards by digest: of resumed runs, and cards that were replaced."""
        self.toolbox: McpToolset | None = None
        """The MCP tool servers; None if none is configured."""
        self._workflows: dict[str, Workflow[..., Any]] = {}
        self._sources: dict[Path, WorkflowSource] = {}
        # Weak: a long-lived process makes steps for single requests.
        self._programs: WeakKeyDictionary[Step[..., Any], dict[AcceptThreshold | None, CompiledWorkflow]] = (
            WeakKeyDictionary()
        )
        self._registered: WeakSet[Step[..., Any]] = WeakSet()
        self._agents: dict[str, tuple[Card | ToolFunction, Agent[..., Any]]] = {}
        self._tools: dict[str, tuple[ToolFunction, Tool[..., Any]]] = {}
        self._files: dict[Path, Workflow[..., Any]] = {}
        self._unchecked: dict[str, tuple[Card, Agent[..., Any]]] = {}
        """By the digest of an agent with checks: its card without them, and a step."""
        self._unchecked_cards: WeakKeyDictionary[Step[..., Any], Card] = WeakKeyDictionary()
        """The cards of these steps."""
        self._name_generation = 0
        """How often a name was given to another agent or workflow: files refer to the current one."""
        self._declared: NamedSteps = {}
        """What the project's modules declare. Files refer to these by name, independent of what else runs."""
        for card in registry.cards.values():
            self._keep_members(card)
            self._keep_forms(card)

    @classmethod
    def load(cls, settings: Settings) -> Project:
        """Loads the project of these settings: imports its modules and reads its cards. An invalid card is an error
        only when it is used.

        Cards and workflow files may name the models that steps of the modules take and return. Of an untrusted project,
        which can only be inspected, no module is imported and no link out of its folder is followed.

        Raises:
            InputError: An error of a module; C009 or W021: two modules declare different things under one name; W028:
            the function of a workflow raises.
        """
        from orchestra.router.tools import TOOLS as PLANNING
        from orchestra.tools import BUILTIN_TOOLS, load_tool

        modules = installed_modules() if settings.trust_error("modules") else load_modules(settings)
        declared_steps = [step for module in modules for step in _module_steps(module)]
        models = {**declared_models(*declared_steps), **project_models()}
        registry = Registry.load(settings.agents, models=models, check=settings.check_path)
        project = cls(settings, registry.with_lazy_tools(BUILTIN_TOOLS, load_tool).with_tools(PLANNING))
        if settings.mcp:
            from orchestra.agents.mcp.tool import McpToolset

            project.toolbox = McpToolset(settings, create_line_logger(settings.log, form=settings.log_as))
            project.registry = project.registry.with_tools(project.toolbox.tools)
        for step in declared_steps:
            project.register(step)
        project._declared = resolve_names(*declared_steps)
        return project

    def register(self, step: Step[..., Any]) -> None:
        """Registers a Python step by its name, with every step that it calls. The latest step has a name, except for
        names that the project's modules declare. Raises `InputError` C009 for a tool whose name is taken.
        """
        match step:
            case Tool():
                function = self.registry.tools.get(step.name)
                self._require_free_name(step, function)
                if function is None:
                    self.registry = self.registry.with_tools([step])
            case Agent():
                for callee in step.declared_callees:
                    self.register(callee)
                if step.card is not None:
                    self._register_card(step, step.card)
            case Workflow() if step not in self._registered:
                self._registered.add(step)
                if step.function is not None and self._owns_name(step):
                    self._name_generation += self._workflows.get(step.name, step) is not step
                    self._workflows[step.name] = step
                for substep in step.steps:
                    self.register(substep)
            case _:
                pass

    def _register_card(self, step: Agent[..., Any], card: Card) -> None:
        current = self.cards.get(step.name)
        if not self._owns_name(step):
            self.keep_card(card)
        elif current is None or current.digest != card.digest or step not in self._registered:
            self._registered.add(step)
            if current is not None:
                self.keep_card(current)
                self._name_generation += current.digest != card.digest
            self.registry = self.registry.with_cards([card])
            self.cards[step.name] = self.registry.cards[step.name]
            self._keep_members(self.cards[step.name])
            self._keep_forms(card)

    def _owns_name(self, step: Step[..., Any]) -> bool:
        """Whether a step may have its name: not if a module declares another one."""
        declared_step = self._declared.get((step.kind, step.name))
        return declared_step is None or declared_step.is_same(step)

    def register_by_name(self, step: Step[..., Any]) -> None:
        """Registers an agent or a tool to which a check or a plan refers by name. Raises `InputError` W021 if the name
        means another agent, C009 if it means another tool.
        """
        self.register(step)
        if not isinstance(step, Tool) and not self._owns_name(step):
            raise ambiguous_name_error(step)

    def keep_card(self, card: Card) -> None:
        """Makes a card available to calls with its digest (`CallRequest.version`); the current card of its name
        stays.
        """
        self.cards_by_digest[card.digest] = card
        self._keep_members(card)
        self._keep_forms(card)

    def find_card(self, contract: Contract) -> Card | None:
        """Returns the card of a contract, current or kept; None if it has none."""
        current = self.cards.get(contract.name) if contract.kind == "agent" else None
        if current is not None and current.digest == contract.digest:
            return current
        return self.cards_by_digest.get(contract.digest)

    def replacement_contracts(self, agents: Mapping[str, Card | Contract]) -> dict[str, Contract]:
        """Returns the contracts of replacement agents; registers their cards."""
        for agent in agents.values():
            if isinstance(agent, Card):
                self.keep_card(agent)
        return {name: self.contract(agent) if isinstance(agent, Card) else agent for name, agent in agents.items()}

    def contract(self, card: Card) -> Contract:
        """Returns the contract of a card in the project's fleet."""
        return card.served_contract(self.served_names)

    @property
    def served_names(self) -> Mapping[str, tuple[str, ...]]:
        """The models that are served under several names of cards. The fleet file is not read if cards use one name
        only.
        """
        return self.fleet.shared_models if self._has_several_models and self.fleet is not None else {}

    @property
    def _has_several_models(self) -> bool:
        """Whether cards use more than one name of a model."""
        models = {
            part.model
            for card in (*self.cards.values(), *self.cards_by_digest.values())
            for part in (card.member_cards or (card,))
            if part.kind == "model"
        }
        return len(models) > 1

    def tiers(self, program: Program) -> tuple[str, ...]:
        """Returns the fleet's larger models for a program, in the order of escalation; empty if it does not
        escalate.
        """
        return self.fleet.tiers if program.may_escalate and self.fleet is not None else ()

    @cached_property
    def fleet(self) -> FleetConfig | None:
        """The fleet file; None if it is missing or invalid: its users report that."""
        from orchestra.fleet.config import configured_fleet

        try:
            return configured_fleet(self.settings)
        except InputError:
            return None

    def _keep_members(self, card: Card) -> None:
        """Makes an ensemble's members available by digest: another agent may have the name of one."""
        for part in card.member_cards:
            self.cards_by_digest.setdefault(part.digest, part)

    def _keep_forms(self, card: Card) -> None:
        """Makes the forms available in which an agent with tools is asked."""
        for form in card.tool_use_cards or ():
            self.cards_by_digest[form.digest] = form

    def _require_free_name(self, step: Tool[..., Any], function: ToolFunction | None) -> None:
        if function is not None and function.function is not step.function:
            hint = "rename one: @tool(effect=..., name='another_name')"
            raise InputError("C009", f"two tools are named {step.name!r}", hint=hint)

    def find(self, name: str, /) -> Step[..., Any]:
        """Returns a workflow, an agent or a tool by name, or the workflow of a file. The step is the same until it
        changes.

        Raises:
            InputError: C004, with the nearest name; or the error of an agent's card.
        """
        if looks_like_path(name):
            return self._workflow_file(Path(name))
        if name in self._workflows:
            return self._workflows[name]
        if (path := self.settings.resource("workflows", name)) is not None:
            return self._workflow_file(path)
        if name in self.registry.cards or name in self.registry.python_agents or name in self.registry.broken:
            return self.agent(name)
        if (tool := self.registry.tools.get(name)) is not None:
            return self._tool(tool)
        names = sorted(
            {*self._workflows, *self.settings.resources("workflows"), *self.registry.agents, *self.registry.tools}
        )
        near = closest_match(name, names)
        hint = f"did you mean {near!r}?" if near else f"there are: {', '.join(names)}"
        raise InputError("C004", f"there is no workflow, agent or tool named {name!r}", hint=hint)

    def agent(self, name: str) -> Agent[..., Any]:
        """Returns an agent as a step, the same as long as its card is the same. Raises `InputError` A001, or the error
        of its card.
        """
        self.registry.check_usable(name)
        callee = self.registry.cards.get(name) or self.registry.python_agents.get(name)
        if callee is None:
            raise InputError(
                "A001", f"there is no agent {name!r}", hint=f"there are: {', '.join(sorted(self.registry.agents))}"
            )
        cached_agent = self._agents.get(name)
        if cached_agent is None or cached_agent[0] is not callee:
            cached_agent = self._agents[name] = callee, Agent.from_contract(callee.contract)
        return cached_agent[1]

    def _tool(self, tool: ToolFunction) -> Tool[..., Any]:
        cached_tool = self._tools.get(tool.name)
        if cached_tool is None or cached_tool[0] is not tool:
            cached_tool = self._tools[tool.name] = tool, Tool.from_contract(tool.contract, tool.function)
        return cached_tool[1]

    def _workflow_file(self, path: Path) -> Workflow[..., Any]:
        """Returns the workflow of a file. Raises `InputError` C003 if it cannot be read."""
        source, workflow = self._source(path), self._files.get(path.absolute())
        if workflow is None or workflow.graph is not source.graph:
            workflow = self._files[path.absolute()] = Workflow.from_graph(source.graph)
        return workflow

    def judge_step(self, judge: str, own: Mapping[str, Step[..., Any]] | None = None) -> Step[..., Any]:
        """Returns the judge of a check as a step without checks: an agent by name, first of the check's `own`, or
        `tool(NAME)`. Raises `InputError` A001, C004.
        """
        from orchestra.verification import custom_checks

        name = custom_checks.tool_name(judge)
        if not name:
            return self.without_checks((own or {}).get(judge, judge))
        if (tool := self.registry.tools.get(name)) is None:
            raise InputError(
                "C004", f"there is no tool named {name!r}", hint=f"there are: {', '.join(sorted(self.registry.tools))}"
            )
        return self._tool(tool)

    def without_checks(self, agent: str | Step[..., Any]) -> Step[..., Any]:
        """Returns an agent as a step without its checks. An agent with its own card is that agent, even if its name
        has another meaning now. Raises `InputError` A001.
        """
        name, declared_card = (
            (agent, None) if isinstance(agent, str) else (agent.name, agent.card if isinstance(agent, Agent) else None)
        )
        card = declared_card or self.registry.cards.get(name)
        if card is None or not card.checks:
            return self.agent(name) if declared_card is None or isinstance(agent, str) else agent
        cached_agent = self._unchecked.get(card.digest)
        if cached_agent is None:
            bare = card.with_settings(checks=(), accept=None, otherwise=())
            self.keep_card(bare)
            while len(self._unchecked) >= MAX_UNCHECKED:  # A long-lived process makes agents for single requests.
                del self._unchecked[next(iter(self._unchecked))]
            cached_agent = self._unchecked[card.digest] = bare, Agent.from_contract(bare.contract)
            self._unchecked_cards[cached_agent[1]] = bare
        return cached_agent[1]

    def program(self, step: Step[..., Any], /, accept: AcceptThreshold | None = None) -> Program:
        """Compiles a step. An agent or a tool becomes a workflow with one node. Raises `InputError` or
        `InputErrors`.
        """
        return self.compile_step(step, accept).program

    def compile_step(self, step: Step[..., Any], /, accept: AcceptThreshold | None = None) -> CompiledWorkflow:
        """Compiles a step, with what its runs store; with `accept` its whole output is accepted from that score on.
        Raises as `program`, and `InputError` V029 if the step does not take `accept`.
        """
        programs = self._programs.setdefault(step, {})
        compiled_workflow = programs.get(accept)
        if compiled_workflow is not None and compiled_workflow.file_stamps == self._file_stamps(
            step, compiled_workflow.program
        ):
            return compiled_workflow
        new_workflow = programs[accept] = self._compile(step, accept)
        return new_workflow

    def compile_with_prompts(
        self, step: Step[..., Any], accept: AcceptThreshold | None, prompts: Mapping[str, str]
    ) -> CompiledWorkflow:
        """Compiles a step whose agents have other prompts, by their names. Raises as `compile_step`, `InputError` A001
        for an unknown agent, and E041 for one that has no prompt, or that the step does not call.
        """
        if not prompts:
            return self.compile_step(step, accept)
        cards = [_with_prompt(self.registry.card(name), text) for name, text in prompts.items()]
        for card in cards:
            self.keep_card(card)
        compiled_workflow = self._compile(step, accept, cards)
        digests = {
            contract.digest
            for part in reachable_programs(compiled_workflow.program)
            for node in part.nodes
            for contract in node_contracts(node)
        }
        for card in cards:
            if self.contract(card).digest not in digests:
                raise InputError(
                    "E041", f"{step.name} does not call {card.name} as it is in the project",
                    hint="name an agent that the workflow calls",
                )  # fmt: skip
        return compiled_workflow

    def _compile(
        self, step: Step[..., Any], accept: AcceptThreshold | None, cards: Sequence[Card] = ()
    ) -> CompiledWorkflow:
        """Compiles a step; `cards` replace those of their names."""
        self.register(step)
        graph = step.graph if isinstance(step, Workflow) else single_step_graph(step)
        places = next((source.places for source in self._sources.values() if source.graph is graph), None)
        catalog = self.catalog(resolve_names(step), graph, cards)
        models = step.models if isinstance(step, Workflow) else models_in(step.signature.input)
        catalog = replace(catalog, models={**catalog.models, **models})
        if (bare := self._unchecked_cards.get(step)) is not None:
            catalog = replace(catalog, agents={**catalog.agents, step.name: self.contract(bare)})
        if accept is not None:
            graph = with_acceptance(step, graph, accept)
        try:
            program = compile_graph(graph, catalog, places)
            check_clearance(program, places)
        except InputError as error:
            from orchestra.workflows.python.line_numbers import with_source_line

            raise (with_source_line(error, step) if isinstance(step, Workflow) else error) from None
        return CompiledWorkflow(
            program, step.models if isinstance(step, Workflow) else {}, self._file_stamps(step, program)
        )

    def _file_stamps(self, step: Step[..., Any], program: Program) -> tuple[Any, ...]:
        """Returns stamps of the files of a program's certificates, and of the meaning of names in files, so that a
        long-lived process notices when one is void or replaced.
        """
        names = self._name_generation if isinstance(step, Workflow) and step.function is None else 0
        if not program.certified_acceptances:
            return (names,)
        from orchestra.app.certificates import dependency_stamps

        stamps = dependency_stamps(self.settings, self.registry, program)
        if any(certified_acceptance.whole_workflow for certified_acceptance in program.certified_acceptances):
            from orchestra.app.workflow_certificates import workflow_certificate_stamps as wholes

            stamps = (*stamps, *wholes(self, program))
        return (names, *stamps)

    def catalog(
        self, own: NamedSteps | None = None, graph: Graph | None = None, replacements: Sequence[Card] = ()
    ) -> Catalog:
        """Returns everything that a workflow may name; names of `own` come first: the steps that a step calls itself.
        `graph` is the workflow, which may accept its own output by its certificate. `replacements` are cards in place
        of those of their names.
        """
        cards = [step.card for step in (own or {}).values() if isinstance(step, Agent) and step.card is not None]
        other_cards = [card for card in cards if self.cards[card.name].digest != card.digest]
        other_cards = [*other_cards, *replacements]
        graphs = {step.name: step.graph for step in (own or {}).values() if isinstance(step, Workflow)}
        own_registry = self.registry.with_cards(other_cards) if other_cards else None

        def registry() -> Registry:
            return own_registry or self.registry

        def certificates() -> Mapping[str, Any]:
            from orchestra.app.certificates import AgentCertificates

            return AgentCertificates(self.settings, registry)

        def claims() -> Mapping[str, Any]:
            from orchestra.app.certificates import ClaimsCertificates

            return ClaimsCertificates(self.settings, registry)

        def combinations() -> Mapping[str, Any]:
            from orchestra.app.certificates import AgentCombinations

            return AgentCombinations(self.settings, registry)

        def workflow_certificates() -> Mapping[str, Any]:
            from orchestra.app.workflow_certificates import WorkflowCertificates

            return WorkflowCertificates(
                self, _WorkflowGraphs(self, graphs if graph is None else {**graphs, graph.name: graph}).__getitem__
            )

        catalog = registry().catalog(_WorkflowGraphs(self, graphs))
        if self._has_several_models:  # the fleet file is read for the agents of the step only
            contracts, registered_cards = catalog.agents, registry().cards

            def served_contract(name: str) -> Contract:
                return self.contract(registered_cards[name]) if name in registered_cards else contracts[name]

            catalog = replace(catalog, agents=LazyMapping((*contracts, *registered_cards), served_contract))
        full_catalog = replace(
            catalog,
            certificates=_LazyMapping(certificates),
            claims_certificates=_LazyMapping(claims),
            combinations=_LazyMapping(combinations),
        )
        return replace(full_catalog, workflow_certificates=_LazyMapping(workflow_certificates))

    def file_of(self, graph: Graph) -> Path | None:
        """Returns the file of a workflow, regardless of its acceptance; None for one in Python."""

        def without_accept(other_graph: Graph) -> Graph:
            return other_graph if other_graph.accept is None else other_graph.model_copy(update={"accept": None})

        graphs = ((path, source.graph) for path, source in self._sources.items())
        return next(
            (
                path
                for path, source_graph in graphs
                if source_graph.name == graph.name and without_accept(source_graph) == without_accept(graph)
            ),
            None,
        )

    def graph(self, name: str) -> Graph:
        """Returns the graph of a workflow by name. Raises `KeyError` if there is none."""
        if name in self._workflows:
            return self._workflows[name].graph
        return self._source(self.settings.resources("workflows")[name]).graph

    def workflow_names(self) -> list[str]:
        """Returns the names of all workflows."""
        return sorted({*self._workflows, *self.settings.resources("workflows")})

    def _source(self, path: Path) -> WorkflowSource:
        """Reads a workflow file once. Raises `InputError` C003 if it cannot be read, C061 for a link out of an
        untrusted project.
        """
        path = path.absolute()
        if (workflow_source := self._sources.get(path)) is not None:
            return workflow_source
        self.settings.check_path(path)
        try:
            if path.exists() and not path.is_file():
                raise InputError("C003", f"{path.name} is no file", hint="name a file that holds a workflow")
            if path.stat().st_size > MAX_WORKFLOW_BYTES:
                raise InputError(
                    "C003",
                    f"{path.name} has more than 1 MiB",
                    hint="a workflow is small; pass data as inputs: -i name=@file",
                )
            text = path.read_bytes()
        except OSError as error:
            raise InputError(
                "C003", f"cannot read {path}: {error.strerror or error}", hint="orchestra run --help"
            ) from error
        source = self._sources[path] = read(text, str(path))
        return source


class _WorkflowGraphs(Mapping[str, Graph]):
    """The workflows by name, read on access; `own` come first."""

    def __init__(self, project: Project, own: Mapping[str, Graph]) -> None:
        self._project, self._own = project, own

    def __getitem__(self, name: str) -> Graph:
        return self._own[name] if name in self._own else self._project.graph(name)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._own, *self._project.workflow_names()}))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _LazyMapping(Mapping[str, Any]):
    """Files beside agents' cards. Their reader is imported on first access: most workflows use no certificate."""

    def __init__(self, load: Callable[[], Mapping[str, Any]]) -> None:
        self._load = load

    @cached_property
    def _mapping(self) -> Mapping[str, Any]:
        return self._load()

    def __getitem__(self, agent: str) -> Any:
        return self._mapping[agent]

    def __iter__(self) -> Iterator[str]:
        return iter(self._mapping)

    def __len__(self) -> int:
        return len(self._mapping)


def _module_steps(module: ModuleType) -> list[Step[..., Any]]:
    return [value for value in vars(module).values() if isinstance(value, Step)]


def _with_prompt(card: Card, text: str) -> Card:
    """Returns a card with another prompt. Raises `InputError` E041 if its agent has none; A006, and others of
    `Card.with_prompt`, if the text is not a prompt for its inputs.
    """
    if card.kind != "model" or card.member_cards:
        raise InputError("E041", f"the agent {card.name} has no prompt", hint="replace the value of its node")
    return card.with_prompt(text, Path(f"the prompt of {card.name}"))
