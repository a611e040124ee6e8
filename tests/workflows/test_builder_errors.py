"""Tests that every error in a workflow function has its line, its reason and a hint."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from orchestra import (
    Answer,
    Document,
    Graph,
    InputError,
    Workflow,
    agent,
    answered_by_model,
    map_,
    tool,
    when,
    workflow,
)
from tests.workflows import invalid_branches, invalid_calls, invalid_expressions, invalid_plans
from tests.workflows.ensemble import calculator, fetch, reader

MISTAKES = [
    found
    for module in (invalid_expressions, invalid_calls, invalid_plans, invalid_branches)
    for found in vars(module).values()
    if inspect.isfunction(found) and found.__module__ == module.__name__
]


def refused(function: Callable[..., Any]) -> InputError:
    """The error of tracing a function."""
    flow: Workflow[..., Any] = workflow()(function)
    with pytest.raises(InputError) as caught:
        assert not isinstance(flow.graph, Graph), flow.graph
    return caught.value


def expected_report(function: Callable[..., Any]) -> str:
    """Returns the docstring of a function with one `at:` line: the last that applies to this version of Python."""
    lines: list[str] = []
    for line in (inspect.getdoc(function) or "").splitlines():
        versioned = re.fullmatch(r"at \(3\.(\d+)\): (.*)", line)
        if versioned is None:
            lines.append(line)
        elif sys.version_info >= (3, int(versioned[1])):
            lines[-1] = f"at: {versioned[2]}"
    return "\n".join(lines)


@pytest.mark.parametrize("function", MISTAKES, ids=lambda function: function.__name__)
def test_trace_error_has_line_and_hint(function: Callable[..., Any]) -> None:
    error = refused(function)
    assert error.location is not None
    place = error.location
    text = [f"{error.code}: {error.message}", f"at: {place.text[place.column - 1 : place.column - 1 + place.width]}"]
    assert "\n".join(text + [f"help: {error.hint}"] * bool(error.hint)) == expected_report(function)
    first = function.__code__.co_firstlineno
    assert first < place.line < first + len(inspect.getsource(function).splitlines())
    assert place.file == function.__module__.replace(".", "/") + ".py"


def test_error_report_shows_line_caret_reason_hint() -> None:
    line = invalid_expressions.if_.__code__.co_firstlineno + 6
    assert str(refused(invalid_expressions.if_)).splitlines() == [
        "W005: kind.label == 'math' has no truth value yet",
        f"  --> tests/workflows/invalid_expressions.py:{line}:8",
        "   |",
        f'{line} |     if kind.label == "math":',
        "   |        ^^^^^^^^^^^^^^^^^^^^",
        (
            "   = why: the body of a workflow runs once, before any value is known; "
            "Python's if, and, or, not, in and a < b < c cannot wait for one"
        ),
        (
            "   = help: return first_of(when(kind.label == 'math', lambda: calculator(question=question)), "
            "otherwise=lambda: writer(question=question, findings=[]))"
        ),
    ]


@pytest.mark.parametrize(
    "call", [lambda: reader(question="a", context="b"), lambda: fetch(url="a")], ids=["agent", "async tool"]
)
def test_step_outside_workflow_has_hint(call: Callable[[], Any]) -> None:
    with pytest.raises(InputError, match="is called outside a workflow") as caught:
        call()
    assert caught.value.code == "W001"
    assert caught.value.hint in ("await orchestra.run(reader, ...)", "await orchestra.run(fetch, ...)")


def test_dsl_function_outside_workflow_refused() -> None:
    with pytest.raises(InputError, match="map_ is called outside a workflow"):
        map_(lambda item: item, [1])


def test_placeholder_after_trace_refused() -> None:
    kept: list[Any] = []

    def keeps(question: str) -> Answer:
        kept.append(question)
        return calculator(question=question)

    assert workflow()(keeps).graph
    with pytest.raises(InputError, match="question belongs to another") as caught:
        kept[0] + "x"
    assert caught.value.code == "W006"


def test_user_exception_has_code_and_line() -> None:
    def divides(question: str) -> Answer:
        return calculator(question=str(1 // 0))

    error = refused(divides)
    assert (error.code, type(error.__cause__)) == ("W028", ZeroDivisionError)
    assert error.location is not None
    assert "1 // 0" in error.location.text

    def adds(question: str) -> Answer:
        return calculator(question="a" + 1)  # type: ignore[operator]  # the mistake is the point

    error = refused(adds)
    assert (error.code, type(error.__cause__)) == ("W028", TypeError)
    assert "can only concatenate str" in error.message


def declared(function: Callable[[], Any]) -> InputError:
    with pytest.raises(InputError) as caught:
        function()
    assert caught.value.code == "W017"
    return caught.value


def test_tool_without_effect_refused() -> None:
    error = declared(lambda: tool()(len))  # type: ignore[call-arg]  # the mistake is the point
    assert error.message == "a tool does not declare its effect"
    assert error.hint == "@tool(effect='pure'), or one of idempotent, keyed, transactional, once"

    def search(query: str) -> str:
        return query

    assert declared(lambda: tool(search)).message == "search does not declare its effect"  # type: ignore[call-arg, arg-type]
    assert "no effect 'maybe'" in declared(lambda: tool(effect="maybe")).message  # type: ignore[arg-type]


def _no_type(query) -> str:  # type: ignore[no-untyped-def]
    return str(query)


def _no_return(query: str):  # type: ignore[no-untyped-def]
    return query


def _stars(*queries: str) -> str:
    return queries[0]


def _private(_query: str) -> str:
    return _query


def _no_such_type(query: Nothing) -> str:  # type: ignore[name-defined]  # noqa: F821
    return str(query)


def _no_json(query: Callable[[str], str]) -> str:
    return query("")


def _wrong_default(count: int = "one") -> int:  # type: ignore[assignment]
    return count


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (_no_type, "_no_type: the input 'query' has no type"),
        (_no_return, "_no_return has no return type"),
        (_stars, "_stars: *queries cannot be an input, for inputs have names"),
        (_private, "_private: '_query' cannot be an input: its name begins with a letter"),
        (_no_such_type, "_no_such_type: there is no type 'Nothing' here"),
        (_wrong_default, "_wrong_default: the default of 'count' is not of its type: 'one'"),
    ],
)
def test_tool_invalid_function_has_reason(function: Callable[..., Any], message: str) -> None:
    error = declared(lambda: tool(effect="pure")(function))
    assert error.message == message
    assert error.location is not None
    assert error.location.line == function.__code__.co_firstlineno


def test_signature_type_without_json_refused() -> None:
    assert declared(lambda: tool(effect="pure")(_no_json)).message.startswith("_no_json: the input 'query': ")


def test_agent_bound_to_models() -> None:
    assert "int is none" in declared(lambda: agent("reader", int, str)).message  # type: ignore[arg-type]
    assert declared(lambda: agent()).hint == "@agent(prompt='prompt.md'), or agent('name', Input, Output)"  # type: ignore[call-overload]


def test_agent_missing_prompt_refused_at_use() -> None:
    @agent(prompt="no_such_file.md")
    def silent(text: str) -> str:
        return answered_by_model()

    with pytest.raises(InputError, match="cannot read its prompt") as caught:
        assert silent.contract
    assert caught.value.code == "W017"


def test_workflow_invalid_function_refused() -> None:
    async def waits(question: str) -> str:
        return question

    def Upper(question: str) -> str:
        return question

    assert "coroutine" in declared(lambda: workflow()(waits)).message
    assert declared(lambda: workflow()(Upper)).hint == "@workflow(name='lower_case_name')"
    assert workflow(name="lower")(Upper).name == "lower"
    name: Any = "lower"
    assert "not of str" in declared(lambda: workflow(name)).message


def test_workflow_decorator_without_parentheses() -> None:
    @workflow
    def flow(question: str) -> Answer:
        """Solves it."""
        return calculator(question=question)

    @workflow()
    def other(question: str) -> Answer:
        """Solves it."""
        return calculator(question=question)

    assert flow.graph == other.graph.model_copy(update={"name": "flow"})


def _secret(value: SecretStr) -> Answer:
    return calculator(question="x")


def _upper(Value: str) -> Answer:
    return calculator(question="x")


def _keyword(loop: str) -> Answer:
    return calculator(question="x")


@pytest.mark.parametrize("function", [_secret, _upper, _keyword], ids=lambda function: function.__name__)
def test_workflow_inexpressible_input_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(InputError) as caught:
        assert workflow(name="flow")(function).graph
    assert caught.value.code == "W018"


def test_workflow_duplicate_names_refused() -> None:
    @tool(effect="pure", name="same")
    def first(text: str) -> str:
        return text

    @tool(effect="pure", name="same")
    def second(text: str) -> str:
        return text

    @workflow()
    def both(text: str) -> str:
        return second(text=first(text=text))

    with pytest.raises(InputError, match="two different tools are called 'same'") as caught:
        assert both.graph
    assert caught.value.code == "W021"


def test_option_out_of_range_located_at_call() -> None:
    def late(question: str, documents: list[Document]) -> Answer:
        found = when(question != "", lambda: calculator.options(timeout=100_000)(question=question))
        return calculator(question=repr(found)[:1])

    error = refused(late)
    assert error.code == "W016"
    assert error.location is not None
    assert "timeout=100_000" in error.location.text


SCRIPT = """
from orchestra import Answer, agent, answered_by_model, workflow
@agent(prompt="{{ question }}")
def calculator(question: str) -> Answer:
    return answered_by_model()
