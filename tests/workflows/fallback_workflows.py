"""Workflow functions whose last arm runs only if no earlier one has a value."""

from __future__ import annotations

from pydantic import BaseModel

from orchestra import abstain, accepted, first_of, loop, map_, not_, or_else, tool, when, workflow


@tool(effect="once")
def pay(text: str) -> str:
    """Pays."""
    return f"paid {text}"


class Receipt(BaseModel):
    """What a payment gives."""

    id: str


@tool(effect="once")
def receipt(text: str) -> Receipt:
    """Pays, and gives a receipt."""
    return Receipt(id=f"paid {text}")


@tool(effect="once")
def refuse(text: str) -> str:
    """Refuses; of `boom` it fails."""
    return "refused" if text != "boom" else str(1 // 0)


@tool(effect="pure")
def echo(text: str) -> str:
    """Gives a text back; of `boom` it fails."""
    return text if text != "boom" else str(1 // 0)


@tool(effect="pure")
def fine(text: str) -> bool:
    """Whether a text is `ok`."""
    return text == "ok"


@workflow
def branched(n: int, text: str) -> str:
    """An `if` with an `else`."""
    done = first_of(when(n > 3, lambda: refuse(text=text)), otherwise=lambda: pay(text=echo(text=text)))
    return echo(text=done)


@workflow
def contrary(n: int, text: str) -> str:
    """The same, said by two conditions."""
    done = first_of(when(n > 3, lambda: refuse(text=text)), when(not_(n > 3), lambda: pay(text=text)))
    return echo(text=done)


@workflow
def chained(n: int, text: str) -> str:
    """With an `elif`, within another choice."""
    found = when(
        text != "",
        lambda: first_of(
            when(n > 3, lambda: refuse(text=text)),
            when(n > 2, lambda: echo(text=text)),
            otherwise=lambda: pay(text="chained"),
        ),
    )
    return echo(text=first_of(found, otherwise="nothing"))


@workflow
def withheld(text: str) -> str:
    """An alternative replaces a value that a check rejects."""
    maybe = accepted(echo(text=text), checks=fine, otherwise=[abstain])
    done = first_of(maybe, otherwise=lambda: pay(text=text))
    return echo(text="got " + done)


@workflow
def nested(n: int, text: str) -> str:
    """A condition on a value that is there under another one only."""
    found = when(n > 3, lambda: when(echo(text=text) == "ok", lambda: refuse(text=text)))
    return echo(text=first_of(found, otherwise=lambda: pay(text=text)))


@workflow
def fallen(text: str) -> str:
    """A fallback that is a call."""
    x = echo.options(fallback=lambda: pay(text="instead"))(text=text)
    return echo(text="got " + x)


@workflow
def mapped(texts: list[str]) -> list[str]:
    """The same for each element."""
    return map_(lambda text: echo.options(fallback=lambda: pay(text="instead"))(text=text), texts)


@workflow
def plain(n: int, text: str) -> str:
    """A lambda that calls nothing gives a plain value."""
    maybe = accepted(echo(text=text), checks=fine, otherwise=[abstain])
    return echo(text=first_of(maybe, otherwise=lambda: "no " + text))


@workflow
def listed(n: int, texts: list[str]) -> list[str]:
    """One list or another."""
    found = first_of(
        when(n > 3, lambda: map_(lambda text: refuse(text=text), texts)),
        otherwise=lambda: map_(lambda text: pay(text=text), texts),
    )
    return map_(lambda text: echo(text=text), found)


@workflow
def turned(n: int, text: str) -> str:
    """In each turn of a loop."""

    def turn(previous: str | None, turn: int) -> str:
        return first_of(when(turn > n, lambda: refuse(text=text)), otherwise=lambda: pay(text=or_else(previous, "-")))

    return echo(text=loop(turn, at_most=2, until=lambda value: value == "refused"))


@workflow
def other(n: int, text: str) -> str:
    """A plain value under the opposite condition does not replace a failed one."""
    return echo(text=first_of(when(n > 3, lambda: refuse(text=text)), otherwise=lambda: "-"))


@workflow
def elif_(n: int, m: int) -> str:
    """As the help for `if`, `elif` and `else` says it: one of three."""
    return first_of(
        when(n > 3, lambda: refuse(text="a")),
        otherwise=lambda: first_of(when(m > 3, lambda: pay(text="b")), otherwise=lambda: echo(text="c")),
    )


STANDING = (other, elif_, listed, turned, branched, contrary, chained, withheld, nested, fallen, mapped, plain)
