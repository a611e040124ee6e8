# mypy: ignore-errors
# pyright: basic
"""Workflow functions with an invalid plan. Each docstring has the error: code, message, marked text, and hint."""

from __future__ import annotations

from orchestra import Answer, Document, PlanLimits, plan, when
from tests.workflows.ensemble import calculator, reader, search


def plan_of_names(question: str) -> Answer:
    """W016: agents=[...] takes agents, and 'reader' is a text
    at: plan(question, returns=Answer, agents=["reader"])
    help: agents=[reader], where reader = agent('reader', Input, Output)
    """
    return plan(question, returns=Answer, agents=["reader"])


def plan_of_another_kind(question: str) -> Answer:
    """W016: agents=[...] takes agents, and search is a tool
    at: plan(question, returns=Answer, agents=[reader, search])
    help: tools=[search]
    """
    return plan(question, returns=Answer, agents=[reader, search])


def plan_of_one(question: str) -> Answer:
    """W016: tools=... takes a list, and search is one tool
    at: plan(question, returns=Answer, tools=search)
    help: tools=[search]
    """
    return plan(question, returns=Answer, tools=search)


def plan_of_a_function(question: str) -> Answer:
    """W016: tools=[...] takes tools, and 'len' is none
    at: plan(question, returns=Answer, tools=[len])
    help: @tool(effect=...) makes one of a function
    """
    return plan(question, returns=Answer, tools=[len])


def plan_misspelt(question: str) -> Answer:
    """W010: plan() has no 'tool', and the argument is not a value that a plan can read
    at: plan(question, returns=Answer, tool=[search])
    help: did you mean 'tools'?
    """
    return plan(question, returns=Answer, tool=[search])


def plan_misspelt_limits(question: str) -> Answer:
    """W010: plan() has no 'limit', and the argument is not a value that a plan can read
    at: plan(question, returns=Answer, limit=PlanLimits(steps=3))
    help: did you mean 'limits'?
    """
    return plan(question, returns=Answer, limit=PlanLimits(steps=3))


def plan_without_a_type(question: str) -> Answer:
    """W010: plan() has no return type
    at: plan(question, agents=[reader])
    help: plan(question, returns=Answer, agents=[reader], tools=[search], question=question)
    """
    return plan(question, agents=[reader])


def plan_without_a_goal(question: str) -> Answer:
    """W010: plan() has no goal: it comes first, and everything else by name
    at: plan(goal=question, returns=Answer)
    help: plan(question, returns=Answer, agents=[reader], tools=[search], question=question)
    """
    return plan(goal=question, returns=Answer)


def plan_for_a_list(question: str, documents: list[Document]) -> Answer:
    """W011: plan(goal) takes str, got list[Document]
    at: plan(documents, returns=Answer)
    help: map_(lambda item: ... item.source ..., documents) for each element, or documents[0].source for the first
    """
    return plan(documents, returns=Answer)


def plan_of_a_value(question: str) -> Answer:
    """W016: returns=... takes a type, and this is a value
    at: plan("go", returns=question)
    help: returns=Answer
    """
    return plan("go", returns=question)


def plan_of_a_named_type(question: str) -> Answer:
    """W016: returns=... takes a type, and 'Answer' is a text
    at: plan("go", returns="Answer")
    help: returns=Answer
    """
    return plan("go", returns="Answer")


def plan_with_loose_limits(question: str) -> Answer:
    """W016: limits=... limits the size of the plan, and {'steps': 3} is not a PlanLimits
    at: plan(question, returns=Answer, limits={"steps": 3})
    help: limits=PlanLimits(steps=8, width=4)
    """
    return plan(question, returns=Answer, limits={"steps": 3})


def plan_with_many_repairs(question: str) -> Answer:
    """W016: repairs=11 is no number of repairs
    at: plan(question, returns=Answer, repairs=11)
    help: repairs=2, from 0 to 10
    """
    return plan(question, returns=Answer, repairs=11)


def plan_with_no_votes(question: str) -> Answer:
    """W016: votes=0 is no number of votes
    at: plan(question, returns=Answer, votes=0)
    help: votes=5, from 1 to 16
    """
    return plan(question, returns=Answer, votes=0)


def plan_with_an_empty_shortlist(question: str) -> Answer:
    """W016: shortlist=0 is no number of skills
    at: plan(question, returns=Answer, shortlist=0)
    help: shortlist=16, from 1 to 100
    """
    return plan(question, returns=Answer, shortlist=0)


def plan_that_copies_a_text(question: str) -> Answer:
    """W016: copied='all' is neither True nor False
    at: plan(question, returns=Answer, copied="all")
    help: copied=True
    """
    return plan(question, returns=Answer, copied="all")


def plan_with_true_replans(question: str) -> Answer:
    """W016: replans=True is no number of replans
    at: plan(question, returns=Answer, replans=True)
    help: replans=2, from 0 to 10
    """
    return plan(question, returns=Answer, replans=True)


def plan_that_caches_a_number(question: str) -> Answer:
    """W016: cache=0 is neither True nor False
    at: plan(question, returns=Answer, cache=0)
    help: cache=False
    """
    return plan(question, returns=Answer, cache=0)


def plan_with_a_larger_tool(question: str) -> Answer:
    """W016: larger=search is no agent
    at: plan(question, returns=Answer, larger=search)
    help: larger='planner', or the agent itself
    """
    return plan(question, returns=Answer, larger=search)


def plan_by_a_tool(question: str) -> Answer:
    """W016: router=search is no agent
    at: plan(question, returns=Answer, router=search)
    help: router='router', or the agent itself
    """
    return plan(question, returns=Answer, router=search)


def plan_with_a_keyword(question: str) -> Answer:
    """W018: a plan cannot read a value that is called 'in'
    at: plan(question, returns=Answer, with_={"in": question})
    help: call it in_
    """
    return plan(question, returns=Answer, with_={"in": question})


def plan_with_a_value_twice(question: str) -> Answer:
    """W010: plan() got the value 'text' twice
    at: plan(question, returns=Answer, text=question, with_={"text": "x"})
    help: leave it out of with_, or leave text=... out
    """
    return plan(question, returns=Answer, text=question, with_={"text": "x"})


def plan_with_what_may_be_missing(question: str) -> Answer:
    """W009: maybe may be skipped, and here a value is needed
    at: plan(question, returns=Answer, answer=maybe)
    help: first_of(maybe, otherwise=...); or require(maybe), and what uses it is skipped with it
    """
    maybe = when(question != "", calculator(question=question))
    return plan(question, returns=Answer, answer=maybe)


def plan_with_a_wrong_fallback(question: str) -> Answer:
    """W011: plan(fallback=...) takes Answer, got 'none'
    at: plan(question, returns=Answer, fallback="none")
    """
    return plan(question, returns=Answer, fallback="none")


def plan_without_its_field(question: str) -> Answer:
    """W002: solved: Answer has no field 'txt'; did you mean 'text'?
    at: solved.txt
    """
    solved = plan(question, returns=Answer, agents=[calculator])
    return calculator(question=solved.txt)


def plan_of_hearsay(question: str) -> Answer:
    """W016: hearsay=... lists names of values that the plan may read, and 'mail' is none
    at: plan(question, returns=Answer, agents=[reader], hearsay=["mail"], question=question)
    help: hearsay=['question']
    """
    return plan(question, returns=Answer, agents=[reader], hearsay=["mail"], question=question)
