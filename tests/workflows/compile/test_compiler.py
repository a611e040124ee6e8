"""Tests of the compiler: the compiled programs, and the code, message and location of each error."""

from __future__ import annotations

import gc
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from orchestra.app.inputs import bind_arguments
from orchestra.core.errors import InputError, InputErrors
from orchestra.engine.evolve import with_defaults
from orchestra.schema.types import format_type
from orchestra.workflows.compile.compiler import compile_graph
from orchestra.workflows.compile.diagnostics import WorkflowPart
from orchestra.workflows.model import Graph
from orchestra.workflows.program import CompiledNode, Program
from orchestra.workflows.yaml.reader import read
from orchestra.workflows.yaml.writer import write
from tests.engine.stage import READING
from tests.unsafe_reference import assert_cost
from tests.workflows.catalog import CATALOG, HEAD, TWICE, called_in_a_row, compiled, faults, whole
from tests.workflows.graphs import graphs
from tests.workflows.samples import SAMPLES

REFUSED = tomllib.loads(Path(__file__).with_name("refused_workflows.toml").read_text("utf-8"))["case"]


def node(program: Program, name: str) -> CompiledNode:
    return next(one for one in program.nodes if one.name == name)


def names(program: Program, indices: Any) -> list[str]:
    return [program.nodes[index].name for index in indices]


def assert_sound(program: Program) -> None:
    """Holds of every program, and of its bodies."""
    for one in program.nodes:
        assert all(need < one.index for need in one.needs)
        assert one.soft_needs <= set(one.needs)
        assert all(one.index in program.nodes[child].needs for child in one.children)
        assert all(one.height > program.nodes[child].height for child in one.children)
        if one.body is not None:
            assert_sound(one.body)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case["what"])
def test_compile_invalid_workflow_has_one_error(case: dict[str, str]) -> None:
    found = faults(case["text"])
    assert [fault.code for fault in found] == [case["code"]], "\n".join(map(str, found))
    place = found[0].location
    assert case["says"] in str(found[0])
    assert place is not None
    assert place.text[place.column - 1 : place.column - 1 + place.width] == case["at"]


def test_compile_every_error_has_hint() -> None:
    silent = {case["what"] for case in REFUSED if not faults(case["text"])[0].hint}
    assert len(silent) <= len(REFUSED) // 10, silent


@pytest.mark.parametrize("text", SAMPLES)
def test_compile_samples_have_no_warnings(text: str) -> None:
    program = compiled(text)
    assert program.warnings == ()
    assert_sound(program)


def test_compile_nodes_follow_their_needs() -> None:
    program = compiled(
        "output: ${c}\n"
        "nodes:\n"
        "  c: {agent: writer, with: {text: '${a + b}'}}\n"
        "  b: {tool: shout, with: {text: '${a}'}}\n"
        "  a: {tool: shout, with: {text: x}}"
    )
    assert [one.name for one in program.nodes] == ["a", "b", "c"]
    assert [names(program, one.needs) for one in program.nodes] == [[], ["a"], ["a", "b"]]
    assert [names(program, one.children) for one in program.nodes] == [["b", "c"], ["c"], []]
    assert [one.height for one in program.nodes] == [3, 2, 1]


def test_compile_soft_needs_are_arms_fallbacks_and_after() -> None:
    program = compiled(
        "output: ${d}\nnodes:\n  a: {tool: shout, with: {text: x}}\n  b: {tool: shout, with: {text: y}}\n"
        "  c: {first_of: ['${a}', z]}\n  d: {tool: shout, after: [b], fallback: '${c}', with: {text: '${a}'}}"
    )
    assert names(program, node(program, "c").soft_needs) == ["a"]
    assert sorted(names(program, node(program, "d").soft_needs)) == ["b", "c"]
    assert sorted(names(program, node(program, "d").needs)) == ["a", "b", "c"]
    assert (node(program, "c").has_soft_needs, node(program, "a").has_soft_needs) == (True, False)


