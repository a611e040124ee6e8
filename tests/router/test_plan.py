"""Plans as workflows: nodes of steps, unused steps, and constants."""

from __future__ import annotations

from orchestra.router.capabilities import Capabilities
from orchestra.router.input_types import infer_schema
from orchestra.router.plan import Plan, build_plan, declare_inputs, to_workflow
from orchestra.router.plan_syntax import INPUT, PlanAnswer, PlanReference, PlanStep, parse_plan
from orchestra.router.shortlist import shortlist
from orchestra.router.validation import validate_line
from orchestra.workflows.yaml.reader import read
from orchestra.workflows.yaml.writer import write
from tests.router.sample_capabilities import ALL, CITE, COMPARE, READER, SEARCH, STR, SUM, contract, offer


def planned(text: str) -> Plan:
    found = build_plan(parse_plan(text))
    assert found is not None
    return found


def test_to_workflow_can_be_saved_and_read() -> None:
    plan = planned(
        "s1 = search(query=input.question, documents=input.documents, top=3)\n"
        "s2 = [reader(question=input.question, context=x.text) for x in s1]\n"
        "s3 = cite(question=input.question, readings=s2, passages=s1)\n"
        "return s3"
    )
    graph = to_workflow(plan, offer(), "answer", "Where?")
    text = write(graph)
    assert read(text, "answer.yaml").graph == graph
    nodes = {name: node.model_dump(by_alias=True, exclude_defaults=True) for name, node in graph.nodes.items()}
    assert nodes["s2"]["each"] == "${s1}"
    assert nodes["s2"]["with"] == {"question": "${input.question}", "context": "${x.text}"}
    assert nodes["s3"]["with"]["readings"] == "${s2.values}"
    assert graph.input["documents"].type == "list[Document]"
    assert graph.output == "${s3}"


def test_to_workflow_leaves_out_unused_steps() -> None:
    plan = planned(
        's1 = calculator(question=input.question)\ns2 = calculator(question="2+2")\n'
        's3 = compare(first=s1.answer, second=1, how="more")\nreturn s3'
    )
    assert [step.name for step in plan.used_steps] == ["s1", "s3"]
    assert set(to_workflow(plan, offer(), "sums").nodes) == {"s1", "s3"}


def test_to_workflow_several_values_are_a_record() -> None:
    plan = planned(
        "s1 = calculator(question=input.question)\ns2 = search(query=input.question, documents=input.documents)\n"
        "return s1.answer, s2[0].text"
    )
    assert to_workflow(plan, offer(), "both").output == {"s1_answer": "${s1.answer}", "s2_0_text": "${s2[0].text}"}


def test_to_workflow_reference_in_constant_is_escaped() -> None:
    plan = planned('s1 = calculator(question="${input.documents}")\nreturn s1')
    (node,) = to_workflow(plan, offer(), "tricky").nodes.values()
    assert node.model_dump(by_alias=True)["with"] == {"question": "$${input.documents}"}


def test_to_workflow_step_that_only_waits() -> None:
    plan = planned("s1 = calculator(question=input.question)\ns2 = calculator(s1, question=input.question)\nreturn s2")
    assert to_workflow(plan, offer(), "waits").nodes["s2"].after == ("s1",)
    assert [step.name for step in plan.used_steps] == ["s1", "s2"]


def test_declare_inputs_unnamed_type_gets_name() -> None:
    value = {"total": 3, "lines": [{"text": "a"}]}
    given = Capabilities.of(
        [contract("pay", "tool", {"invoice": infer_schema(value)}, {"type": "string"})],
        {"the_invoice": infer_schema(value)},
    )
    graph = to_workflow(planned("s1 = pay(invoice=input.the_invoice)\nreturn s1"), given, "pays")
    assert graph.input["the_invoice"].type == "TheInvoice"
    assert read(write(graph), "pays.yaml").graph == graph


