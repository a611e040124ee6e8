"""Plans in Python: a goal, values, and capabilities. The router writes the steps when the workflow runs.

    answer = plan(question, returns=Answer, agents=[reader, calculator], tools=[search, cite], question=question,
    documents=documents)

Type checkers see a call that returns that type. The plan can use only the listed capabilities. It can read its goal (as
`input.request`) and the values that it gets by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from typing_extensions import TypeForm, TypeVar

from orchestra.agents.card_types import project_models
from orchestra.core.errors import InputError
from orchestra.core.suggestions import closest_match
from orchestra.schema.types import Schema, format_type, parse_type, schema_of
from orchestra.workflows.expressions.parser import KEYWORDS
from orchestra.workflows.model import ANYTHING, PlanLimits, PlanNode, Retry
from orchestra.workflows.python.calls import NodeOptions, Step, argument_type_error, finish_node
from orchestra.workflows.python.pending import plain_json, type_mismatch
from orchestra.workflows.python.placeholders import Maybe, Placeholder, template_with_type
from orchestra.workflows.python.scopes import TraceScope, require_scope, trace_error
from orchestra.workflows.python.signatures import NAME_PATTERN, models_in
from orchestra.workflows.python.steps import Agent, Tool, Workflow

T = TypeVar("T")

LIST_CLAUSES: Mapping[str, type[Step[..., Any]]] = {"agents": Agent, "tools": Tool, "workflows": Workflow}
"""The kinds of capabilities, by keyword."""
COUNT_CLAUSES: Mapping[str, tuple[int, int, int]] = {
    "repairs": (0, 10, 2),
    "replans": (0, 10, 2),
    "votes": (1, 16, 5),
    "shortlist": (1, 100, 16),
}
"""The numeric options: minimum, maximum and an example."""
FLAG_CLAUSES = (
    *("streaming", "cache", "stepwise", "copied", "literals", "confirm", "grounded", "each_part", "rules", "anyway"),
)
"""The boolean options."""
PLANNER_CLAUSES: Mapping[str, str] = {"router": "router", "larger": "planner"}
"""The options that name a planning agent, with an example."""
CLAUSES = (
    *LIST_CLAUSES,
    "returns",
    "limits",
    *COUNT_CLAUSES,
    *FLAG_CLAUSES,
    *PLANNER_CLAUSES,
    "hearsay",
    "fallback",
    "timeout",
    "retry",
    "after",
    "with_",
)
"""The keywords of `plan`. A value with such a name is passed in `with_`."""
_AGENT_FORM = "agent('{0}', Input, Output)"
_USAGE = "plan(question, returns=Answer, agents=[reader], tools=[search], question=question)"
_UNSET: Any = object()

if TYPE_CHECKING:

    def plan(
        goal: str,
        /,
        *,
        returns: TypeForm[T],
        agents: Sequence[Agent[..., Any]] = (),
        tools: Sequence[Tool[..., Any]] = (),
        workflows: Sequence[Workflow[..., Any]] = (),
        limits: PlanLimits = ...,
        repairs: int = 1,
        replans: int = 1,
        streaming: bool = True,
        router: str | Agent[..., Any] = "router",
        larger: str | Agent[..., Any] | None = None,
        votes: int = 1,
        cache: bool = True,
        stepwise: bool = True,
        copied: bool = False,
        literals: bool = False,
        confirm: bool = True,
        grounded: bool = False,
        each_part: bool = False,
        rules: bool = False,
        hearsay: Sequence[str] = (),
        anyway: bool = False,
        shortlist: int = ...,
        fallback: object = ...,
        timeout: float = ...,
        retry: int | Retry = ...,
        after: Sequence[object] = (),
        with_: Mapping[str, object] = ...,
        **values: object,
    ) -> T:
        """Returns the result of a plan for a goal, of the type `returns`."""
        ...
else:

    def plan(*goal, with_=None, **given):
        """Returns the result of a plan for a goal, of the type `returns`.

            answer = plan(question, returns=Answer, agents=[reader], tools=[search, cite], question=question,
            documents=documents)

        All other keywords are values that the plan may read; a value with the name of a keyword goes into
        `with_={"limits": ...}`.
        `fallback`, `timeout`, `retry` and `after` are the same as for other calls.

        Args:
            agents, tools, workflows: The capabilities of the plan. Tools with effects are allowed if the goal and the
            values are inputs
                of the workflow (L123).
            limits: The maximum number of steps, and of elements of a list: `PlanLimits(steps=8, width=4)`.
            repairs: How often a refused line is returned to the router.
            replans: How many further plans may follow a failed one.
            router: The planning agent, or its name.
            larger: The agent that continues after the repairs are used up.
            votes: The number of sampled plans. The plan with the most votes runs.
            streaming: False to start no step before the plan is complete.
            cache: False to reuse no earlier plan.
            stepwise: False to let the router write the plan in one request.
            copied: True to require that literal texts are parts of the goal.
            grounded: True to require that the first step reads one of the values.
            each_part: True to require a step for each part of the goal.
            rules: True to plan a goal of a known kind by rule, without the router.
            anyway: True to forbid the router to decline.
            literals: True to allow constants that are not in the goal as arguments of calls with effects.
            confirm: False to make calls with effects without asking a person.
            hearsay: The values that may contain untrusted text. They cannot be arguments of tools with effects.
            shortlist: The maximum number of capabilities that the router sees.

        Raises:
            InputError: W010 for wrong arguments, W011 for a value of another type, W016 for a wrong option, W018 for a
            type or a name
                that the language does not have.
        """
        scope = require_scope("plan")
        if len(goal) != 1:
            problem = "has no goal" if not goal else f"takes one goal, got {len(goal)}"
            raise trace_error("W010", f"plan() {problem}: it comes first, and everything else by name", hint=_USAGE)
        clauses = {name: given.pop(name) for name in CLAUSES if name in given}
        return _add_plan(scope, goal[0], clauses, _value_templates(given, with_))


def _add_plan(scope: TraceScope, goal: Any, clauses: dict[str, Any], values: dict[str, Any]) -> Any:
    text, goal_schema = template_with_type(goal)
    if reason := type_mismatch(goal_schema, {"type": "string"}):
        raise argument_type_error("plan(goal)", goal, goal_schema, {"type": "string"}, reason)
    if (returns_clause := clauses.pop("returns", _UNSET)) is _UNSET:
        raise trace_error("W010", "plan() has no return type", hint=_USAGE)
    returns, schema = (ANYTHING, {}) if returns_clause is Any else return_type(returns_clause, scope)
    fields: dict[str, Any] = {"plan": text, "with_": values, "returns": returns}
    for name, kind in LIST_CLAUSES.items():
        steps = _require_steps(name, kind, clauses.pop(name, ()))
        fields[name] = tuple(step.name for step in steps)
        scope.root.steps += steps
    if "limits" in clauses:
        fields["limits"] = _require_limits(clauses.pop("limits"))
    fields |= {name: _require_count(name, clauses.pop(name)) for name in COUNT_CLAUSES if name in clauses}
    fields |= {name: _require_flag(name, clauses.pop(name)) for name in FLAG_CLAUSES if name in clauses}
    fields |= {name: _planner_name(name, clauses.pop(name), scope) for name in PLANNER_CLAUSES if name in clauses}
    if "hearsay" in clauses:
        fields["hearsay"] = _value_names(clauses.pop("hearsay"), values)
    draft = scope.add_node(PlanNode, "planned", schema, **fields)
    options: NodeOptions = {**clauses}  # type: ignore[typeddict-item]  # what is left are options of nodes
    return finish_node(options, draft, scope, "planned", "plan(fallback=...)")


def _value_templates(named_values: Mapping[str, Any], extra_values: Any) -> dict[str, Any]:
    """Returns the values that a plan may read, as templates."""
    if extra_values is not None and not isinstance(extra_values, Mapping):
        raise trace_error("W016", "with_ takes a mapping from names to values", hint="with_={'limits': limits}")
    if twice := next((name for name in extra_values or () if name in named_values), None):
        raise trace_error(
            "W010", f"plan() got the value {twice!r} twice", hint=f"leave it out of with_, or leave {twice}=... out"
        )
    value_templates = {}
    for name, value in {**named_values, **(extra_values or {})}.items():
        if name in named_values and _is_clause_value(value):
            near = closest_match(name, CLAUSES)
            hint = f"did you mean {near!r}?" if near else _USAGE
            raise trace_error(
                "W010", f"plan() has no {name!r}, and the argument is not a value that a plan can read", hint=hint
            )
        if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name) or name in KEYWORDS:
            hint = f"call it {name.lower()}_" if str(name).lower() in KEYWORDS else "lower case letters, digits and _"
            raise trace_error("W018", f"a plan cannot read a value that is called {name!r}", hint=hint)
        value_templates[name] = template_with_type(value)[0]
    return value_templates


def _is_clause_value(value: Any) -> bool:
    """Whether it is, or contains, a value for an option of the plan."""
    if type(value) in (Placeholder, Maybe):
        return False
    return isinstance(value, Step | PlanLimits) or (
        isinstance(value, list | tuple) and any(isinstance(item, Step) for item in value)
    )


def return_type(returns: Any, scope: TraceScope) -> tuple[str, Schema]:
    """Returns the type of a node's value as the language writes it, and its schema. Its models are declared in the
    scope.
    """
    if (problem := _not_a_type(returns)) is not None:
        raise trace_error("W016", f"returns=... takes a type, and {problem}", hint="returns=Answer")
    try:
        schema = schema_of(type(None) if returns is None else returns, "serialization")
        text = format_type(schema, full=True)
        parsed_type = parse_type(text, {**models_in(schema), **project_models(), **scope.root.models})
    except InputError as error:
        raise trace_error(
            "W018", f"returns=... is not a type that a workflow can name: {error.message}", hint="returns=Answer"
        ) from error
    own_models = {name: model for name, model in models_in(schema).items() if name not in project_models()}
    scope.root.models = {**own_models, **scope.root.models}
    return text, parsed_type


def _not_a_type(returns: Any) -> str | None:
    """Describes a value that was given instead of a type; None if it is a type."""
    if type(returns) in (Placeholder, Maybe):
        return "this is a value"
    if isinstance(returns, Step):
        return f"{returns.name} is {_with_article(_kind_noun(returns))}"
    return f"{returns!r} is a text" if isinstance(returns, str) else None


def _require_steps(name: str, kind: type[Step[..., Any]], clause: Any) -> list[Step[..., Any]]:
    """Returns the capabilities of a list. Raises `InputError` W016 for another kind, or something that is not a
    step.
    """
    kind_name = kind.__name__.lower()
    if isinstance(clause, Step):
        raise trace_error(
            "W016",
            f"{name}=... takes a list, and {clause.name} is one {_kind_noun(clause)}",
            hint=f"{name}=[{clause.name}]",
        )
    if isinstance(clause, str) or not isinstance(clause, Sequence):
        raise trace_error("W016", f"{name}=... takes a list of {name}", hint=f"{name}=[...]")
    for step in clause:
        if isinstance(step, kind):
            continue
        if isinstance(step, Step):
            noun = _kind_noun(step)
            raise trace_error(
                "W016",
                f"{name}=[...] takes {name}, and {step.name} is {_with_article(noun)}",
                hint=f"{noun}s=[{step.name}]",
            )
        if isinstance(step, str):
            hint = (
                f"{name}=[{step}], where {step} = {_AGENT_FORM.format(step)}"
                if kind is Agent
                else f"{name}=[{step}], the {kind_name} itself"
            )
            raise trace_error("W016", f"{name}=[...] takes {name}, and {step!r} is a text", hint=hint)
        step_name = step.__name__ if callable(step) and hasattr(step, "__name__") else plain_json(step)
        hint = (
            f"@{kind_name}({'effect=...' if kind is Tool else ''}) makes one of a function"
            if callable(step)
            else f"{name}=[...]"
        )
        raise trace_error("W016", f"{name}=[...] takes {name}, and {step_name!r} is none", hint=hint)
    return list(clause)


def _kind_noun(step: Step[..., Any]) -> str:
    return "workflow" if isinstance(step, Workflow) else step.kind


def _with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _require_limits(clause: Any) -> PlanLimits:
    if not isinstance(clause, PlanLimits):
        raise trace_error(
            "W016",
            f"limits=... limits the size of the plan, and {clause!r} is not a PlanLimits",
            hint="limits=PlanLimits(steps=8, width=4)",
        )
    return clause


def _value_names(clause: Any, values: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of values."""
    if (
        not isinstance(clause, list | tuple)
        or (wrong := next((item for item in clause if item not in values), None)) is not None
    ):
        value_text = repr(clause if not isinstance(clause, list | tuple) else wrong)
        hint = f"hearsay=[{next(iter(values), 'mail')!r}]"
        raise trace_error(
            "W016", f"hearsay=... lists names of values that the plan may read, and {value_text} is none", hint=hint
        )
    return tuple(clause)


