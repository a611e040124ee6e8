"""Steps: agents, tools and workflows as Python sees them. A call in a workflow function is wired, not run.

    reader = agent("reader", ReaderInput, Reading)      # binds the card of that name

    @tool(effect="pure")
    def search(query: str, documents: Sequence[Document], top: int = 5) -> list[Passage]: ...

    @workflow(budget=Budget(tokens=20_000, seconds=60))
    def find(question: str, documents: Sequence[Document]) -> list[Passage]:
        return search(query=question, documents=documents)

Checkers see the signatures as they are written: `search(...)` is a `list[Passage]`, in a workflow too, where it is a placeholder.
Outside of a workflow a step is run by `await orchestra.run(search, ...)`; a plain tool can also simply be called.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Never, ParamSpec, Protocol, Self, TypedDict, cast, get_args, overload

from pydantic import BaseModel, ValidationError
from typing_extensions import TypeForm, TypeVar, Unpack

from orchestra.agent.card import Card, Sampling
from orchestra.agent.contract import Contract, Effect
from orchestra.errors import InputError
from orchestra.values.labels import Label
from orchestra.values.types import Schema, elements, nearest, resolve, under
from orchestra.workflow import mistakes
from orchestra.workflow.nodes import AgentNode, Node, Retry, ToolNode
from orchestra.workflow.pending import node_value, said, unfit
from orchestra.workflow.placeholders import Guarded, Placeholder, template
from orchestra.workflow.scopes import Draft, Scope, fault, tracing
from orchestra.workflow.signatures import Signature, of_function, of_models
from orchestra.workflow.spoken import typed

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
T = TypeVar("T")


class Options(TypedDict, total=False):
    """What one node may be told beside its inputs."""

    name: str
    """Of the node; without it the variable's."""
    timeout: float
    """Seconds of one attempt."""
    retry: int | Retry
    """Attempts in all, at most 10."""
    fallback: object
    """The value where the node ends without one: of its output's type, known or not."""
    after: Sequence[object]
    """Values whose nodes it waits for without using them."""
    limit: int
    """Of a node in a `map_` body: elements at most."""
    concurrency: int
    """Of a node in a `map_` body: elements at once."""


class CardSettings(TypedDict, total=False):
    """Further keys of a card that is declared in Python, as in `agent.yaml`."""

    description: str
    system: str
    sampling: Sampling
    max_output: int
    min_output: int
    checks: tuple[str, ...]
    accept: float | Literal["certified"]
    otherwise: tuple[Literal["retry", "escalate", "abstain"], ...]
    label: Label
    evidence: str