def test_declare_inputs_types_do_not_collide() -> None:
    one, other = (infer_schema({"a": value}) for value in ("text", 3))
    inputs, types = declare_inputs(
        {"a_b": one, "a__b": other, "document": one, "documents": SEARCH.input["properties"]["documents"]}
    )
    assert {name: entry["type"] for name, entry in inputs.items()} == {
        "a_b": "AB",
        "a__b": "AB_",
        "document": "Document_",
        "documents": "list[Document]",
    }
    assert types == {"AB": one, "AB_": other, "Document_": one}


def test_declare_inputs_types_keep_names_without_collision() -> None:
    record, labels = (
        infer_schema({"a": "text"}),
        {"type": "string", "enum": ["Invoice", 'the "Invoice"', "it's Invoice"]},
    )
    inputs, types = declare_inputs({"kind": labels, "invoice": record, "a_b": record, "a__b": dict(record)})
    assert {name: entry["type"] for name, entry in inputs.items() if name != "kind"} == {
        "invoice": "Invoice",
        "a_b": "AB",
        "a__b": "AB",
    }
    assert types == {"Invoice": record, "AB": record}


def test_build_plan_without_answer_is_none() -> None:
    assert build_plan([]) is None
    assert build_plan([PlanStep("s1", "a")]) is None
    assert build_plan([PlanAnswer(()), PlanAnswer(())]) is None


def test_infer_schema_of_values() -> None:
    assert infer_schema([["a", "b"], ["c"]]) == {
        "type": "array",
        "items": {"type": "array", "items": {"type": "string"}},
    }
    assert (
        offer(READER).assignability.mismatch(
            infer_schema([{"source": "a", "text": "b"}]), SEARCH.input["properties"]["documents"]
        )
        is None
    )


def test_shortlist_has_named_capabilities_and_their_suppliers() -> None:
    others = [
        contract(
            f"weather_{n}", "tool", {"city": {"type": "string"}}, {"type": "string"}, says="The weather of a city."
        )
        for n in range(50)
    ]
    given = Capabilities.of([*others, *ALL], offer().inputs)
    found = shortlist(given, "one answer from the readings of several passages", most=6)
    assert len(found.by_name) == 6
    assert {"cite", "search", "reader"} <= set(found.by_name)
    assert shortlist(given, "nothing alike", most=100).by_name == given.by_name


def test_shortlist_leaves_out_uncallable_capabilities() -> None:
    given = Capabilities.of([CITE, SUM, COMPARE, SEARCH], {"question": {"type": "string"}})
    assert list(shortlist(given, "Where?").by_name) == ["calculator", "compare"]
    assert "cite" in shortlist(Capabilities.of(ALL, offer().inputs), "Where?").by_name


def test_shortlist_ties_alternate_project_tools_and_others() -> None:
    agents = [contract(f"agent_{n}", "agent", {"text": STR}, STR, says="Helps.") for n in range(20)]
    tools = [contract(f"tool_{n}", "tool", {"text": STR}, STR, says="Helps.") for n in range(3)]
    given = Capabilities.of([*agents, *tools], {"text": STR})
    assert list(shortlist(given, "loud", most=6).by_name) == [
        "tool_0",
        "agent_0",
        "tool_1",
        "agent_1",
        "tool_2",
        "agent_2",
    ]


def test_shortlist_ties_of_package_keep_list_order() -> None:
    listed = [contract(f"agent_{n}", "agent", {"text": STR}, STR, says="Helps.") for n in range(5)] + [SEARCH, CITE]
    given = Capabilities.of(listed, {"text": STR})
    assert list(shortlist(given, "loud", most=3).by_name) == ["agent_0", "agent_1", "agent_2"]


def test_shortlist_excluded_capability_is_reported() -> None:
    others = [contract(f"tool_{n}", "tool", {"text": STR}, STR) for n in range(5)]
    given = shortlist(Capabilities.of([*others, CITE], {"text": STR}), "loud", most=2)
    said = [
        validate_line(PlanStep("s1", name, {"text": PlanReference(INPUT, ("text",))}), given, [])[0]
        for name in ("tool_4", "cite", "tool_9")
    ]
    assert [one.reason for one in said] == [
        "tool_4 is not on the shortlist",
        "cite needs a value that is not available, and that no capability produces",
        "there is no 'tool_9'",
    ]