def _require_count(name: str, clause: Any) -> int:
    least, max_count, maximum = COUNT_CLAUSES[name]
    if type(clause) is not int or not least <= clause <= max_count:
        count_name = "skills" if name == "shortlist" else name
        raise trace_error(
            "W016",
            f"{name}={clause!r} is no number of {count_name}",
            hint=f"{name}={maximum}, from {least} to {max_count}",
        )
    return clause


def _require_flag(name: str, clause: Any) -> bool:
    if type(clause) is not bool:
        raise trace_error(
            "W016",
            f"{name}={clause!r} is neither True nor False",
            hint=f"{name}={not PlanNode.model_fields[name].default}",
        )
    return clause


def _planner_name(name: str, clause: Any, scope: TraceScope) -> str | None:
    """Returns the name of a planning agent; None for no larger one."""
    if clause is None and name == "larger":
        return None
    if isinstance(clause, Agent):
        scope.root.steps.append(clause)
        return clause.name
    if not isinstance(clause, str) or not NAME_PATTERN.fullmatch(clause):
        planner_text = clause.name if isinstance(clause, Step) else repr(clause)
        raise trace_error(
            "W016", f"{name}={planner_text} is no agent", hint=f"{name}={PLANNER_CLAUSES[name]!r}, or the agent itself"
        )
    return clause