class Step(Generic[P, R]):
    """Something that a node runs. Called in a workflow function it gives a placeholder, which checkers see as the output."""

    kind: ClassVar[str] = "step"
    node: ClassVar[type[Node]] = Node

    def __init__(self, name: str, signature: Signature, description: str = "") -> None:
        self.name, self.signature, self.description = name, signature, description
        self._options: Options = {}
        self.__name__, self.__doc__, self.__signature__ = name, description, signature.parameters

    def __repr__(self) -> str:
        return f"<{self.kind} {self}>"

    def __str__(self) -> str:
        fields = self.signature.input.get("properties", {})
        given = (f"{name}: {typed(under(self.signature.input, part))}" for name, part in fields.items())
        return f"{self.name}({', '.join(given)}) -> {typed(self.signature.output)}"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        scope = tracing()
        if scope is None:
            raise mistakes.mistake(
                "W001",
                f"{self.name} is called outside a workflow",
                hint=f"await orchestra.run({self.name}, ...)",
                why=self._why_not(),
            )
        wired = self._wired(self._bound(args, kwargs))
        draft = self._node(scope, wired)
        self._told(draft, scope)
        scope.root.steps.append(self)
        return cast(R, Placeholder(node_value(draft, scope)))

    def options(self, **options: Unpack[Options]) -> Self:
        """The same step, whose next node has these options: `reader.options(timeout=30, retry=3)(question=...)`."""
        unknown = next((name for name in options if name not in Options.__annotations__), None)
        if unknown is not None:
            near = nearest(unknown, Options.__annotations__)
            hint = f"did you mean {near!r}?" if near else f"options: {', '.join(Options.__annotations__)}"
            raise fault("W016", f"{self.name}.options has no {unknown!r}", hint=hint)
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        made._options = {**self._options, **options}
        return made

    def read(self, value: Any) -> R:
        """A JSON value of the output, as its Python type. Raises `InputError` W020 for one that is not of the type."""
        return cast(R, self.signature.read(value))

    def same(self, other: Step[..., Any]) -> bool:
        """Whether another step of this name is no other thing."""
        mine, theirs = self.signature, other.signature
        return type(self) is type(other) and mine.input == theirs.input and mine.output == theirs.output

    def _why_not(self) -> str:
        return "an agent needs servers, a budget and a journal: an Orchestra has them"

    def _bound(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by name. Raises `InputError` W010."""
        parameters = self.signature.parameters
        loose = any(one.kind is one.VAR_KEYWORD for one in parameters.parameters.values())
        for name in kwargs if not loose else ():
            if name not in parameters.parameters:
                near = nearest(name, parameters.parameters)
                raise fault("W010", f"{self.name} has no input {name!r}", hint=f"did you mean {near!r}?" if near else str(self))
        try:
            bound = parameters.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise fault("W010", f"{self.name}: {error}", hint=str(self)) from None
        return {**bound.pop("inputs", {}), **bound} if loose else dict(bound)

    def _wired(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as templates. Raises `InputError` W011 for one of another type."""
        wired: dict[str, Any] = {}
        fields = self.signature.input.get("properties", {})
        for name, value in given.items():
            wired[name], have = template(value)
            want = under(self.signature.input, fields.get(name, True))
            if reason := unfit(have, want):
                raise _misfit(f"{self.name}({name}=...)", value, have, want, reason)
        return wired

    def _node(self, scope: Scope, wired: dict[str, Any]) -> Draft:
        fields: dict[str, Any] = {self.kind: self.name, "with_": wired}
        if "name" in self._options:
            fields["name"] = self._options["name"]
        return scope.add(self.node, self.name, self.signature.output, **fields)

    def _told(self, draft: Draft, scope: Scope) -> None:
        """Puts the options on a node."""
        options = self._options
        for key in ("timeout", "limit", "concurrency"):
            if key in options:
                draft.fields[key] = options.get(key)
        if "timeout" in options:
            draft.fields["timeout"] = float(options["timeout"])
        if "retry" in options:
            draft.fields["retry"] = _retry(options["retry"])
        if "fallback" in options:
            draft.fields["fallback"], have = template(options["fallback"])
            if reason := unfit(have, draft.schema):
                raise _misfit(f"{self.name}.options(fallback=...)", options["fallback"], have, draft.schema, reason)
        if "after" in options:
            draft.fields["after"] = tuple(_waited(value, scope) for value in options["after"])
        if "name" in options and draft.name != options["name"]:
            raise fault("W016", f"a node cannot be called {options['name']!r} here", hint=f"a free name, such as {draft.name!r}")


def _retry(given: int | Retry) -> Retry:
    if isinstance(given, Retry):
        return given
    try:
        return Retry(attempts=given)
    except ValidationError as error:
        raise fault("W016", f"retry={given!r} is not a number of attempts", hint="retry=3, from 1 to 10") from error


def _waited(value: Any, scope: Scope) -> str:
    wired = value._wired if type(value) in (Placeholder, Guarded) else None
    if wired is None or wired.node is None:
        raise fault("W016", "after=[...] takes the values of calls", hint="after=[passages], where passages = search(...)")
    if wired.node not in scope.nodes:
        raise fault("W006", f"{said(wired)} belongs to another body", hint="after=[...] takes nodes of the same body")
    wired.node.used = True
    return str(wired.node.name)


def _misfit(what: str, value: Any, have: Schema, want: Schema, reason: str) -> InputError:
    """W011: a value of another type, with the part of it that would fit."""
    where = f": {reason}" if reason.startswith((".", "[")) or ": " in reason else ""
    known = typed(have) if type(value) is Placeholder else _literal(have)
    return fault("W011", f"{what} takes {typed(want)}, got {known}{where}", hint=_fitting(value, have, want))


def _literal(have: Schema) -> str:
    """A Python value, short enough for a message."""
    text = repr(have["const"]) if "const" in have else typed(have)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _fitting(value: Any, have: Schema, want: Schema) -> str:
    """A field of the value, or the elements of the list, that would fit."""
    if type(value) is not Placeholder:
        return ""
    text = said(value._wired)
    shape = resolve(have)
    parts = [part for part in shape.get("anyOf", ()) if part.get("type") != "null"]
    if len(parts) == 1 and len(shape["anyOf"]) == 2 and unfit(under(shape, parts[0]), want) is None:
        return f"or_else({text}, ...) says what stands in for None"
    for name, part in shape.get("properties", {}).items():
        if unfit(under(shape, part), want) is None:
            return f"did you mean {text}.{name}?"
    inner = elements(have) if shape.get("type") == "array" else ""
    if isinstance(inner, dict):
        if unfit(inner, want) is None:
            return f"map_(lambda item: ..., {text}) for each element, or {text}[0] for the first"
        wanted = elements(want) if resolve(want).get("type") == "array" else ""
        inner = resolve(inner)
        for name, part in inner.get("properties", {}).items() if isinstance(wanted, dict) else ():
            if unfit(under(inner, part), cast(Schema, wanted)) is None:
                return f"did you mean map_(lambda item: item.{name}, {text})?"
    wanted = elements(want) if resolve(want).get("type") == "array" else ""
    return f"[{text}]" if isinstance(wanted, dict) and unfit(have, wanted) is None else ""


class Agent(Step[P, R]):
    """A specialist: the card of a name, or one declared by a signature and a prompt."""

    kind: ClassVar[str] = "agent"
    node: ClassVar[type[Node]] = AgentNode
    prompt: str | Path | None = None
    """Of an agent that is declared in Python: its text, or a file beside the function."""
    folder: Path = Path()
    settings: Mapping[str, Any] = {}

    @classmethod
    def of(cls, contract: Contract) -> Agent[..., Any]:
        """An agent that is known by its contract alone, such as one of the registry."""
        return Agent(contract.name, _untyped(contract), contract.description)

    @cached_property
    def card(self) -> Card | None:
        """The card of an agent that is declared in Python; None for one that binds a card of the project.

        Raises `InputError`: W017 where the prompt's file cannot be read, A-codes for faults of the prompt.
        """
        if self.prompt is None:
            return None
        text = self.prompt
        if isinstance(text, Path) or (text.endswith((".md", ".txt", ".j2")) and "\n" not in text):
            try:
                text = (self.folder / text).read_text("utf-8-sig")
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
                raise InputError(
                    "W017", f"{self.name}: cannot read its prompt {self.folder / self.prompt}: {reason}", hint="prompt='{{ question }}'"
                ) from error
        settings = {"description": self.description, **self.settings}
        return Card.declared(self.name, input=self.signature.input, output=self.signature.output, prompt=text, **settings)

    @property
    def contract(self) -> Contract:
        """Its typed face. Raises `InputError` where its own prompt is at fault."""
        if self.card is not None:
            return self.card.contract
        return Contract(self.name, "agent", self.signature.input, self.signature.output, self.description)


class Tool(Step[P, R]):
    """Registered Python with a declared effect."""

    kind: ClassVar[str] = "tool"
    node: ClassVar[type[Node]] = ToolNode
    effect: Effect = "pure"
    function: Callable[..., Any]
    """What it runs; a coroutine function or a plain one."""

    @property
    def contract(self) -> Contract:
        """Its typed face."""
        return Contract(self.name, "tool", self.signature.input, self.signature.output, self.description, self.effect)

    @classmethod
    def of(cls, contract: Contract, function: Callable[..., Any]) -> Tool[..., Any]:
        """A tool that is known by its contract and its function."""
        made: Tool[..., Any] = Tool(contract.name, _untyped(contract), contract.description)
        made.function, made.effect = function, contract.effect
        return made

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if tracing() is None and not inspect.iscoroutinefunction(self.function):
            return cast(R, self.function(*args, **kwargs))  # a tool is plain code: outside of a workflow it simply runs
        return super().__call__(*args, **kwargs)

    def same(self, other: Step[..., Any]) -> bool:
        return super().same(other) and isinstance(other, Tool) and other.function is self.function

    def _why_not(self) -> str:
        return f"it is a coroutine; in a test, await {self.name}.function(...)"


def _untyped(contract: Contract) -> Signature:
    required = contract.input.get("required", [])
    fields = sorted(contract.input.get("properties", {}), key=lambda name: name not in required)
    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(name, kind, default=inspect.Parameter.empty if name in required else ...) for name in fields]
    return Signature(inspect.Signature(parameters), contract.input, contract.output)


