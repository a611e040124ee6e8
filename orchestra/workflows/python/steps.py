"""Steps: agents, tools and workflows in Python. A call in a workflow function adds a node instead of running.

    reader = agent("reader", ReaderInput, Reading)      # binds the card of that name

    @tool(effect="pure")
    def search(query: str, documents: Sequence[Document], top: int = 5) -> list[Passage]: ...

    @workflow(budget=Budget(tokens=20_000, seconds=60))
    def find(question: str, documents: Sequence[Document]) -> list[Passage]:
        return search(query=question, documents=documents)

Type checkers see the declared signatures: `search(...)` is a `list[Passage]`, and at trace time a placeholder for one.
Outside of a workflow, `await orchestra.run(search, ...)` runs a step; a plain tool can also be called directly.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Literal,
    Never,
    ParamSpec,
    Protocol,
    TypedDict,
    cast,
    get_args,
    overload,
)

from pydantic import BaseModel
from typing_extensions import TypeForm, TypeVar, Unpack

from orchestra.agents.contract import Contract, Effect
from orchestra.agents.tools import KEY_HINT, KEY_PARAMETER, missing_key_message
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.labels import Label
from orchestra.schema.types import Schema, subschema
from orchestra.workflows.model import AgentNode, Budget, CallNode, Defaults, Graph, Node, ToolNode
from orchestra.workflows.python import errors
from orchestra.workflows.python.calls import NodeOptions, Step
from orchestra.workflows.python.checks import AcceptThreshold, Check, CheckOperand, Checks, card_checks, parse_accept
from orchestra.workflows.python.errors import CodeLocation
from orchestra.workflows.python.pending import ATOM_PRECEDENCE, PendingExpression, display_text, type_mismatch
from orchestra.workflows.python.placeholders import Maybe, Placeholder, contains_placeholder, template_with_type
from orchestra.workflows.python.printer import python_type
from orchestra.workflows.python.scopes import (
    NodeLines,
    NodePresence,
    TraceScope,
    Variable,
    current_scope,
    enter_scope,
    node_lines,
    return_location,
    trace,
    trace_error,
)
from orchestra.workflows.python.signatures import (
    NAME_PATTERN,
    first_paragraph,
    models_in,
    name_conflict_error,
    signature_of_contract,
    signature_of_function,
    signature_of_graph,
    signature_of_models,
    workflow_inputs,
)

if TYPE_CHECKING:
    from orchestra.agents.card import Card
    from orchestra.agents.card_file import SamplingParameters, ToolLimits

__all__ = [
    "Agent",
    "CardSettings",
    "NodeOptions",
    "Step",
    "Tool",
    "Workflow",
    "agent",
    "answered_by_model",
    "tool",
    "workflow",
]

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
T = TypeVar("T")


class CardSettings(TypedDict, total=False):
    """Keys of a card that is declared in Python, as in `agent.yaml`."""

    description: str
    system: str
    sampling: SamplingParameters
    max_output: int
    min_output: int
    checks: Checks | Sequence[Checks | str]
    """Checks as on a node, or as text: `quote & short_enough`, or `("quote",)`."""
    accept: float | Literal["certified"]
    otherwise: tuple[Literal["retry", "escalate", "back_off", "abstain"], ...]
    label: Label
    evidence: str
    tools: Sequence[str | Step[..., Any]]
    """The tools that its model may call, by name or as objects; `agents` likewise."""
    agents: Sequence[str | Step[..., Any]]
    limits: ToolLimits


class Agent(Step[P, R]):
    """An agent: a reference to the card of a name, or a card declared by a signature and a prompt."""

    kind: ClassVar[str] = "agent"
    node_type: ClassVar[type[Node]] = AgentNode
    prompt: str | Path | None = None
    """The prompt of an agent declared in Python: its text, or a file next to the function."""
    folder: Path = Path()
    settings: Mapping[str, Any] = {}
    declared_callees: tuple[Step[..., Any], ...] = ()
    """The steps that its model may call, as far as they were declared in Python."""

    @classmethod
    def from_contract(cls, contract: Contract) -> Agent[..., Any]:
        """Returns an agent with this contract, such as one of the registry."""
        return Agent(contract.name, signature_of_contract(contract), contract.description)

    @classmethod
    def from_card(cls, card: Card) -> Agent[..., Any]:
        """Returns an agent with its own card, which takes precedence over a card of that name in the project."""
        result = cls.from_contract(card.contract)
        result.__dict__["card"] = card
        return result

    @cached_property
    def card(self) -> Card | None:
        """The card of an agent declared in Python; None for one that refers to a card of the project.

        Raises:
            InputError: W017 if the prompt's file cannot be read, A-codes for errors in the prompt.
        """
        if self.prompt is None:
            return None
        from orchestra.agents.card import (
            Card,  # imports the template engine and the YAML reader, which a module of tools does not need
        )

        text = self.prompt
        if isinstance(text, Path) or (text.endswith((".md", ".txt", ".j2")) and "\n" not in text):
            try:
                text = (self.folder / text).read_text("utf-8-sig")
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
                raise InputError(
                    "W017",
                    f"{self.name}: cannot read its prompt {self.folder / self.prompt}: {reason}",
                    hint="prompt='{{ question }}'",
                ) from error
        settings = {"description": self.description, **self.settings}
        return Card.declare(
            self.name, input=self.signature.input, output=self.signature.output, prompt=text, **settings
        )

    @property
    def contract(self) -> Contract:
        """The contract. Raises `InputError` if its own prompt has an error."""
        if self.card is not None:
            return self.card.contract
        return Contract(self.name, "agent", self.signature.input, self.signature.output, self.description)

    def is_same(self, other: Step[..., Any]) -> bool:
        """Whether another agent of this name is the same. A reference by name is the same as any agent of that name.

        Raises `InputError` as `card` does if the two declarations differ.
        """
        if not super().is_same(other) or not isinstance(other, Agent):
            return False
        if self.prompt is not None and self._declaration == other._declaration:
            return True
        own_card, other_card = self.card, other.card
        return own_card is None or other_card is None or own_card.digest == other_card.digest

    def _presence(self) -> NodePresence:
        return (
            NodePresence.UNCERTAIN if self.prompt is not None and self.settings.get("checks") else NodePresence.ALWAYS
        )

    @property
    def _declaration(self) -> tuple[Any, ...]:
        """Its declaration without its types, so that two agents can be compared without reading their prompt files."""
        return self.prompt, self.folder, self.settings, self.description


class Tool(Step[P, R], CheckOperand):
    """A registered Python function with a declared effect."""

    kind: ClassVar[str] = "tool"
    node_type: ClassVar[type[Node]] = ToolNode
    effect: Effect = "pure"
    version: str = ""
    label: Label = "internal"
    """The strictest label of data that it may receive."""
    function: Callable[..., Any]
    """The function, plain or a coroutine function."""

    @cached_property
    def contract(self) -> Contract:
        """The contract."""
        types = self.signature.input, self.signature.output
        return Contract(
            self.name, "tool", *types, self.description, self.effect, label=self.label, version=self.version
        ).with_digest()

    @classmethod
    def from_contract(cls, contract: Contract, function: Callable[..., Any]) -> Tool[..., Any]:
        """Returns a tool with this contract and function."""
        result: Tool[..., Any] = Tool(contract.name, signature_of_contract(contract), contract.description)
        result.function, result.effect, result.version, result.label = (
            function,
            contract.effect,
            contract.version,
            contract.label,
        )
        return result

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if current_scope() is None and not inspect.iscoroutinefunction(self.function):
            return cast(R, self.function(*args, **kwargs))  # a tool is a plain function outside of a workflow
        return super().__call__(*args, **kwargs)

    def as_check(self) -> Check:
        """Returns the check that runs this tool (`orchestra.verification.custom_checks`)."""
        from orchestra.verification.custom_checks import tool_reference

        return Check(tool_reference(self.name), steps=(self,))

    def is_same(self, other: Step[..., Any]) -> bool:
        """Whether another tool has the same name and function."""
        return super().is_same(other) and isinstance(other, Tool) and other.function is self.function

    def _usage_hint(self) -> str:
        return f"it is a coroutine; in a test, await {self.name}.function(...)"


class Workflow(Step[P, R]):
    """A workflow: a function that is traced once, or a frozen graph."""

    kind: ClassVar[str] = "call"
    node_type: ClassVar[type[Node]] = CallNode
    function: Callable[..., Any] | None = None
    """The traced function; None for a workflow of a file."""
    budget: Budget | None = None
    defaults: Defaults | None = None
    label: Label | None = None
    accept: AcceptThreshold | None = None
    """The score from which its output is accepted as a whole."""

    @classmethod
    def from_graph(cls, graph: Graph) -> Workflow[..., Any]:
        """Returns a workflow with this graph, such as one of a file."""
        result: Workflow[..., Any] = Workflow(graph.name, signature_of_graph(graph), graph.description)
        result.__dict__["_trace"] = (graph, (), {}, {})
        return result

    @property
    def graph(self) -> Graph:
        """The graph of the function, traced at first use. Raises `InputError` (W-codes) for errors, at their lines."""
        return self._trace[0]

    @property
    def steps(self) -> tuple[Step[..., Any], ...]:
        """The agents, tools and workflows it calls, each once, in the order of the first call. Empty for a workflow of
        a file.
        """
        return self._trace[1]

    @property
    def node_lines(self) -> NodeLines:
        """The lines of the calls of its nodes. Empty for a workflow of a file."""
        return self._trace[3]

    @property
    def models(self) -> dict[str, Schema]:
        """The pydantic models, by name, of its inputs, of its plans' results and of the workflows below it. The catalog
        needs them.
        """
        all_models: dict[str, Schema] = {}
        returned_models: dict[str, Schema] = {}
        pending_steps: list[Step[..., Any]] = [self]
        visited: set[str] = set()
        while pending_steps:
            step = pending_steps.pop()
            if isinstance(step, Workflow) and step.name not in visited:
                visited.add(step.name)
                all_models = {**models_in(step.signature.input), **all_models}
                returned_models = {**step._trace[2], **returned_models}
                pending_steps += step.steps
        return {**returned_models, **all_models}

    def is_same(self, other: Step[..., Any]) -> bool:
        """Whether another workflow of this name has the same graph. Raises `InputError` (W-codes) for errors in one of
        them.
        """
        if not super().is_same(other) or not isinstance(other, Workflow):
            return False
        return (self.function is not None and self._declaration == other._declaration) or self.graph == other.graph

    @property
    def _declaration(self) -> tuple[Any, ...]:
        """Its declaration, so that two workflows can be compared without tracing."""
        return self.function, self.budget, self.defaults, self.label, self.accept

    @cached_property
    def _trace(self) -> tuple[Graph, tuple[Step[..., Any], ...], Mapping[str, Schema], NodeLines]:
        function = self.function
        if function is None:
            raise InputError(
                "W019", f"{self.name} has neither a function nor a graph", hint="Workflow.from_graph(graph)"
            )
        scope = TraceScope(
            function=function,
            outer_trace=current_scope(),
            file=function.__code__.co_filename,
            models=models_in(self.signature.input),
        )
        inputs, types, record = workflow_inputs(function, self.name, self.signature)
        source = frozenset({Variable("input", record)})
        with enter_scope(scope):
            expressions = {
                name: PendingExpression(
                    f"input.{name}", ATOM_PRECEDENCE, subschema(record, record["properties"][name]), scope, source
                )
                for name in inputs
            }
            try:
                returned_value = trace(
                    function, **{name: Placeholder(expression) for name, expression in expressions.items()}
                )
            except OrchestraError:
                raise
            except Exception as error:  # the body is user code
                raise errors.function_error(self.name, error, function.__code__.co_filename) from error
            if scope.errors:
                raise scope.errors[0]
            scope.return_location = return_location(function)
            output = self._output(returned_value)
            if not scope.nodes:
                hint = "a workflow calls at least one agent, tool or workflow; what calls none is a plain function"
                raise trace_error("W019", f"{self.name} calls nothing", hint=hint)
            if not contains_placeholder(returned_value):
                said_so = f"{self.name} returns {returned_value!r:.60}, which is the same in every run"
                raise trace_error("W019", said_so, hint="return what a call gives, or build(Model, field=...)")
            nodes = {draft.name: draft.freeze() for draft in scope.nodes}
        graph = Graph(
            name=self.name,
            description=self.description,
            input=inputs,
            types=types,
            output=output,
            budget=self.budget,
            defaults=self.defaults,
            label=self.label,
            accept=self.accept,
            nodes=nodes,
        )
        return graph, self._collect_steps(scope), scope.models, node_lines(scope.nodes)

    def _output(self, returned_value: Any) -> Any:
        if type(returned_value) is Maybe:
            text = display_text(returned_value._expression)
            hint = f"first_of({text}, otherwise=...), or require({text}): without it, the run has no output"
            hint = f"values({text})" if returned_value._is_list else hint
            raise trace_error("W009", f"{self.name} returns a value that may be missing", hint=hint)
        output, schema = template_with_type(returned_value)
        if reason := type_mismatch(schema, self.signature.output):
            expected_type, actual_type = python_type(self.signature.output), python_type(schema)
            position_text = f": {reason}" if not reason.startswith("expected") else ""
            raise trace_error(
                "W012", f"{self.name} must return {expected_type}, and returns {actual_type}{position_text}"
            )
        return output

    def _collect_steps(self, scope: TraceScope) -> tuple[Step[..., Any], ...]:
        steps_by_name: dict[tuple[str, str], Step[..., Any]] = {}
        for step in scope.steps:
            other_step = steps_by_name.setdefault((step.kind, step.name), step)
            if not step.is_same(other_step):
                location = CodeLocation(self.function.__code__, -1) if self.function is not None else None
                raise name_conflict_error(step.name, "workflow" if step.kind == "call" else step.kind, location)
        return tuple(steps_by_name.values())


class AgentDecorator(Protocol):
    """Makes a function's signature an agent."""

    def __call__(self, function: Callable[P, T], /) -> Agent[P, T]: ...


