"""Tools: registered Python functions with a contract. Inputs and results are JSON; the function receives its own
types.
"""

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
from orchestra.agents.fast_validation import Predicate, fast_arguments, record_tests, scalar_test
from orchestra.agents.tracebacks import last_user_line, user_frames
from orchestra.core.error_codes import LABEL_NOT_ALLOWED
from orchestra.core.errors import InputError
from orchestra.core.labels import Label, is_allowed
from orchestra.core.untrusted_text import exception_text, to_storable
from orchestra.schema.decoding import decode_value, may_alias_input
from orchestra.schema.strict_json import MAX_BYTES, may_have_null, non_finite_error, storage_error
from orchestra.schema.types import Schema, Validator, bundle_definitions, schema_of

if TYPE_CHECKING:
    from concurrent.futures import Executor

KEY_PARAMETER: Final = "idempotency_key"
"""The parameter of a keyed tool that receives the idempotency key. It is not one of its inputs."""
KEY_HINT = 'def charge(amount: int, *, idempotency_key: str = "") -> Receipt: ...'


PERMANENT_ERRORS: Final = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, NotImplementedError,
    RecursionError, SyntaxError, TypeError, ValueError,
)  # fmt: skip
"""Exceptions that Python raises for wrong code or wrong values. Pydantic's `ValidationError` is a `ValueError`."""
PERMANENT_FILE_ERRORS: Final = (
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)
"""Errors of the operating system that a retry does not fix. Other `OSError`s, such as network errors, may be
transient.
"""


class ToolDeclaration(Protocol):
    """A tool declared in Python, such as `orchestra.workflows.python.steps.Tool`."""

    @property
    def contract(self) -> Contract:
        """The contract of the tool."""

    @property
    def function(self) -> Callable[..., Any]:
        """The function of the tool: a coroutine function or a plain one."""


class ToolError(Exception):
    """A failed call of a tool: T002 wrong input, T003 it raised, T004 wrong output, F202 data with a label too strict
    for it.
    """

    def __init__(
        self, code: str, reason: str, hint: str = "", frames: tuple[str, ...] = (), *, permanent: bool = False
    ) -> None:
        """Creates the error.

        Args:
            frames: The lines of user code in the traceback, the outermost first.
            permanent: Whether a repeated call would fail as well.
        """
        reason = to_storable(reason)  # reasons from tools may contain text that the journal cannot store
        self.code, self.reason, self.hint, self.frames, self.permanent = code, reason, hint, frames, permanent
        super().__init__(f"{code}: {reason}")