def test_compile_hard_need_overrides_soft_need() -> None:
    program = compiled(
        "output: ${b}\n"
        "nodes:\n"
        "  a: {tool: shout, with: {text: x}}\n"
        "  b: {tool: shout, fallback: '${a}', with: {text: '${a}'}}"
    )
    assert node(program, "b").soft_needs == frozenset()


BODY = "output: ${c}\nnodes:\n  a: {tool: shout, with: {text: x}}\n  c: {call: {nodes: {d: %s}, output: '${d}'}}"


def test_compile_body_reads_become_needs() -> None:
    program = compiled(BODY % "{tool: shout, with: {text: '${a}'}}")
    assert names(program, node(program, "c").needs) == ["a"]
    assert node(program, "c").soft_needs == frozenset()


def test_compile_body_soft_reads_are_soft() -> None:
    program = compiled(BODY % "{first_of: ['${a}', none]}")
    assert names(program, node(program, "c").soft_needs) == ["a"]


def test_compile_types_propagate_between_nodes() -> None:
    program = compiled(SAMPLES[1])
    assert format_type(node(program, "words").output) == "list[str]"
    assert format_type(node(program, "loud").output) == "str"
    assert format_type(node(program, "said").output) == "str"
    properties = program.output_schema["properties"]
    assert {name: format_type(part) for name, part in properties.items()} == {
        "n": "int",
        "said": "str",
        "maybe": "str | null",
    }


def test_compile_list_output_has_item_types() -> None:
    text = """
input: {go: bool}
output: ["${a}", 7, {more: "${b}"}]
nodes:
  a: {tool: shout, when: "${input.go}", with: {text: x}}
  b: {tool: shout, with: {text: y}}
"""
    first, second, third = compiled(text).output_schema["prefixItems"]
    assert (format_type(first), format_type(second), format_type(third["properties"]["more"])) == (
        "str | null",
        "Literal[7]",
        "str",
    )


def test_compile_inputs_have_types_and_defaults() -> None:
    inputs = compiled(SAMPLES[1]).inputs
    assert [(name, format_type(one.schema), one.required, one.default) for name, one in inputs.items()] == [
        ("text", "str", False, "a b"),
        ("go", "bool", True, None),
    ]


@pytest.mark.parametrize(
    ("kind", "written", "default"),
    [
        ("str", '"costs $${x}"', "costs ${x}"),
        ("str", '"costs $x, {y}"', "costs $x, {y}"),
        ("list[str]", '["$${x}", y]', ["${x}", "y"]),
        ("dict[str, str]", '{a: "$${x}"}', {"a": "${x}"}),
        ("dict[str, str]", '{"$${a}": b}', {"$${a}": "b"}),  # keys are no templates
        ("int", '"${1 + 2}"', 3),
    ],
)
def test_compile_input_default_is_template(kind: str, written: str, default: Any) -> None:
    head = f"input: {{t: {{type: '{kind}', default: {written}}}}}"
    program = compiled(f"{head}\noutput: ${{a}}\nnodes:\n  a: {{tool: shout, with: {{text: x}}}}")
    assert bind_arguments(program, (), {}) == {"t": default}
    assert with_defaults(program, {}) == {"t": default}
    assert program.graph is not None
    assert read(write(program.graph), "x").graph == program.graph


def test_compile_modifiers_precedence() -> None:
    program = compiled(
        "defaults: {retry: 4, timeout: 9}\noutput: ${b}\nnodes:\n  a: {tool: shout, with: {text: x}}\n"
        "  b: {tool: shout, retry: 2, timeout: 3, with: {text: '${a}'}}"
    )
    assert [(one.retry.attempts, one.timeout) for one in program.nodes] == [(4, 9.0), (2, 3.0)]
    plain = compiled("output: ${a}\nnodes: {a: {tool: shout, with: {text: x}}}").nodes[0]
    assert (plain.retry.attempts, plain.timeout, plain.limit, plain.acceptance) == (3, None, 10_000, None)


def test_compile_loop_previous_is_nullable_output() -> None:
    loop = (
        "output: ${a}\n"
        "nodes:\n"
        "  a: {loop: {at_most: 3, until: '${turn > 2}', nodes: {b: {tool: %s, with: {text: "
        "'${previous}'}}}, output: '${b}'}}"
    )
    assert compiled(loop % "grow").nodes[0].body is not None
    assert [(fault.code, "str | null" in str(fault)) for fault in faults(loop % "shout")] == [("L114", True)]


