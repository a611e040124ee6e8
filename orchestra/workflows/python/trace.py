"""Writes workflows as Python: the function that traces to a frozen graph."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from typing import Any

from orchestra.agents.card_types import project_models
from orchestra.core.errors import InputError
from orchestra.schema.types import parse_type
from orchestra.verification.check_expression import (
    AllOf,
    AnyOf,
    CheckCall,
    CheckExpression,
    CheckSyntaxError,
    parse_check,
)
from orchestra.verification.rederivation import MAX_SAMPLES
from orchestra.workflows.compile.agent_choice import labels_by_agent
from orchestra.workflows.compile.ordering import node_references, referenced_names, topological_order
from orchestra.workflows.expressions.parser import (
    CelCall,
    CelConditional,
    CelIndex,
    CelLiteral,
    CelName,
    CelSelect,
    CelSyntaxError,
    CelTree,
    TemplateReference,
    parse,
    split_template,
)
from orchestra.workflows.expressions.templates import compile_template
from orchestra.workflows.expressions.type_checker import value_kinds
from orchestra.workflows.model import (
    ANYTHING,
    AgentChoice,
    AgentNode,
    AnyNode,
    AskNode,
    CallNode,
    FirstOfNode,
    Graph,
    LoopNode,
    Node,
    NodeBlock,
    PlanNode,
    ToolNode,
    VerifyNode,
)
from orchestra.workflows.python import dsl
from orchestra.workflows.python.plan import CLAUSES, COUNT_CLAUSES, FLAG_CLAUSES, LIST_CLAUSES, PLANNER_CLAUSES
from orchestra.workflows.python.printer import NotExpressible, tree_to_python

DSL_NAMES = frozenset(dsl.__all__)
_CHECK_WORDS = {name: name for name in ("quote", "support", "numbers", "recompute", "entailment")} | {
    "format": "format_"
}
"""The checks that are names of the DSL, with those names."""
_OPTIONS = ("timeout", "retry", "fallback", "after")
_AGENT_OPTIONS = (*_OPTIONS, "escalate", "tools")
_TEXT_LITERAL = re.compile(r"""Literal\[(\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")\s*,?)+\s*\]""")
"""A type that is a list of literal texts."""
_INDENT = "    "


def to_python(graph: Graph) -> str:
    """Returns the source of a function that traces to this graph, up to the spelling of expressions (quotes, brackets,
    spaces).

    Agents, tools and workflows are called by name and must be in scope where the function is defined.
    Raises `InputError` W022 for a part of the graph that Python cannot express.
    """
    try:
        return _FunctionWriter(graph).source()
    except NotExpressible as error:
        hint = "keep it as YAML: orchestra.find(name) calls it from Python as well"
        raise InputError("W022", f"{graph.name} has no form in Python: {error}", hint=hint) from error


class _FunctionWriter:
    """Writes one workflow function."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.locals = set(graph.input) | set(_all_names(graph.nodes))
        self.aliased = sorted({step for step in _all_steps(graph.nodes) if step in self.locals or step in DSL_NAMES})

    def source(self) -> str:
        """Returns the source of the function. Raises `NotExpressible` if there is none."""
        graph = self.graph
        if graph.types:
            raise NotExpressible(f"its types are declared in the file: {', '.join(graph.types)}")
        keywords = [
            f"{key}={value!r}"
            for key in ("budget", "label", "defaults")
            if (value := _without_unset(getattr(graph, key))) is not None
        ]
        if graph.accept is not None:
            keywords.append(f"accept={self.word('certified') if graph.accept == 'certified' else graph.accept}")
        body = _BodyWriter(self, {}, graph.nodes)
        description_arguments = [repr(graph.description)] if graph.description else []
        lines = [*description_arguments, *body.lines(), f"return {body.optional_value(graph.output)}"]
        told_of = any(entry.description for entry in graph.input.values())
        imports = ["from typing import Annotated", "from pydantic import Field"] if told_of else []
        head = [
            *imports,
            *(f"{step}_ = {step}" for step in self.aliased),
            f"@{self.word('workflow')}({', '.join(keywords)})",
        ]
        return "\n".join([*head, *self.signature(), *(_INDENT + line for line in lines), ""])

    def signature(self) -> list[str]:
        """Returns the lines of the signature."""
        parameters = []
        for name, entry in self.graph.input.items():
            kind = (
                f"Annotated[{_python_type(entry.type)}, Field(description={entry.description!r})]"
                if entry.description
                else _python_type(entry.type)
            )
            parameters.append(
                f"{_variable(name)}: {kind}" + (f" = {_default(entry.default)}" if entry.optional else "")
            )
        return [f"def {_variable(self.graph.name)}({', '.join(parameters)}) -> Any:"]

    def word(self, name: str) -> str:
        """Returns a name of the DSL, qualified if a local name hides it."""
        return f"orchestra.{name}" if name in self.locals else name

    def step(self, name: str) -> str:
        """Returns the name of an agent, a tool or a workflow."""
        if not name.isidentifier() or keyword.iskeyword(name):
            raise NotExpressible(f"{name!r} is not a variable name")
        return f"{name}_" if name in self.aliased else name


def _without_unset(value: Any) -> Any:
    """Returns a budget or defaults without unset fields."""
    if not hasattr(value, "model_fields_set"):
        return value

    class _Shown:
        def __repr__(self) -> str:
            fields = {
                name: field_value
                for name in type(value).model_fields
                if (field_value := getattr(value, name)) is not None
            }
            arguments = ", ".join(f"{name}={_without_unset(field)!r}" for name, field in fields.items())
            return f"{type(value).__name__}({arguments})"

    return _Shown()


class _BodyWriter:
    """Writes the statements of one body. `outer` has the names of the enclosing nodes."""

    def __init__(
        self,
        function: _FunctionWriter,
        outer: Mapping[str, str],
        nodes: Mapping[str, AnyNode],
        bound: tuple[str, ...] = (),
    ) -> None:
        self.function, self.nodes = function, nodes
        self.names = {key: text for key, text in outer.items() if key not in bound}
        self.lists: dict[str, str] = {
            key.removesuffix(".values"): text for key, text in outer.items() if key.endswith(".values")
        }
        for name, node in nodes.items():
            self._register_name(name, node)

    def _register_name(self, name: str, node: AnyNode) -> None:
        """Registers the expression by which other nodes read this one."""
        require, values = self.function.word("require"), self.function.word("values")
        missing = node.when is not None and not _is_per_element(node)
        is_withheld = "abstain" in node.otherwise or _is_per_element(node)
        if node.each is not None:
            self.lists[name] = f"{require}({name})" if missing else f"{values}({name})" if is_withheld else name
        elif missing or "abstain" in node.otherwise:
            self.names[name] = f"{require}({name})"

    def lines(self) -> list[str]:
        """Returns one statement per node, each after those it reads. A body of several nodes becomes a function before
        its statement.
        """
        order, cycle = topological_order(
            {name: node_references(node).all & self.nodes.keys() - {name} for name, node in self.nodes.items()}
        )
        if cycle:
            raise NotExpressible(f"its nodes wait for each other: {' -> '.join(cycle)}")
        return [line for name in order for line in self.statement(name, self.nodes[name])]

    def statement(self, name: str, node: AnyNode) -> list[str]:
        if keyword.iskeyword(name) or name in ("_", "input"):
            raise NotExpressible(f"{name!r} is not a variable name")
        before, text = self.node_expression(name, node)
        if node.checks and not isinstance(node, VerifyNode):
            text = f"{self.function.word('accepted')}({text}, {self.clause(node)})"
        if node.when is not None and _is_per_element(node):
            text = f"{self.function.word('when')}({self.value(node.when)}, lambda: {text})"
        if node.each is not None:
            text = self.map_call(node, text)
        if node.when is not None and not _is_per_element(node):
            inner = (
                f"{self.function.word('values')}({text})"
                if node.each is not None and "abstain" in node.otherwise
                else text
            )
            text = f"{self.function.word('when')}({self.value(node.when)}, lambda: {inner})"
        return [*before, f"{name} = {text}"]

    def map_call(self, node: AnyNode, text: str) -> str:
        keywords = "".join(
            f", {key}={getattr(node, key)!r}"
            for key in ("limit", "concurrency", "at_least")
            if getattr(node, key) is not None
        )
        body = text if isinstance(node, CallNode) and isinstance(node.call, NodeBlock) else f"lambda {node.as_}: {text}"
        return f"{self.function.word('map_')}({body}, {self.value(node.each)}{keywords})"

    def node_expression(self, name: str, node: AnyNode) -> tuple[list[str], str]:
        """Returns the expression that makes a node, and the lines before it."""
        word = self.function.word
        match node:
            case AgentNode(agent=str() | AgentChoice() as step) | ToolNode(tool=step) | CallNode(call=str(step)):
                args = ", ".join(f"{_variable(key)}={self.value(value)}" for key, value in node.with_.items())
                keywords = ", ".join(
                    f"{key}={self.option(node, key)}"
                    for key in _AGENT_OPTIONS
                    if getattr(node, key, None) not in (None, ())
                )
                return [], f"{self.step(step)}{f'.options({keywords})' if keywords else ''}({args})"
            case PlanNode():
                return [], f"{word('plan')}({', '.join(self.plan_arguments(node))})"
            case AskNode():
                return [], f"{word('ask')}({', '.join(self.ask_arguments(node))})"
            case _:
                _refuse_options(node, name)
        match node:
            case FirstOfNode(first_of=arms):
                return [], f"{word('first_of')}({', '.join(self.arms(arms))})"
            case VerifyNode(verify=value):
                return [], f"{word('verify')}({self.value(value)}, {self.clause(node)})"
            case CallNode(call=NodeBlock() as block) if node.each is not None and node.as_ is not None:
                return self.body_function(f"{name}_body", node.as_, block, (node.as_,)), f"{name}_body"
            case LoopNode(loop=loop):
                body = self.body_function(f"{name}_body", "previous, turn", loop, ("previous", "turn"))
                result = _sole_node(loop.output)
                if result is None or not referenced_names(loop.until) & loop.nodes.keys() <= {result}:
                    raise NotExpressible(f"{name}: `until` reads more than the output of the loop")
                until = f"lambda {result}: {self.value(loop.until)}"
                return body, f"{word('loop')}({name}_body, at_most={loop.at_most}, until={until})"
            case _:
                raise NotExpressible(f"{name} is of a kind that Python has no word for")

    def step(self, step: str | AgentChoice) -> str:
        """Returns the callee: a name, or a choice of agents."""
        if isinstance(step, str):
            return self.function.step(step)
        of = ", ".join(f"{label!r}: {self.function.step(name)}" for label, name in step.of.items())
        rest = f", otherwise={self.function.step(step.otherwise)}" if step.otherwise is not None else ""
        return f"{self.function.word('agent_by')}({self.value(step.by)}, {{{of}}}{rest})"

    def plan_arguments(self, node: PlanNode) -> list[str]:
        """Returns the arguments of a plan: its goal, its options and its values."""
        arguments = [
            self.value(node.plan),
            f"returns={'Any' if node.returns == ANYTHING else _python_type(node.returns)}",
        ]
        for key in LIST_CLAUSES:
            if names := getattr(node, key):
                arguments.append(f"{key}=[{', '.join(map(self.function.step, names))}]")
        plain = PlanNode.model_fields
        if node.limits != plain["limits"].get_default():
            arguments.append(
                f"limits={self.function.word('PlanLimits')}(steps={node.limits.steps}, width={node.limits.width})"
            )
        arguments += [
            f"{key}={getattr(node, key)!r}"
            for key in (*COUNT_CLAUSES, *FLAG_CLAUSES, *PLANNER_CLAUSES)
            if getattr(node, key) != plain[key].get_default()
        ]
        arguments += [f"hearsay={list(node.hearsay)!r}"] if node.hearsay else []
        arguments += [f"{key}={self.option(node, key)}" for key in _OPTIONS if getattr(node, key) not in (None, ())]
        values = {
            key: value
            for key, value in node.with_.items()
            if key in CLAUSES or keyword.iskeyword(key) or not key.isidentifier()
        }
        arguments += [f"{key}={self.value(value)}" for key, value in node.with_.items() if key not in values]
        return [*arguments, f"with_={self.value(values)}"] if values else arguments

    def ask_arguments(self, node: AskNode) -> list[str]:
        """Returns the arguments of a question: its text, its options or answer type, and its other options."""
        arguments = [self.value(node.ask)]
        if node.options:
            arguments.append(f"options={list(node.options)!r}")
        elif _TEXT_LITERAL.fullmatch(node.returns):
            raise NotExpressible(f"`returns: {node.returns}` are texts to choose from, which Python has as `options`")
        elif node.returns != "str":
            arguments.append(f"returns={_python_type(node.returns)}")
        return arguments + [
            f"{key}={self.option(node, key)}" for key in _OPTIONS if getattr(node, key) not in (None, ())
        ]

    def body_function(self, name: str, parameters: str, block: NodeBlock, bound: tuple[str, ...]) -> list[str]:
        """Returns the function of a body of several nodes."""
        outer = {**self.names, **{f"{key}.values": text for key, text in self.lists.items()}}
        body = _BodyWriter(self.function, outer, block.nodes, bound)
        inside = [*body.lines(), f"return {body.optional_value(block.output)}"]
        return [f"def {name}({parameters}):", *(_INDENT + line for line in inside)]

    def option(self, node: AnyNode, key: str) -> str:
        value = getattr(node, key)
        if key == "after":
            return f"[{', '.join(value)}]"
        if key == "tools":
            return repr([*value])
        return self.value(value) if key in ("fallback", "escalate") else repr(_without_unset(value))

    def clause(self, node: AnyNode) -> str:
        arguments = [f"checks={' & '.join(self.check(name, among=len(node.checks) > 1) for name in node.checks)}"]
        if "against" in node.model_fields_set and node.against is not None:
            arguments.append(f"against={self.value(node.against)}")
        if node.score is not None:
            arguments.append(f"score={self.function.word('combined')}")
        if node.accept is not None:
            arguments.append(f"accept={self.function.word('certified') if node.accept == 'certified' else node.accept}")
        if node.otherwise:
            arguments.append(f"otherwise=[{', '.join(map(self.function.word, node.otherwise))}]")
        return ", ".join(arguments)

    def check(self, text: str, *, among: bool) -> str:
        """Returns a check as Python, in brackets if it is one of several and contains `|`."""
        try:
            rule = parse_check(text)
        except CheckSyntaxError:
            return f"{self.function.word('Check')}({text!r})"
        return f"({self.rule(rule)})" if among and isinstance(rule, AnyOf) else self.rule(rule)

    def rule(self, rule: CheckExpression) -> str:
        match rule:
            case CheckCall(check, "") if check in _CHECK_WORDS:
                return self.function.word(_CHECK_WORDS[check])
            case CheckCall("entailment" | "rederive" as check, argument) if argument and not argument.isdigit():
                return f"{self.function.word(check)}({argument!r})"
            case CheckCall("agree", argument) if (argument or "5").isdigit() and 2 <= int(
                argument or "5"
            ) <= MAX_SAMPLES:
                return (
                    f"{self.function.word('agree')}({argument})"
                    if argument
                    else f"{self.function.word('Check')}('agree')"
                )
            case CheckCall():
                return f"{self.function.word('Check')}({str(rule)!r})"
            case AllOf(parts):
                return " & ".join(
                    f"({self.rule(part)})" if isinstance(part, AnyOf) else self.rule(part) for part in parts
                )
            case AnyOf(parts):
                return " | ".join(map(self.rule, parts))

    def arms(self, arms: tuple[Any, ...]) -> list[str]:
        """Returns the arms that may be missing by position, and the certain last one by name."""
        texts = [self.optional_value(arm) for arm in arms]
        last = _sole_node(arms[-1])
        is_guarded = last is not None and self.names.get(last, last) != last
        return texts if is_guarded else [*texts[:-1], f"otherwise={texts[-1]}"]

    def optional_value(self, template: Any) -> str:
        """Returns a value in a place that accepts missing ones: such a node by its bare name."""
        only = _sole_node(template)
        if only is not None and self.lists.get(only) == f"{self.function.word('values')}({only})":
            return self.value(template)  # the remaining elements of a list exist
        return only if only is not None and (only in self.names or only in self.nodes) else self.value(template)

    def value(self, template: Any) -> str:
        match template:
            case str():
                return self.text(template)
            case Mapping():
                return "{" + ", ".join(f"{key!r}: {self.value(inner)}" for key, inner in template.items()) + "}"
            case list() | tuple():
                return "[" + ", ".join(map(self.value, template)) + "]"
            case _:
                return repr(template)

    def text(self, template: str) -> str:
        parts = [*split_template(template)]
        if len(parts) == 1 and isinstance(parts[0], TemplateReference):
            return self.reference(parts[0])
        text_parts = [
            (repr(part), True) if isinstance(part, str) else (self.reference(part), self.is_text(parse(part.source)))
            for part in parts
        ]
        if text_parts and not any(sure for _, sure in text_parts):
            text_parts[0] = text_parts[0][0], False  # a + of two numbers is a sum
        return (
            " + ".join(
                f"{self.function.word('as_text')}({text})" if sure is False else text for text, sure in text_parts
            )
            or "''"
        )

    def is_text(self, tree: CelTree) -> bool | None:
        """Whether an expression is a text; None if only tracing can tell, which refuses a + of a text and another
        value.
        """
        match tree:
            case CelLiteral(value):
                return isinstance(value, str)
            case CelCall("string"):
                return True
            case CelSelect(CelName("input"), name) if name in self.function.graph.input:
                try:
                    kinds = value_kinds(parse_type(self.function.graph.input[name].type, project_models()))
                except InputError:
                    return None
                return None if "any" in kinds else kinds == {"str"}
            case CelName() | CelSelect() | CelIndex() | CelConditional():
                return None
            case _:
                return False

    def reference(self, part: TemplateReference) -> str:
        if not part.is_closed:
            raise NotExpressible(f"`${{{part.source}` is not closed")
        try:
            return tree_to_python(parse(part.source), self.lists, self.names)
        except CelSyntaxError as error:
            raise NotExpressible(f"`${{{part.source}}}` is no expression: {error.reason}") from error


def _variable(name: str) -> str:
    if keyword.iskeyword(name):
        raise NotExpressible(f"{name!r} is a word of Python")
    return name


def _default(template: Any) -> str:
    """Returns the default of an input as Python, without the escapes of the language."""
    return repr(compile_template(template, {}).evaluate({}))


def _python_type(text: str) -> str:
    """Returns a type of the language as Python."""
    return re.sub(r"('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")|\bnull\b", lambda match: match[1] or "None", text)


def _refuse_options(node: Node, name: str) -> None:
    """Refuses modifiers that only steps accept in Python."""
    for key in _OPTIONS:
        if getattr(node, key) not in (None, ()):
            raise NotExpressible(f"{name}: `{key}` is set on a node that calls no agent, tool or workflow")


def _is_per_element(node: Node) -> bool:
    return node.when is not None and node.as_ is not None and node.as_ in referenced_names(node.when)


def _sole_node(template: Any) -> str | None:
    """Returns the node whose value, or whose list, a template is."""
    match = re.fullmatch(r"\$\{([a-z][a-z0-9_]*)(\.values)?\}", template) if isinstance(template, str) else None
    return match[1] if match else None


def _all_names(nodes: Mapping[str, AnyNode]) -> list[str]:
    """Returns the names of all nodes and elements, at every depth."""
    names: list[str] = []
    for name, node in nodes.items():
        names += [name, *([node.as_] if node.as_ else [])]
        block = node.call if isinstance(node, CallNode) else node.loop if isinstance(node, LoopNode) else None
        names += _all_names(block.nodes) if isinstance(block, NodeBlock) else []
    return names


def _all_steps(nodes: Mapping[str, AnyNode]) -> list[str]:
    """Returns the names of all agents, tools and workflows, at every depth."""
    steps: list[str] = []
    for node in nodes.values():
        match node:
            case AgentNode(agent=AgentChoice() as choice):
                steps += labels_by_agent(choice)
            case AgentNode(agent=str(step)) | ToolNode(tool=step) | CallNode(call=str(step)):
                steps.append(step)
            case PlanNode(agents=agents, tools=tools, workflows=workflows):
                steps += [*agents, *tools, *workflows]
            case CallNode(call=NodeBlock() as block) | LoopNode(loop=block):
                steps += _all_steps(block.nodes)
            case _:
                pass
    return steps
