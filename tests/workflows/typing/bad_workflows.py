# ruff: noqa: B018
"""Mistakes that checkers find without a plugin. `# E: CODE` is what mypy --strict says; `# E: CODE -` is seen by mypy
alone.
"""

from __future__ import annotations

from orchestra import (
    Answer,
    Document,
    Orchestra,
    abstain,
    accepted,
    agent,
    agent_by,
    all_of,
    ask,
    build,
    filter_,
    first_of,
    length,
    map_,
    not_,
    plan,
    quote,
    retry,
    tool,
    values,
    when,
    workflow,
)

from .good_workflows import (
    ReaderInput,
    Reading,
    answer_from_documents,
    calculator,
    classifier,
    picker,
    reader,
    search,
    writer,
)


@workflow()
def wrong(question: str, documents: list[Document]) -> Answer:
    passages = search(query=question, documents=documents, top="six")  # E: arg-type
    search(query=question)  # E: call-arg
    map_(lambda p: reader(question=question, context=p.txt), passages)  # E: attr-defined
    kind = classifier(text=question)
    maybe = when(kind.label == "maths", calculator(question=question))  # E: comparison-overlap -
    first = reader(question=question, context=passages[0])  # E: arg-type
    writer(question=question, findings=passages)  # E: arg-type
    writer(question=question, finding=[first])  # E: call-arg
    maybe.text  # E: attr-defined
    calculator(question=maybe)  # E: arg-type
    filter_(lambda p: p.scor > 0.5, passages)  # E: attr-defined
    length(question=3)  # E: call-arg
    all_of(not_(kind.label == "math"), "yes")  # E: arg-type
    calculator.options(timout=3)(question=question)  # E: call-arg
    calculator.options(timeout="long")(question=question)  # E: arg-type
    build(Answer, txt=question)  # E: call-arg
    build(Answer, text=3)  # E: arg-type
    return first_of(maybe, when(not_(kind.label == "math"), lambda: kind))  # E: return-value


@workflow()
def unhandled(question: str, documents: list[Document]) -> Answer:
    readings = map_(
        lambda d: accepted(
            reader(question=question, context=d.text), checks=quote, against=d.text, otherwise=[retry, abstain]
        ),
        documents,
    )
    accepted(calculator(question=question), checks="quote")  # E: call-overload
    accepted(calculator(question=question), checks=quote, otherwise=["retry"])  # E: list-item
    readings[0].answer  # E: attr-defined
    values(readings)[0].anser  # E: attr-defined
    maybe = accepted(calculator(question=question), checks=quote, otherwise=[abstain])
    first_of(maybe).txt  # E: attr-defined
    return writer(question=question, findings=readings)  # E: arg-type


@workflow()
def planned(question: str, documents: list[Document]) -> Answer:
    plan(question, agents=[reader])  # E: call-arg
    plan(documents, returns=Answer)  # E: arg-type
    plan(question, returns=Answer, agents=[search])  # E: list-item
    plan(question, returns=Answer, tools=["search"])  # E: list-item
    plan(question, returns=Answer, workflows=[reader])  # E: list-item
    plan(question, returns=Answer, limits=3)  # E: arg-type
    plan(question, returns=Answer, larger=search)  # E: arg-type
    plan(question, returns=Answer, votes="5")  # E: arg-type
    plan(question, returns=Answer, agents=[reader]).anser  # E: attr-defined
    return plan(question, returns=list[Answer], agents=[reader])  # E: return-value


@workflow()
def asked(question: str, documents: list[Document]) -> Answer:
    ask()  # E: call-overload
    ask(documents)  # E: call-overload
    ask(question, choices=["yes"])  # E: call-overload
    ask(question, options=[1])  # E: list-item
    ask(question, options=["yes"], returns=int)  # E: call-overload
    ask(question, timeout="long")  # E: call-overload
    ask(question, returns=Answer).anser  # E: attr-defined
    accepted(calculator(question=question), checks=quote, otherwise=[ask(question)])  # E: list-item
    return ask(question)  # E: return-value


@workflow()
def one_of_several(question: str) -> Reading:
    kind = classifier(text=question)
    agent_by(kind.label, {"math": search})  # E: arg-type
    agent_by(kind.label, {"math": reader}, otherwise=reader)(question=question)  # E: call-arg
    agent_by(kind.label, {3: reader})  # E: type-var
    return agent_by(kind.label, {"math": reader}, otherwise=picker)(  # E: return-value
        question=question, context=question
    )


@workflow()
def returns(question: str) -> Answer:
    return classifier(text=question)  # E: return-value


agent("reader", ReaderInput, Reading)(question="a")  # E: call-arg
tool(effect="maybe")  # E: arg-type
tool()  # E: call-arg


async def main(orchestra: Orchestra) -> None:
    await reader(question="a", context="b")  # E: misc
    result = await orchestra.run(answer_from_documents, question="a")  # E: call-arg
    result.output.txt  # E: attr-defined
    await orchestra.run(reader, question="a", context=3)  # E: arg-type
    run = await orchestra.start(reader, question="a", contxt="b")  # E: call-arg
    (await run).output.anser  # E: attr-defined