def described(function: Callable[..., Any]) -> str:
    """The first paragraph of a function's docstring, on one line."""
    return " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())


class AgentDecorator(Protocol):
    """Makes an agent of a signature."""

    def __call__(self, function: Callable[P, T], /) -> Agent[P, T]: ...


class ToolDecorator(Protocol):
    """Makes a tool of a function."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, T]], /) -> Tool[P, T]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> Tool[P, T]: ...


def by_model() -> Never:
    """The body of an agent: `return by_model()`. It is never run; checkers accept it for every output type."""
    raise fault("W001", "an agent's body is never run", hint="await orchestra.run(name_of_the_agent, ...)")


@overload
def agent(name: str, input: Callable[P, BaseModel], output: TypeForm[T], /) -> Agent[P, T]: ...
@overload
def agent(*, prompt: str | Path, model: str = "base", adapter: str | None = None, **settings: Unpack[CardSettings]) -> AgentDecorator: ...
def agent(name: Any = None, input: Any = None, output: Any = None, /, **card: Any) -> Any:
    """Binds a card by its name to a model of its inputs and a type of its output; or declares an agent by a signature and a prompt.

        reader = agent("reader", ReaderInput, Reading)

        @agent(prompt="Say in one word what this is about: {{ text }}")
        def topic(text: str) -> str:
            \"\"\"Names a topic.\"\"\"
            return by_model()

    A `prompt` that ends in `.md`, `.txt` or `.j2` is a file beside the function's. Raises `InputError` W017.
    """
    if isinstance(name, str):
        return Agent(name, of_models(name, input, output))
    if name is not None or "prompt" not in card:
        raise mistakes.mistake("W017", "an agent needs a prompt", hint="@agent(prompt='prompt.md'), or agent('name', Input, Output)")

    def declare(function: Callable[..., Any]) -> Any:
        made: Agent[..., Any] = Agent(function.__name__, of_function(function, "agent"), described(function))
        settings = dict(card)
        made.prompt, made.folder = settings.pop("prompt"), Path(function.__code__.co_filename).parent
        made.settings = settings
        return made

    return declare


if TYPE_CHECKING:

    def tool(*, effect: Effect, name: str = "") -> ToolDecorator:
        """Makes a tool of a function, with its effect."""
else:

    def tool(function=None, /, *, effect=None, name=""):
        """Makes a tool of a function: `@tool(effect="pure")`.

        Effects: `pure` (the same output for the same input, and nothing else happens), `idempotent` (twice is as once), `keyed`
        (takes an `idempotency_key`), `transactional` (commits with the journal), `once` (never repeated by itself).
        Raises `InputError` W017 for an effect that is not declared, or a function without types.
        """
        known = get_args(Effect)
        if effect not in known:
            said_so = "does not declare its effect" if effect is None else f"has no effect {effect!r}"
            called = getattr(function, "__name__", name) or "a tool"
            raise mistakes.mistake(
                "W017", f"{called} {said_so}", hint="@tool(effect='pure'), or one of " + ", ".join(known[1:]), why="retries depend on it"
            )

        def declare(inner):
            made = Tool(name or inner.__name__, of_function(inner, "tool"), described(inner))
            made.function, made.effect = inner, effect
            return made

        return declare if function is None else declare(function)
