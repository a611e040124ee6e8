"""Tools: registered Python with a contract. Values come in as JSON and go out as JSON; in between they are the function's own types."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from contextvars import copy_context
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, Protocol, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from orchestra.agents.code_digest import code_digest
from orchestra.agents.contract import Contract, Effect
from orchestra.agents.fast_validation import Passes, as_they_are, plain, plain_record
from orchestra.agents.tracebacks import frames, place
from orchestra.core.error_codes import NOT_CLEARED
from orchestra.core.errors import InputError
from orchestra.core.labels import Label, may_go
from orchestra.core.untrusted_text import keepable, told
from orchestra.schema.decoding import keeps, reread
from orchestra.schema.strict_json import MAX_BYTES, has_null, not_finite, unkept
from orchestra.schema.types import Schema, Validator, bundled, schema_of

if TYPE_CHECKING:
    from concurrent.futures import Executor

KEY: Final = "idempotency_key"
"""The parameter of a keyed tool that gets the key, and is none of its inputs."""
KEY_HINT = 'def charge(amount: int, *, idempotency_key: str = "") -> Receipt: ...'


WRONG: Final = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, NotImplementedError, RecursionError, SyntaxError,
    TypeError, ValueError,
)  # fmt: skip
"""What Python raises where code, or a value that it was given, is wrong; pydantic's `ValidationError` is a `ValueError`."""
WRONG_FILE: Final = (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
"""Of the faults of the system, which the network's are among, those that a second look does not mend."""


class Declared(Protocol):
    """What a Python-declared tool shows: `orchestra.workflows.python.steps.Tool` is one."""

    @property
    def contract(self) -> Contract:
        """Its typed face."""

    @property
    def function(self) -> Callable[..., Any]:
        """What it runs; a coroutine function or a plain one."""


class ToolFault(Exception):
    """A call of a tool that gave no value: T002 wrong input, T003 it raised, T004 wrong output, F202 data that it is not cleared for."""

    def __init__(self, code: str, reason: str, hint: str = "", frames: tuple[str, ...] = (), *, lasting: bool = False) -> None:
        """`frames` are the lines of code through which the tool's own exception came, the outermost first; `lasting` says whether it would
        come again."""
        reason = keepable(reason)  # what tools say may hold anything, also what no journal takes
        self.code, self.reason, self.hint, self.frames, self.lasting = code, reason, hint, frames, lasting
        super().__init__(f"{code}: {reason}")


class ToolFunction:
    """A contract with the function that keeps it. `version` goes into memo keys; an empty one is never memoised."""

    def __init__(self, contract: Contract, function: Callable[..., Any], version: str = "") -> None:
        """Raises `InputError` T008 for a `keyed` contract whose function takes no key, T001 where that cannot be read."""
        if contract.kind == "tool" and contract.effect == "keyed":
            check_key(function, contract.name)
        self.contract = (replace(contract, version=version, digest="") if version else contract).sealed()
        self.function = function
        self.version = self.contract.version
        self.awaited = inspect.iscoroutinefunction(function)
        """Whether it runs on the loop; a plain function runs on a thread."""
        self._keyed = contract.effect == "keyed"

    @classmethod
    def of(
        cls, function: Callable[..., Any], *, effect: Effect, name: str = "", version: str = "", label: Label = "internal"
    ) -> ToolFunction:
        """A tool of a plain function, its contract read from the signature.

        Raises `InputError` T001 for one that is not annotated, T008 for a keyed one without a parameter for its key.
        """
        inputs, outputs = signature(function, keyed=effect == "keyed")
        text = inspect.getdoc(function) or ""
        said = text.partition("\n\n")[0].replace("\n", " ")
        contract = Contract(name or function.__name__, "tool", inputs, outputs, said, effect, label=label)
        return cls(contract, function, version)

    @property
    def name(self) -> str:
        """Its name in workflows."""
        return self.contract.name

    @cached_property
    def code(self) -> str:
        """A digest of how it is written; empty where that is not known. Told once: what its module holds changes as it runs."""
        return code_digest(self.function)

    @cached_property
    def _hints(self) -> dict[str, Any]:
        return get_type_hints(self.function, include_extras=True)

    @cached_property
    def _arguments(self) -> dict[str, tuple[TypeAdapter[Any], bool]]:
        """The types of the inputs, and which are read from a copy: a tool that changes what it is given changes nothing of the run's."""
        known = self.contract.input.get("properties", {})
        names = [name for name in inspect.signature(self.function).parameters if name in known]
        types: dict[str, TypeAdapter[Any]] = {name: TypeAdapter(self._hints[name]) for name in names}
        return {name: (adapter, keeps(adapter)) for name, adapter in types.items()}

    @cached_property
    def _result(self) -> TypeAdapter[Any]:
        return TypeAdapter(self._hints["return"])

    @cached_property
    def _validators(self) -> tuple[Validator, Validator]:
        return Validator(self.contract.input), Validator(self.contract.output)

    @cached_property
    def _plain(self) -> tuple[Mapping[str, Passes], int] | None:
        """The tests of inputs that are all plain, and how many of them are required; None where one is not."""
        return plain_record(self.contract.input, self._hints)

    @cached_property
    def _plain_result(self) -> Passes | None:
        return plain(self.contract.output, self._hints["return"])

    def arguments(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs as the function's types; raises `ToolFault` T002."""
        if (known := self._plain) is not None and (found := as_they_are(inputs, *known)) is not None:
            return found
        if fault := self._validators[0].check(dict(inputs)):
            raise ToolFault("T002", f"{self.name}: {fault}", "compare with `orchestra agents show`")
        found = {}
        for name, value in inputs.items():
            try:
                adapter, kept = self._arguments[name]
                found[name] = reread(adapter, value, kept=kept)
            except (ValidationError, KeyError) as error:
                raise ToolFault("T002", f"{self.name}.{name}: {_first(error)}") from error
        return found

    def result(self, value: Any) -> Any:
        """What the function gave, as JSON; raises `ToolFault` T004 where it is not what its annotation says."""
        if (passes := self._plain_result) is not None and passes(value) and (type(value) is not str or len(value) <= MAX_BYTES):
            return value
        try:
            plain = self._result.dump_python(value, mode="json", by_alias=True, warnings="error")
            # Pydantic writes a NaN that stands under `Any` as null.
            unkeepable = unkept(plain) or (not_finite(self._result.dump_python(value, warnings=False)) if has_null(plain) else "")
        except (PydanticSerializationError, ValueError, RecursionError) as error:
            raise ToolFault(
                "T004", f"{self.name} returned {type(value).__name__}: {_first(error)}", "mend the tool or its annotation"
            ) from error
        if unkeepable:
            raise ToolFault(
                "T004", f"{self.name} returned what cannot be kept: {unkeepable}", "return finite, valid and smaller JSON values"
            )
        if fault := self._validators[1].check(plain):
            raise ToolFault("T004", f"{self.name} returned another type: {fault}", "mend the tool or its annotation")
        return plain

    def admit(self, label: Label) -> None:
        """Raises `ToolFault` F202 for data with a label that is stricter than that of the tool. Each `call` asks first."""
        if not may_go(label, self.contract.label):
            reason = f"data labelled {label!r} must not go to {self.name!r}, which is cleared for {self.contract.label!r}"
            raise ToolFault(NOT_CLEARED, reason, f"use another tool, or change {self.setting}")

    @property
    def setting(self) -> str:
        """Where its label is set, for hints."""
        return f"the `label:` of {self.name}" if self.contract.kind == "agent" else f"`label=` of @tool for {self.name}"

    async def call(self, inputs: Mapping[str, Any], label: Label, key: str = "", pool: Executor | None = None) -> Any:
        """The JSON value of a call on data with this label; raises `ToolFault`. A plain function runs on a thread, so that it cannot
        hold up the loop: on one of `pool`, or of the few that the loop keeps for everybody.

        `key` is passed on where the tool is `keyed`.
        """
        self.admit(label)
        arguments = self.arguments(inputs)
        if self._keyed:
            arguments[KEY] = key
        try:
            if self.awaited:
                value = await self.function(**arguments)
            else:
                import asyncio  # whoever awaits this has it loaded; a module of tools needs none of it

                called = partial(copy_context().run, _called, self.function, arguments)
                value = await asyncio.get_running_loop().run_in_executor(pool, called)
                if inspect.isawaitable(value):  # of a coroutine function behind a decorator that is none
                    value = await value
        except InputError as error:
            raise ToolFault(error.code, error.message, error.hint) from error
        except BaseException as error:  # a user's function may raise anything, a panic of Rust too; the run gets it as a failed attempt
            if _ends_more(error):
                raise
            raise raised(self.name, error) from error
        return self.result(value)


def raised(name: str, error: BaseException) -> ToolFault:
    """T003, for an exception of a tool's own code: what it says, and where it was raised."""
    reason = f"{name} raised {type(error).__name__}: {told(error)}{place(error)}"
    return ToolFault("T003", reason, "the tool's own code raised; run it by itself", frames(error), lasting=lasts(error))


def _ends_more(error: BaseException) -> bool:
    """Whether an exception ends more than the call."""
    import asyncio

    return isinstance(error, asyncio.CancelledError | KeyboardInterrupt | GeneratorExit)


def lasts(error: BaseException) -> bool:
    """Whether an exception would most likely come again at the next attempt. Of exceptions that Python does not know nobody can tell."""
    return isinstance(error, WRONG_FILE if isinstance(error, OSError) else WRONG)


def _called(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """What a plain function gives. A future takes no `StopIteration`: who waits for it would wait for ever."""
    try:
        return function(**arguments)
    except StopIteration as error:
        raise RuntimeError("StopIteration") from error


def check_key(function: Callable[..., Any], name: str) -> None:
    """Refuses a function that takes no `idempotency_key: str`. Raises `InputError` T008, T001 for what is no function."""
    parameters, hints = _declared(function, name)
    if KEY not in parameters or hints.get(KEY) is not str:
        raise InputError("T008", keyless(name), hint=KEY_HINT)


def keyless(name: str) -> str:
    """What is wrong with a keyed tool that takes no key."""
    return f"{name} is keyed, and has no parameter {KEY}: str for its key"


def signature(function: Callable[..., Any], *, keyed: bool = False) -> tuple[Schema, Schema]:
    """The schemas of a function's parameters (an object) and of what it returns. Raises `InputError` T001.

    Of a keyed tool, the parameter of the key is none of its inputs.
    """
    name = getattr(function, "__name__", type(function).__name__)
    parameters, hints = _declared(function, name)
    properties: dict[str, Any] = {}
    required: list[str] = []
    for parameter in parameters.values():
        if keyed and parameter.name == KEY:
            continue
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) or parameter.name not in hints:
            raise InputError(
                "T001", f"{name}: the parameter {parameter.name!r} has no type, or no name", hint="def search(query: str) -> list[str]"
            )
        properties[parameter.name] = schema_of(hints[parameter.name], "validation")
        if parameter.default is parameter.empty:
            required.append(parameter.name)
    if "return" not in hints:
        raise InputError("T001", f"{name} does not say what it returns", hint="def search(query: str) -> list[str]")
    inputs = bundled({"type": "object", "properties": properties, "required": required, "additionalProperties": False})
    return inputs, schema_of(hints["return"], "serialization")


def _declared(function: Callable[..., Any], name: str) -> tuple[Mapping[str, inspect.Parameter], dict[str, Any]]:
    """The parameters of a function and the types that it is annotated with. Raises `InputError` T001 where these cannot be read: of an
    object that can be called, such as a `partial`, or of annotations that name what is not there."""
    try:
        return inspect.signature(function).parameters, get_type_hints(function, include_extras=True)
    except (TypeError, ValueError, NameError) as error:
        hint = "def search(query: str) -> list[str]"
        raise InputError("T001", f"{name}: it has no signature that can be read: {_first(error)}", hint=hint) from error


_MISFIT = re.compile(r"Expected `(?P<wanted>[^`]+)` - .*?\[(?:field_name='(?P<field>[^']*)', )?.*input_type=(?P<got>[^\]]+)\]")


def _misfits(text: str) -> str:
    """What pydantic found where a value is of another type than was annotated, without the value; empty where it says something else."""
    found = [match.groupdict("") for match in map(_MISFIT.search, text.splitlines()) if match is not None]
    if not found:
        return ""
    field, got = found[0]["field"], found[0]["got"]
    wanted = dict.fromkeys(one["wanted"] for one in found if (one["field"], one["got"]) == (field, got))
    return f"{field + ': ' if field else ''}expected {' or '.join(wanted)}, got {got}"


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        entry = error.errors(include_url=False)[0]
        at = ".".join(str(step) for step in entry["loc"])
        return f"{at}: {entry['msg']}" if at else str(entry["msg"])
    if isinstance(error, PydanticSerializationError) and (misfits := _misfits(str(error))):
        return misfits
    return next((line.strip() for line in reversed(told(error).splitlines()) if line.strip()), type(error).__name__)