class ToolFunction:
    """A contract and its function. `version` is part of memo keys; if it is empty, results are not memoised."""

    def __init__(self, contract: Contract, function: Callable[..., Any], version: str = "") -> None:
        """Creates the tool.

        Raises:
            InputError: T008 if the contract is `keyed` and the function takes no key, T001 if the signature cannot be
            read.
        """
        if contract.kind == "tool" and contract.effect == "keyed":
            check_key_parameter(function, contract.name)
        self.contract = (replace(contract, version=version, digest="") if version else contract).with_digest()
        self.function = function
        self.version = self.contract.version
        self.is_async = inspect.iscoroutinefunction(function)
        """Whether the function runs on the event loop. A plain function runs on a thread."""
        self._keyed = contract.effect == "keyed"

    @classmethod
    def from_function(
        cls,
        function: Callable[..., Any],
        *,
        effect: Effect,
        name: str = "",
        version: str = "",
        label: Label = "internal",
    ) -> ToolFunction:
        """Creates a tool from a function, with a contract from its signature.

        Raises:
            InputError: T001 for a function without annotations, T008 for a keyed one without a parameter for its key.
        """
        inputs, outputs = signature_schemas(function, keyed=effect == "keyed")
        text = inspect.getdoc(function) or ""
        summary = text.partition("\n\n")[0].replace("\n", " ")
        contract = Contract(name or function.__name__, "tool", inputs, outputs, summary, effect, label=label)
        return cls(contract, function, version)

    @property
    def name(self) -> str:
        """The name of the tool in workflows."""
        return self.contract.name

    @cached_property
    def source_digest(self) -> str:
        """A digest of the function's code, computed once because its module's values change at run time; empty if
        unknown.
        """
        return code_digest(self.function)

    @cached_property
    def _hints(self) -> dict[str, Any]:
        return get_type_hints(self.function, include_extras=True)

    @cached_property
    def _argument_types(self) -> dict[str, tuple[TypeAdapter[Any], bool]]:
        """The types of the inputs, and the inputs that are copied so that a tool cannot modify the run's values."""
        argument_schemas = self.contract.input.get("properties", {})
        names = [name for name in inspect.signature(self.function).parameters if name in argument_schemas]
        types: dict[str, TypeAdapter[Any]] = {name: TypeAdapter(self._hints[name]) for name in names}
        return {name: (adapter, may_alias_input(adapter)) for name, adapter in types.items()}

    @cached_property
    def _result_type(self) -> TypeAdapter[Any]:
        return TypeAdapter(self._hints["return"])

    @cached_property
    def _validators(self) -> tuple[Validator, Validator]:
        return Validator(self.contract.input), Validator(self.contract.output)

    @cached_property
    def _fast_tests(self) -> tuple[Mapping[str, Predicate], int] | None:
        """The tests of inputs if all are plain, and the number of required inputs; None otherwise."""
        return record_tests(self.contract.input, self._hints)

    @cached_property
    def _fast_result_test(self) -> Predicate | None:
        return scalar_test(self.contract.output, self._hints["return"])

    def convert_inputs(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Converts the inputs to the function's types.

        Raises:
            ToolError: T002.
        """
        if (fast_tests := self._fast_tests) is not None and (
            converted_inputs := fast_arguments(inputs, *fast_tests)
        ) is not None:
            return converted_inputs
        if fault := self._validators[0].check(dict(inputs)):
            raise ToolError("T002", f"{self.name}: {fault}", "compare with `orchestra agents show`")
        converted_inputs = {}
        for name, value in inputs.items():
            try:
                adapter, copies_first = self._argument_types[name]
                converted_inputs[name] = decode_value(adapter, value, copy_first=copies_first)
            except (ValidationError, KeyError) as error:
                raise ToolError("T002", f"{self.name}.{name}: {_first_error(error)}") from error
        return converted_inputs

    def convert_result(self, value: Any) -> Any:
        """Converts the function's result to JSON.

        Raises:
            ToolError: T004 if it is not of the annotated type.
        """
        if (
            (passes := self._fast_result_test) is not None
            and passes(value)
            and (type(value) is not str or len(value) <= MAX_BYTES)
        ):
            return value
        try:
            plain = self._result_type.dump_python(value, mode="json", by_alias=True, warnings="error")
            # Pydantic writes a NaN under `Any` as null.
            unkeepable = storage_error(plain) or (
                non_finite_error(self._result_type.dump_python(value, warnings=False)) if may_have_null(plain) else ""
            )
        except (PydanticSerializationError, ValueError, RecursionError) as error:
            raise ToolError(
                "T004",
                f"{self.name} returned {type(value).__name__}: {_first_error(error)}",
                "fix the tool or its annotation",
            ) from error
        if unkeepable:
            raise ToolError(
                "T004",
                f"{self.name} returned a value that cannot be stored: {unkeepable}",
                "return finite, valid and smaller JSON values",
            )
        if fault := self._validators[1].check(plain):
            raise ToolError("T004", f"{self.name} returned another type: {fault}", "fix the tool or its annotation")
        return plain

    def check_label(self, label: Label) -> None:
        """Checks that the tool may process data with a label. Each `call` does this first.

        Raises:
            ToolError: F202 if the label is stricter than that of the tool.
        """
        if not is_allowed(label, self.contract.label):
            reason = (
                f"data labelled {label!r} must not go to {self.name!r}, which is cleared for {self.contract.label!r}"
            )
            raise ToolError(LABEL_NOT_ALLOWED, reason, f"use another tool, or change {self.label_setting}")

    @property
    def label_setting(self) -> str:
        """The place where the tool's label is set, for hints."""
        return f"the `label:` of {self.name}" if self.contract.kind == "agent" else f"`label=` of @tool for {self.name}"

    async def call(self, inputs: Mapping[str, Any], label: Label, key: str = "", pool: Executor | None = None) -> Any:
        """Calls the tool and returns its JSON value.

        A plain function runs on a thread, so that it cannot block the event loop.

        Args:
            label: The label of the data.
            pool: The threads to use; by default the few threads of the event loop.
            key: The idempotency key, passed on if the tool is `keyed`.

        Raises:
            ToolError: If the call fails.
        """
        self.check_label(label)
        arguments = self.convert_inputs(inputs)
        if self._keyed:
            arguments[KEY_PARAMETER] = key
        try:
            if self.is_async:
                value = await self.function(**arguments)
            else:
                import asyncio  # asyncio is loaded when this runs; modules that only declare tools do not need it

                run_in_context = partial(copy_context().run, _call_function, self.function, arguments)
                value = await asyncio.get_running_loop().run_in_executor(pool, run_in_context)
                if inspect.isawaitable(value):  # from a coroutine function behind a plain decorator
                    value = await value
        except InputError as error:
            raise ToolError(error.code, error.message, error.hint) from error
        except BaseException as error:  # user code may raise anything, including a Rust panic: a failed attempt
            if _is_cancellation(error):
                raise
            raise tool_error(self.name, error) from error
        return self.convert_result(value)


def tool_error(name: str, error: BaseException) -> ToolError:
    """Returns T003 for an exception of a tool's code, with its message and its location."""
    reason = f"{name} raised {type(error).__name__}: {exception_text(error)}{last_user_line(error)}"
    return ToolError(
        "T003",
        reason,
        "the tool's own code raised; run it separately",
        user_frames(error),
        permanent=is_permanent(error),
    )


def _is_cancellation(error: BaseException) -> bool:
    """Whether an exception cancels more than the call."""
    import asyncio

    return isinstance(error, asyncio.CancelledError | KeyboardInterrupt | GeneratorExit)


def is_permanent(error: BaseException) -> bool:
    """Whether an exception is likely to recur at the next attempt. Unknown exceptions are not permanent."""
    return isinstance(error, PERMANENT_FILE_ERRORS if isinstance(error, OSError) else PERMANENT_ERRORS)


def _call_function(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Calls a plain function. `StopIteration` is converted, because a future cannot store it and its waiter would wait
    forever.
    """
    try:
        return function(**arguments)
    except StopIteration as error:
        raise RuntimeError("StopIteration") from error


def check_key_parameter(function: Callable[..., Any], name: str) -> None:
    """Checks that a function has the parameter `idempotency_key: str`.

    Raises:
        InputError: T008 if it has not, T001 if the object is not a function.
    """
    parameters, hints = _typed_parameters(function, name)
    if KEY_PARAMETER not in parameters or hints.get(KEY_PARAMETER) is not str:
        raise InputError("T008", missing_key_message(name), hint=KEY_HINT)


def missing_key_message(name: str) -> str:
    """Returns the error message for a keyed tool without a key parameter."""
    return f"{name} is keyed but has no parameter {KEY_PARAMETER}: str for its key"


def signature_schemas(function: Callable[..., Any], *, keyed: bool = False) -> tuple[Schema, Schema]:
    """Returns the schemas of a function's parameters (an object) and of its result.

    The key parameter of a keyed tool is not one of its inputs.

    Raises:
        InputError: T001.
    """
    name = getattr(function, "__name__", type(function).__name__)
    parameters, hints = _typed_parameters(function, name)
    properties: dict[str, Any] = {}
    required: list[str] = []
    for parameter in parameters.values():
        if keyed and parameter.name == KEY_PARAMETER:
            continue
        if (
            parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            or parameter.name not in hints
        ):
            raise InputError(
                "T001",
                f"{name}: the parameter {parameter.name!r} has no type, or no name",
                hint="def search(query: str) -> list[str]",
            )
        properties[parameter.name] = schema_of(hints[parameter.name], "validation")
        if parameter.default is parameter.empty:
            required.append(parameter.name)
    if "return" not in hints:
        raise InputError("T001", f"{name} has no return annotation", hint="def search(query: str) -> list[str]")
    inputs = bundle_definitions(
        {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    )
    return inputs, schema_of(hints["return"], "serialization")


def _typed_parameters(
    function: Callable[..., Any], name: str
) -> tuple[Mapping[str, inspect.Parameter], dict[str, Any]]:
    """Returns the parameters of a function and their annotated types.

    Raises:
        InputError: T001 if they cannot be read: of a callable object such as a `partial`, or with unknown names.
    """
    try:
        return inspect.signature(function).parameters, get_type_hints(function, include_extras=True)
    except (TypeError, ValueError, NameError) as error:
        hint = "def search(query: str) -> list[str]"
        raise InputError("T001", f"{name}: its signature cannot be read: {_first_error(error)}", hint=hint) from error


_TYPE_MISMATCH = re.compile(
    r"Expected `(?P<wanted>[^`]+)` - .*?\[(?:field_name='(?P<field>[^']*)', )?.*input_type=(?P<got>[^\]]+)\]"
)


def _type_mismatches(text: str) -> str:
    """Returns pydantic's type mismatches without the values; empty if an error is of another kind."""
    mismatches = [match.groupdict("") for match in map(_TYPE_MISMATCH.search, text.splitlines()) if match is not None]
    if not mismatches:
        return ""
    field, actual_type = mismatches[0]["field"], mismatches[0]["got"]
    expected_types = dict.fromkeys(
        mismatch["wanted"] for mismatch in mismatches if (mismatch["field"], mismatch["got"]) == (field, actual_type)
    )
    return f"{field + ': ' if field else ''}expected {' or '.join(expected_types)}, got {actual_type}"


def _first_error(error: Exception) -> str:
    if isinstance(error, ValidationError):
        entry = error.errors(include_url=False)[0]
        at = ".".join(str(step) for step in entry["loc"])
        return f"{at}: {entry['msg']}" if at else str(entry["msg"])
    if isinstance(error, PydanticSerializationError) and (misfits := _type_mismatches(str(error))):
        return misfits
    return next(
        (line.strip() for line in reversed(exception_text(error).splitlines()) if line.strip()), type(error).__name__
    )