def test_compile_nested_loops_have_own_turn() -> None:
    inner = (
        "{loop: {at_most: 2, until: '${turn > 1}', nodes: {c: {tool: grow, with: {text: '${previous}'}}}, output:"
        " '${c}'}}"
    )
    program = compiled(
        "output: ${a}\n"
        "nodes:\n"
        f"  a: {{loop: {{at_most: 3, until: '${{turn > 2}}', nodes: {{b: {inner}}}, output: '${{b}}'}}}}"
    )
    assert program.warnings == ()
    assert format_type(program.output_schema) == "str"


def test_compile_until_reads_mapped_nodes() -> None:
    text = (
        "output: ${a}\n"
        "nodes:\n"
        "  a: {loop: {at_most: 3, until: '${size(b.values) > 0}', nodes: {b: {tool: shout, each: "
        "'${[\"x\"]}', as: x, with: {text: '${x}'}}}, output: '${b.values}'}}"
    )
    assert format_type(compiled(text).output_schema) == "list[str]"


def test_compile_sibling_bodies_share_names() -> None:
    block = (
        "{call: {nodes: {x: {tool: shout, %s with: {text: '${y}'}}, y: {tool: shout, with: {text: z}}}, output:"
        " '${x}'}}"
    )
    text = (
        "input: {go: bool}\noutput: ${d}\nnodes:\n"
        + f"  a: {block % ''}\n  b: {block % chr(39).join(['when: ', '${input.go}', ','])}\n"
    )
    text += "  c: {first_of: ['${b}', '${a}']}\n  d: {tool: shout, with: {text: '${c}'}}"
    assert compiled(text).warnings == ()


def test_compile_element_shadows_unsure_node() -> None:
    text = (
        "input: {go: bool}\noutput: ${c.values}\nnodes:\n"
        "  a: {call: {nodes: {item: {tool: shout, when: '${input.go}', with: {text: x}}}, output: '${item}'}}\n"
        "  c: {each: '${[\"x\"]}', as: item, after: [a], call: {nodes: {d: {first_of: ['${item}']}, "
        "e: {tool: shout, with: {text: '${d}'}}}, output: '${e}'}}"
    )
    assert faults(text) == ()


def test_compile_output_only_choice_needs_no_sure_arm() -> None:
    text = (
        "input: {go: bool}\n"
        "output: ${b}\n"
        "nodes:\n"
        "  a: {tool: shout, when: '${input.go}', with: {text: x}}\n"
        "  b: {first_of: ['${a}']}"
    )
    assert compiled(text).nodes[1].kind == "first_of"


@pytest.mark.parametrize("arm", ["none", "${sure}", "${a ? 'x' : 'y'}"])
def test_compile_choice_with_sure_arm_is_plain_value(arm: str) -> None:
    text = f"""input: {{go: bool}}
output: ${{c}}
nodes:
  a: {{tool: shout, when: "${{input.go}}", with: {{text: x}}}}
  sure: {{tool: shout, with: {{text: x}}}}
  b: {{first_of: ["${{a}}", "{arm if arm != "${a ? 'x' : 'y'}" else "${input.go ? 'x' : 'y'}"}"]}}
  c: {{tool: shout, after: [sure], with: {{text: "${{b}}"}}}}"""
    assert faults(text) == ()


def test_compile_null_fallback_of_nullable_type_accepted() -> None:
    catalog = replace(
        CATALOG,
        agents={
            "may": replace(
                CATALOG.agents["writer"], name="may", output={"anyOf": [{"type": "string"}, {"type": "null"}]}
            )
        },
    )
    program = compile_graph(
        read(whole("output: ${a}\nnodes: {a: {agent: may, fallback: '${null}', with: {text: x}}}"), "w").graph, catalog
    )
    fallback = program.nodes[0].fallback
    assert fallback is not None
    assert fallback.evaluate({}) is None


