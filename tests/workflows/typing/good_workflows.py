"""What checkers make of workflows, agents and tools: types as a reader expects them, without a plugin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, assert_type

from pydantic import BaseModel

from orchestra import (
    Answer,
    Budget,
    Document,
    Maybe,
    Orchestra,
    Passage,
    PlanLimits,
    Quote,
    RunEvent,
    abstain,
    accepted,
    agent,
    agent_by,
    all_of,
    answered_by_model,
    any_of,
    as_text,
    ask,
    build,
    certified,
    choose,
    contains,
    entailment,
    escalate,
    filter_,
    first_of,
    has_value,
    length,
    loop,
    map_,
    not_,
    numbers,
    or_else,
    plan,
    quote,
    require,
    retry,
    tool,
    values,
    verify,
    when,
    workflow,
)


class ReaderInput(BaseModel):
    question: str
    context: str


class Reading(BaseModel):
    answer: str | None
    quote: Quote | None


class WriterInput(BaseModel):
    question: str
    findings: list[Reading]


class Kind(BaseModel):
    label: Literal["math", "lookup"]


class Page(BaseModel):
    title: str
    passages: list[Passage]


reader = agent("reader", ReaderInput, Reading)
writer = agent("writer", WriterInput, Answer)
picker = agent("picker", ReaderInput, list[Reading] | None)


@agent(prompt="{{ text }}", max_output=1)
def classifier(text: str) -> Kind:
    """Says of what kind a text is."""
    return answered_by_model()


@agent(prompt="{{ question }}")
def calculator(question: str) -> Answer:
    return answered_by_model()


@tool(effect="pure")
def search(query: str, documents: Sequence[Document], top: int = 5) -> list[Passage]:
    return [Passage(source=one.source, text=one.text) for one in documents if query in one.text][:top]


@tool(effect="pure")
def cite(question: str, readings: Sequence[Reading]) -> Answer:
    return Answer(text=question if readings else None)


@tool(effect="idempotent")
async def fetch(url: str) -> Page:
    return Page(title=url, passages=[])


@workflow()
def one_of_several(question: str, context: str) -> Reading | list[Reading] | None:
    kind = classifier(text=question)
    same = agent_by(kind.label, {"math": reader, "lookup": reader})(question=question, context=context)
    assert_type(same, Reading)
    other = agent_by(kind.label, {"math": reader}, otherwise=picker).options(timeout=3)(
        question=question, context=context
    )
    assert_type(other, Reading | list[Reading] | None)
    agent_by(kind.label == "math", {True: reader, False: reader})(question=question, context=context)
    return other


@workflow
def both(question: str, context: str) -> list[Reading]:
    return [reader(question=question, context=context), reader(question=question, context="")]


assert_type(both(question="", context=""), list[Reading])


@workflow(budget=Budget(tokens=20_000, seconds=60))
def answer_from_documents(question: str, documents: Sequence[Document]) -> Answer:
    """The sample of the design."""
    passages = search(query=question, documents=documents, top=6)
    assert_type(passages, list[Passage])
    readings = map_(
        lambda p: accepted(
            reader(question=question, context=p.text),
            checks=quote & numbers & entailment,
            against=p.text,
            otherwise=[retry, escalate, abstain],
        ),
        passages,
    )
    assert_type(readings, list[Maybe[Reading]])
    assert_type(values(readings), list[Reading])
    return cite(question=question, readings=values(readings))


@workflow()
def right(question: str, documents: list[Document], urls: list[str]) -> Answer:
    readings = map_(lambda d: reader(question=question, context=d.text), documents)
    assert_type(readings, list[Reading])
    page = fetch(url=urls[0])
    assert_type(page, Page)
    nested = map_(lambda url: map_(lambda passage: passage.text, fetch(url=url).passages), urls)
    assert_type(nested, list[list[str]])
    assert_type(map_(fetch, urls), list[Page])
    assert_type(filter_(lambda passage: passage.score > 0.5, page.passages), list[Passage])
    assert_type(picker(question=question, context=""), list[Reading] | None)
    kind = classifier(text=question)
    guarded = when(kind.label == "math", calculator(question=question))
    assert_type(guarded, Maybe[Answer])
    assert_type(when(kind.label == "math", lambda: calculator(question=question)), Maybe[Answer])
    assert_type(when(kind.label == "math", require(guarded)), Maybe[Answer])
    assert_type(when(kind.label == "math", guarded), Maybe[Answer])
    assert_type(require(guarded), Answer)
    mixed = first_of(guarded, when(kind.label != "math", lambda: kind), otherwise=page)
    assert_type(mixed, Answer | Kind | Page)
    assert_type(first_of(guarded), Answer)
    assert_type(first_of(guarded, otherwise=lambda: page), Answer | Page)
    assert_type(
        first_of(guarded, when(kind.label != "math", lambda: kind), otherwise=lambda: page), Answer | Kind | Page
    )
    assert_type(all_of(kind.label == "math", length(documents) > 2, any_of(not_(contains(urls, question)))), bool)
    assert_type(answer_from_documents(question=question, documents=documents), Answer)
    assert_type(choose(has_value(readings[0].answer), 1, "x"), int | str)
    assert_type(or_else(readings[0].answer, "none"), str)
    assert_type(as_text(length(urls)), str)
    assert_type(build(Answer, text=question), Answer)
    return first_of(guarded, otherwise=writer(question=question, findings=readings))


@workflow()
def acceptance(question: str) -> Answer:
    plain = accepted(calculator(question=question), checks=numbers, against=question)
    assert_type(plain, Answer)
    assert_type(
        accepted(calculator(question=question), checks=numbers, accept=0.9, otherwise=[retry, escalate, ask]), Answer
    )
    assert_type(
        accepted(calculator(question=question), checks=numbers, accept=certified, otherwise=[abstain]), Maybe[Answer]
    )
    assert_type(
        accepted(calculator(question=question), checks=quote & numbers, otherwise=[retry, abstain]), Maybe[Answer]
    )
    assert_type(verify(plain, checks=numbers, against=question), Answer)
    assert_type(calculator.options(timeout=30, retry=3, after=[plain])(question=question), Answer)

    def better(previous: Answer | None) -> Answer:
        return calculator(question=choose(has_value(previous), question, ""))

    def counted(previous: Answer | None, turn: int) -> Answer:
        return calculator(question=as_text(turn))

    assert_type(
        plan(question, returns=Answer, agents=[calculator], tools=[search], workflows=[right], question=question),
        Answer,
    )
    assert_type(
        plan("go", returns=list[Answer], limits=PlanLimits(steps=3), repairs=2, router=calculator, fallback=[]),
        list[Answer],
    )
    assert_type(plan("go", returns=Answer, replans=2, streaming=False, larger=calculator, votes=5, cache=False), Answer)
    assert_type(
        plan("go", returns=Answer | None, fallback=None, timeout=3, retry=2, after=[plain], with_={"limits": 3}),
        Answer | None,
    )
    assert_type(loop(better, at_most=3, until=lambda answer: has_value(answer.text)), Answer)
    assert_type(loop(counted, at_most=3, until=lambda answer: has_value(answer.text)), Answer)
    return plain


@workflow()
def asked(question: str, amount: float, urls: list[str]) -> Answer:
    sure = ask("Refund " + as_text(amount) + "?", options=["yes", "no"], timeout=3600, fallback="no")
    assert_type(sure, str)
    assert_type(ask(question), str)
    assert_type(ask(question, returns=Literal["yes", "no"]), Literal["yes", "no"])
    assert_type(ask(question, returns=list[int] | None, fallback=None, retry=2, after=[sure]), list[int] | None)
    assert_type(when(sure == "no", lambda: ask("Why?")), Maybe[str])
    assert_type(map_(lambda url: ask(url, returns=bool), urls), list[bool])
    return ask(question, returns=Answer)


async def use(orchestra: Orchestra) -> None:
    result = await orchestra.run(right, question="a", documents=[], urls=[])
    assert_type(result.output, Answer)
    assert_type((await orchestra.run(writer, question="a", findings=[])).output, Answer)
    assert_type((await orchestra.run(search, "a", [], top=3)).output, list[Passage])
    run = await orchestra.options(idempotency_key="order-42").start(right, question="a", documents=[], urls=[])
    async for event in run:
        assert_type(event, RunEvent)
    assert_type((await run).output, Answer)
    assert_type(search(query="a", documents=[]), list[Passage])