@workflow()
def careless(question: str) -> Answer:
    if question == "x":
        return calculator(question=question)
    return calculator(question="y")
try:
    careless.graph
except Exception as error:
    print(error)
"""


def test_error_without_source_has_no_caret(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    # Not `-c SCRIPT`: from Python 3.13 on, `linecache` has that text.
    run = "exec(compile(open('script.py').read(), '<generated>', 'exec'), {'__name__': '__main__'})"
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines() == [
        "W005: question == 'x' has no truth value yet",
        " --> <generated>:8:8",
        (
            "  = why: the body of a workflow runs once, before any value is known; "
            "Python's if, and, or, not, in and a < b < c cannot wait for one"
        ),
        "  = help: first_of(when(question == 'x', lambda: ...), otherwise=...)",
    ]


def test_error_in_notebook_cell_has_source(tmp_path: Path) -> None:
    """Like ipykernel: `linecache` has the text of the cell under a name that is not a file."""
    cell = tmp_path / "cell.py"
    cell.write_text(SCRIPT)
    run = "import linecache, sys; text = open(sys.argv[1]).read(); name = '/tmp/ipykernel_1/2.py'\n"
    run += "linecache.cache[name] = (len(text), None, text.splitlines(True), name)\n"
    run += "exec(compile(text, name, 'exec'), {'__name__': '__main__'})"
    done = subprocess.run(
        [sys.executable, "-c", run, str(cell)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    lines = done.stdout.splitlines()
    assert lines[3:5] == ['8 |     if question == "x":', "  |        ^^^^^^^^^^^^^^^"]
    help_ = (
        "return first_of(when(question == 'x', lambda: calculator(question=question)), otherwise=lambda:"
        " calculator(question='y'))"
    )
    assert lines[-1] == f"  = help: {help_}"