CARD = replace(
    CATALOG.agents["reader"], checks=("quote",), evidence="context", accept=0.8, otherwise=("retry", "abstain")
)


def carded(node_text: str, **more: Any) -> Program:
    catalog = replace(CATALOG, agents={"reader": replace(CARD, **more)})
    return compile_graph(
        read(
            whole("output: ${a}\nnodes:\n  a: {agent: reader, with: {question: q, context: c}, " + node_text + "}"), "w"
        ).graph,
        catalog,
    )


def test_compile_acceptance_defaults_to_card() -> None:
    acceptance = carded("retry: 1").nodes[0].acceptance
    assert acceptance is not None
    assert acceptance.against is not None
    assert (acceptance.checks, acceptance.accept, acceptance.otherwise) == (("quote",), 0.8, ("retry", "abstain"))
    assert acceptance.against.evaluate({}) == "c"


def test_compile_node_overrides_card_keys() -> None:
    acceptance = carded("checks: [numbers], accept: 0.2, against: other").nodes[0].acceptance
    assert acceptance is not None
    assert acceptance.against is not None
    assert (acceptance.checks, acceptance.accept, acceptance.otherwise) == (("numbers",), 0.2, ("retry", "abstain"))
    assert acceptance.against.evaluate({}) == "other"


def test_compile_card_check_without_evidence_named() -> None:
    with pytest.raises(InputError) as caught:
        carded("retry: 1", evidence="")
    assert caught.value.code == "L117"
    assert "the card of reader asks for this check" in str(caught.value)


def test_compile_called_workflow_has_types() -> None:
    program = compiled("output: ${a}\nnodes: {a: {call: twice, with: {text: x}}}")
    assert program.nodes[0].body is not None
    assert program.nodes[0].body.name == "twice"
    assert not program.nodes[0].body.sees_outer_scope
    assert format_type(program.output_schema) == "str"


@pytest.mark.parametrize(
    ("own", "inner", "label"),
    [
        ("", "", "internal"),
        ("label: public", "", "public"),
        ("", "label: public", "internal"),
        ("", "label: restricted", "restricted"),
        ("label: public", "label: internal", "internal"),
        ("label: restricted", "label: public", "restricted"),
    ],
)
@pytest.mark.parametrize(
    "step",
    ["{call: outer, with: {text: x}}", "{plan: x, with: {text: x}, workflows: [outer], agents: [], returns: str}"],
)
def test_compile_label_includes_indirect_calls(own: str, inner: str, label: str, step: str) -> None:
    flows = {
        "inner": f"{TWICE.replace('twice', 'inner')}{inner}\n",
        "outer": (
            "schema: orchestra/v1\n"
            "name: outer\n"
            "input: {text: str}\n"
            "output: ${a}\n"
            "nodes: {a: {call: inner, with: {text: x}}}"
        ),
    }
    catalog = replace(CATALOG, workflows={name: read(text, f"{name}.yaml").graph for name, text in flows.items()})
    main = read(f"schema: orchestra/v1\nname: main\n{own}\noutput: ${{a}}\nnodes: {{a: {step}}}", "main.yaml")
    assert compile_graph(main.graph, catalog).label == label


@pytest.mark.parametrize(
    ("head", "condition"),
    [
        ("input: {go: bool}", "${input.go && false}"),
        ("input: {go: bool}", "${input.go && !true}"),
        ("input: {xs: 'list[str]'}", "${size(input.xs) < 0}"),
        ("input: {s: str}", "${input.s == 'a' && input.s == 'b'}"),
        ("input: {s: str | null}", "${input.s == null && input.s != null}"),
        ("input: {n: int}", "${input.n < input.n}"),
    ],
)
def test_compile_impossible_condition_warns(head: str, condition: str) -> None:
    warnings = compiled(
        f'{head}\noutput: ${{a}}\nnodes:\n  a: {{tool: shout, when: "{condition}", with: {{text: x}}}}'
    ).warnings
    assert len(warnings) == 1
    assert "`when` is false in every run: the node never runs" in warnings[0]
    assert warnings[0].startswith("w.yaml:6:")


