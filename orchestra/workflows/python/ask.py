"""Questions to people in Python: a person answers while the run waits, for days and at no cost.

    answer = ask("Refund " + as_text(order.amount) + "?", options=["yes", "no"])
    nights = ask("How many nights?", returns=int, timeout=3600, fallback=1)
    mended = accepted(reader(...), checks=quote, otherwise=[retry, ask])

Checkers see a text, or a value of the type that `returns` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, get_args, get_origin, overload

from typing_extensions import TypeForm, TypeVar

from orchestra.core.suggestions import closest_match
from orchestra.schema.types import Schema
from orchestra.workflows.model import AskNode, Retry
from orchestra.workflows.python.acceptance import RecoveryAction
from orchestra.workflows.python.calls import argument_type_error, finish_node
from orchestra.workflows.python.pending import plain_json, type_mismatch
from orchestra.workflows.python.placeholders import contains_placeholder, template_with_type
from orchestra.workflows.python.plan import return_type
from orchestra.workflows.python.scopes import NodePresence, require_scope, trace_error

T = TypeVar("T")

CLAUSES = ("options", "returns", "fallback", "timeout", "retry", "after")
"""The keywords of `ask`."""
_USAGE = "ask('Refund it?', options=['yes', 'no'])"
_STR: Schema = {"type": "string"}


class AskAction(RecoveryAction):
    """To ask a person: as it stands, in `otherwise`, about a value that is not accepted; called with a question, as a node of its own."""

    __slots__ = ()

    if TYPE_CHECKING:

        @overload
        def __call__(
            self,
            question: str,
            /,
            *,
            options: Sequence[str] = ...,
            fallback: str = ...,
            timeout: float = ...,
            retry: int | Retry = ...,
            after: Sequence[object] = (),
        ) -> str: ...
        @overload
        def __call__(
            self,
            question: str,
            /,
            *,
            returns: TypeForm[T],
            fallback: object = ...,
            timeout: float = ...,
            retry: int | Retry = ...,
            after: Sequence[object] = (),
        ) -> T: ...
        def __call__(self, question: str, /, **clauses: Any) -> Any:
            """What a person answers: a text, one of the options, or a value of the type that `returns` says."""
            raise NotImplementedError
    else:

        def __call__(self, *question, **clauses):
            """What a person answers: a text, one of the options, or a value of the type that `returns` says.

                answer = ask("Refund " + as_text(amount) + "?", options=["yes", "no"])

            `options` are the texts to choose from; `returns=Literal["yes", "no"]` gives the same ones, typed as such for checkers.
            `fallback` is the value where nobody answers: where a person declines, or `timeout` seconds have passed. `retry` and `after`
            are as for other calls.

            Raises `InputError`: W001 outside of a workflow, W010 for arguments that are none, W011 for a question that is no text, W016
            for a clause that is not one, W018 for a type that cannot be written.
            """
            scope = require_scope("ask(...)")
            if len(question) != 1:
                said = "has no question" if not question else f"takes one question, got {len(question)}"
                raise trace_error("W010", f"ask() {said}: it comes first, and everything else by name", hint=_USAGE)
            if unknown := next((name for name in clauses if name not in CLAUSES), None):
                near = closest_match(unknown, CLAUSES)
                raise trace_error(
                    "W010", f"ask() has no {unknown!r}", hint=f"did you mean {near!r}?" if near else _USAGE
                )
            text, have = template_with_type(question[0])
            if reason := type_mismatch(have, _STR):
                raise argument_type_error("ask(question)", question[0], have, _STR, reason)
            fields, schema = {"ask": text}, _STR
            if "options" in clauses and "returns" in clauses:
                raise trace_error(
                    "W016",
                    "ask() takes options, which are texts, or a type that it returns",
                    hint="leave one of them out",
                )
            if "options" in clauses:
                fields["options"] = _parse_options(clauses.pop("options"))
            elif (wanted := clauses.pop("returns", str)) is not str:
                if get_origin(wanted) is Literal and all(isinstance(one, str) for one in get_args(wanted)):
                    fields["options"] = _parse_options(get_args(wanted))
                else:
                    fields["returns"], schema = return_type(wanted, scope)
            if "options" in fields:
                schema = {"enum": [*fields["options"]]}
            draft = scope.add_node(AskNode, "asked", schema, **fields)
            draft.presence = NodePresence.ALWAYS if "fallback" in clauses else NodePresence.IF_ANSWERED
            return finish_node(clauses, draft, scope, "asked", "ask(fallback=...)")


def _parse_options(given: Any) -> tuple[str, ...]:
    """The texts to choose from. Raises `InputError` W016 for what is no list of texts that are known now."""
    if contains_placeholder(given):
        raise trace_error(
            "W016",
            "options=[...] are known when the workflow is written, and this is a value of it",
            hint="options=['yes', 'no']",
        )
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(one, str) for one in given):
        raise trace_error(
            "W016",
            f"options={plain_json(given)!r} is no list of texts",
            hint="options=['yes', 'no'], or returns=... a type",
        )
    if not given:
        raise trace_error("W016", "options=[] has none to choose from", hint="leave it out, and any text is an answer")
    return tuple(given)


ask: Final = AskAction("ask")
"""A person is asked: in `otherwise` shown the value that was not accepted, for the right one; called, a question. The run waits for the
answer, for days and at no cost."""