class WorkflowDecorator(Protocol):
    """Makes a function a workflow."""

    def __call__(self, function: Callable[P, T], /) -> Workflow[P, T]: ...


class ToolDecorator(Protocol):
    """Makes a function a tool."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, T]], /) -> Tool[P, T]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> Tool[P, T]: ...


def answered_by_model() -> Never:
    """The body of an agent: `return answered_by_model()`. It never runs; type checkers accept it for every output
    type.
    """
    raise trace_error("W001", "an agent's body is never run", hint="await orchestra.run(name_of_the_agent, ...)")


@overload
def agent(name: str, input: Callable[P, BaseModel], output: TypeForm[T], /) -> Agent[P, T]: ...
@overload
def agent(
    *, prompt: str | Path, model: str = "base", adapter: str | None = None, **settings: Unpack[CardSettings]
) -> AgentDecorator: ...
def agent(name: Any = None, input: Any = None, output: Any = None, /, **card: Any) -> Any:
    """Refers to the card of a name with types of its input and output, or declares an agent by a signature and a
    prompt.

        reader = agent("reader", ReaderInput, Reading)

        @agent(prompt="Say in one word what this is about: {{ text }}")
        def topic(text: str) -> str:
            '''Names a topic.'''
            return answered_by_model()

    A `prompt` that ends in `.md`, `.txt` or `.j2` is a file next to the function's file. Raises `InputError` W017.
    """
    if isinstance(name, str):
        return Agent(name, signature_of_models(name, input, output))
    if name is not None or "prompt" not in card:
        raise errors.error_at(
            "W017", "an agent needs a prompt", hint="@agent(prompt='prompt.md'), or agent('name', Input, Output)"
        )

    def declare(function: Callable[..., Any]) -> Any:
        result: Agent[..., Any] = Agent(
            function.__name__, signature_of_function(function, "agent"), first_paragraph(function)
        )
        settings = dict(card)
        result.prompt, result.folder = settings.pop("prompt"), Path(function.__code__.co_filename).parent
        for key in ("tools", "agents"):
            if key in settings:
                values = tuple(settings[key])
                result.declared_callees = (
                    *result.declared_callees,
                    *(item for item in values if isinstance(item, Step)),
                )
                settings[key] = tuple(item.name if isinstance(item, Step) else item for item in values)
        if "checks" in settings:
            settings["checks"], steps = card_checks(settings["checks"])
            result.declared_callees = (*result.declared_callees, *steps)
        result.settings = settings
        return result

    return declare


if TYPE_CHECKING:

    def tool(*, effect: Effect, name: str = "", version: str = "", label: Label = "internal") -> ToolDecorator:
        """Makes a function a tool with this effect, version and label."""
        ...
else:

    def tool(function=None, /, *, effect=None, name="", version="", label="internal"):
        """Makes a function a tool: `@tool(effect="pure")`.

        Args:
            effect: What a second attempt may do.
                `pure`: the same output for the same input, without side effects. With `version="1"`, raised at each
                change of the code's results, answers are reused between runs; without a version they are not.
                `idempotent`: two calls have the effect of one.
                `keyed`: idempotent for receivers that ignore a key they have seen. The function takes `*,
                idempotency_key: str = ""`, which is not an input: all attempts of one node of one run get the same key.
                `transactional`: the function has no side effect. It returns a message, which is written to the
                journal's outbox once, in the transaction that records the answer. The sender of the messages passes
                their keys on.
                `once`: never repeated automatically. If it is unknown whether it happened, a person is asked.
            label: The strictest label of data that it may receive. Use `label="restricted"` for tools that send data
            nowhere.

        Raises:
            InputError: W017 for an unknown effect or label, or a function without types; T008 for a keyed tool without
            a key.
        """
        effects, labels = get_args(Effect), get_args(Label)
        if effect not in effects or label not in labels:
            tool_title = getattr(function, "__name__", name) or "a tool"
            raise (
                errors.unknown_effect_error(tool_title, effect, effects)
                if effect not in effects
                else errors.unknown_label_error(tool_title, label, labels)
            )

        def declare(inner):
            signature = signature_of_function(inner, "tool", key=KEY_PARAMETER if effect == "keyed" else "")
            if effect == "keyed" and signature.key_type is not str:
                location = CodeLocation(inner.__code__, -1)
                raise errors.error_at(
                    "T008", missing_key_message(name or inner.__name__), hint=KEY_HINT, location=location
                )
            result = Tool(name or inner.__name__, signature, first_paragraph(inner))
            result.function, result.effect, result.version, result.label = inner, effect, version, label
            return result

        return declare if function is None else declare(function)


@overload
def workflow(function: Callable[P, T], /) -> Workflow[P, T]: ...
@overload
def workflow(
    *,
    budget: Budget | None = None,
    label: Label | None = None,
    defaults: Defaults | None = None,
    accept: AcceptThreshold | None = None,
    name: str = "",
) -> WorkflowDecorator: ...
def workflow(
    function: Any = None,
    /,
    *,
    budget: Budget | None = None,
    label: Label | None = None,
    defaults: Defaults | None = None,
    accept: AcceptThreshold | None = None,
    name: str = "",
) -> Any:
    """Makes a function a workflow: `@workflow` or `@workflow(budget=Budget(tokens=2_000))`.

    The function is run once with placeholders, when its graph is first needed. The first paragraph of its docstring is
    the description. With `accept=certified` its output is accepted as a whole by its certificate.

    Raises:
        InputError: W017 for a function without types, or something that is not a function.
    """

    def declare(function: Callable[..., Any]) -> Any:
        signature = signature_of_function(function, "workflow")
        workflow_name = name or function.__name__
        if not NAME_PATTERN.fullmatch(workflow_name):
            raise errors.error_at(
                "W017",
                f"a workflow cannot be called {workflow_name!r}",
                hint="@workflow(name='lower_case_name')",
                location=CodeLocation(function.__code__, -1),
            )
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise errors.error_at(
                "W017",
                f"{workflow_name} is a coroutine or a generator, and a workflow is a plain function",
                hint=f"def {workflow_name}(...): calls in it add nodes, and need no await",
                location=CodeLocation(function.__code__, -1),
            )
        result: Workflow[..., Any] = Workflow(workflow_name, signature, first_paragraph(function))
        result.function, result.budget, result.label, result.defaults = function, budget, label, defaults
        if accept is not None:
            result.accept = parse_accept(accept)
        return result

    if function is not None and not inspect.isroutine(function):
        hint = "@workflow above a function with types, or @workflow(name=..., budget=...)"
        raise errors.error_at("W017", f"a workflow is made of a function, not of {type(function).__name__}", hint=hint)
    return declare if function is None else declare(function)