def test_compile_tautology_warns() -> None:
    assert (
        "has no effect"
        in compiled(
            'input: {n: int}\noutput: ${a}\nnodes:\n  a: {tool: shout, when: "${input.n == input.n}", with: {text: x}}'
        ).warnings[0]
    )


@pytest.mark.parametrize(
    "condition",
    ["${input.n > 3}", "${input.n == 1 || input.n == 2}", "${size(input.s) >= 1}", "${input.n != 1 && input.n != 2}"],
)
def test_compile_possible_condition_has_no_warning(condition: str) -> None:
    assert (
        compiled(
            "input: {n: int, s: str}\n"
            "output: ${a}\n"
            "nodes:\n"
            f'  a: {{tool: shout, when: "{condition}", with: {{text: x}}}}'
        ).warnings
        == ()
    )


def test_compile_unused_node_without_effect_warns() -> None:
    block = "{call: {nodes: {x: {tool: send, with: {text: x}}}, output: '${x}'}}"
    warnings = compiled(
        "output: ${a}\n"
        "nodes:\n"
        "  a: {tool: shout, with: {text: x}}\n"
        "  b: {tool: shout, with: {text: x}}\n"
        "  c: {tool: send, with: {text: x}}\n"
        f"  d: {block}"
    ).warnings
    assert warnings == ("w.yaml:6:3: nothing needs the node 'b'",)


@pytest.mark.parametrize(
    ("skill", "warned"),
    [("tools: [shout]", True), ("tools: [send]", False), ("workflows: [twice]", True), ("workflows: [sends]", False)],
)
def test_compile_plan_effects_follow_capabilities(skill: str, warned: bool) -> None:
    sends = read(
        HEAD.replace("w\n", "sends\n") + "output: ${a}\nnodes:\n  a: {tool: send, with: {text: x}}\n", "sends.yaml"
    ).graph
    catalog = replace(CATALOG, workflows={**CATALOG.workflows, "sends": sends})
    text = whole("output: ${a}\nnodes:\n  a: {tool: shout, with: {text: x}}\n  p: {plan: go, " + skill + "}")
    warnings = compile_graph(read(text, "w").graph, catalog).warnings
    assert [str(one) for one in warnings if "nothing needs the node 'p'" in str(one)] == list(warnings)
    assert bool(warnings) == warned


def test_compile_plan_without_capabilities_warns() -> None:
    (warning,) = compiled("output: ${a}\nnodes:\n  a: {plan: go}").warnings
    assert "the plan may use nothing" in str(warning)


def test_compile_recursive_plan_refused() -> None:
    text = HEAD.replace("w\n", "again\n") + "output: ${a}\nnodes:\n  a: {plan: go, workflows: [again]}\n"
    graph = read(text, "again.yaml").graph
    with pytest.raises(InputError, match="the workflow calls itself: again -> again") as caught:
        compile_graph(graph, replace(CATALOG, workflows={"again": graph}))
    assert caught.value.code == "L116"


def test_compile_error_without_file_has_path() -> None:
    graph = read(whole("output: ${a}\nnodes: {a: {tool: shout, with: {text: 3}}}"), "w").graph
    with pytest.raises(InputError) as caught:
        compile_graph(graph, CATALOG)
    assert isinstance(caught.value.location, WorkflowPart)
    assert str(caught.value.location) == "w: nodes.a.with.text"
    assert "--> w: nodes.a.with.text" in str(caught.value)


def test_compile_error_causes_no_further_errors() -> None:
    found = faults(
        "input: {t: strr}\noutput: ${b}\nnodes:\n  a: {tool: shout, with: {text: '${input.t}'}}\n"
        "  b: {tool: count, with: {items: '${input.t.x}'}}"
    )
    assert [fault.code for fault in found] == ["L040"]


def test_compile_two_errors_both_reported() -> None:
    found = faults(
        "output: ${b}\nnodes:\n  a: {tool: shout, with: {text: 3}}\n  b: {tool: shoutt, with: {text: '${a}'}}"
    )
    assert [fault.code for fault in found] == ["L114", "L111"]


def test_compile_quote_assignable_to_text_only() -> None:
    assert READING["properties"]["quote"]["format"] == "quote"  # type: ignore[index]
    program = compiled(
        "output: ${b}\n"
        "nodes:\n"
        "  a: {agent: reader, with: {question: q, context: c}}\n"
        "  b: {tool: shout, with: {text: '${a.quote}'}}"
    )
    assert len(program.nodes) == 2


def test_compile_deep_call_chain_refused() -> None:
    workflows = called_in_a_row(60)
    with pytest.raises(InputError) as caught:
        compile_graph(workflows["w0"], replace(CATALOG, workflows=workflows))
    assert caught.value.code == "L106"


def test_compile_called_workflow_compiled_once() -> None:
    workflows = called_in_a_row(24, width=2)
    assert_cost(lambda: compile_graph(workflows["w0"], replace(CATALOG, workflows=workflows)), at_most=200)


@pytest.mark.parametrize("text", SAMPLES)
def test_compile_nodes_excluded_from_gc(text: str) -> None:
    """A program is a tree, and large: for the collector, compiling a thousand nodes would be a reason to look at all
    there is.
    """
    nodes = compiled(text).nodes
    assert [
        one.name for one in nodes if gc.is_tracked(one) or (one.inputs is not None and gc.is_tracked(one.inputs))
    ] == []


def grown(depth: int) -> str:
    text = HEAD + f"output: ${{n{depth}}}\nnodes:\n  n0: {{tool: shout, with: {{text: x}}}}\n"
    return text + "".join(
        f"  n{at}: {{call: {{nodes: {{m{at}: {{first_of: ['${{n{at - 1}}}', x]}}}}, output: {{a: '${{n{at - 1}}}', "
        f"b: '${{n{at - 1}}}', c: '${{m{at}}}'}}}}}}\n"
        for at in range(1, depth + 1)
    )


@pytest.mark.parametrize("depth", [40, 400])
def test_compile_doubling_types_refused_quickly(depth: int) -> None:
    assert {fault.code for fault in faults(grown(depth))} == {"L106"}
    assert_cost(lambda: faults(grown(depth)), at_most=1_000)


def test_compile_nested_loops_finish_quickly() -> None:
    inner = "{tool: grow, with: {text: '${previous}'}}"
    for at in range(14):
        inner = (
            f"{{loop: {{at_most: 2, until: '${{turn > 1}}', nodes: {{n{at}: {inner}, m{at}: {{tool: grow, "
            f"with: {{text: '${{previous}}'}}}}}}, output: '${{n{at}}}'}}}}"
        )
    assert {fault.code for fault in faults("output: ${a}\nnodes:\n  a: " + inner)} == {"L106"}
    assert_cost(lambda: faults("output: ${a}\nnodes:\n  a: " + inner), at_most=300)


def test_compile_long_cycle_reported_quickly() -> None:
    count = 4_000
    text = (
        HEAD
        + "output: ${n0}\nnodes:\n"
        + "".join(f"  n{at}: {{ask: '${{n{(at + 1) % count}}}'}}\n" for at in range(count))
    )
    graph = read(text, "w").graph

    def refused() -> None:
        with pytest.raises(InputError) as caught:
            compile_graph(graph, CATALOG)
        assert not isinstance(caught.value, InputErrors)
        assert caught.value.code == "L110"
        assert len(caught.value.message) < 120

    assert_cost(refused, at_most=500)


def test_compile_many_unknown_names_reported_quickly() -> None:
    text = HEAD + "output: ${n0}\nnodes:\n" + "".join(f"  n{at}: {{ask: '${{node_{at}}}'}}\n" for at in range(3_000))
    graph = read(text, "w").graph

    def refused() -> None:
        with pytest.raises(InputErrors) as caught:
            compile_graph(graph, CATALOG)
        assert len(caught.value.errors) == 50

    assert_cost(refused, at_most=500)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(graphs())
def test_compile_any_graph_compiles_or_is_refused(graph: Graph) -> None:
    try:
        program = compile_graph(graph, CATALOG)
    except InputError:
        return
    assert_sound(program)
