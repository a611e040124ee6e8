"""Usage: the sum over a run equals the usage of its calls."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from orchestra.app.costs import unpriced_server
from orchestra.core.events import NO_USAGE, AttemptFinished, AttemptStarted, Event, RunFinished, RunStarted, Usage
from orchestra.core.outcomes import ValueOutcome
from orchestra.fleet.config import parse_config
from orchestra.journal.usage import decode_usage, encode_usage, usage_of

PRICES = (
    "{prompt: 0, output: 2}",
    "{prompt: 1, output: 0}",
    "{prompt: 0, output: 0}",
    "{prompt: 0, output: 0, cached: 1}",
)
FLEET = parse_config(
    "schema: orchestra/fleet/v1\nname: several\nservers:\n"
    + "".join(
        f'  s{n}: {{endpoint: "http://127.0.0.1:9/v1", model: m, price: {price}}}\n' for n, price in enumerate(PRICES)
    )
    + '  gateway: {endpoint: "http://127.0.0.1:9/v1", model: m}\nmodels: {base: s0}\n',
    "several.yaml",
).servers
TOKENS = st.sampled_from([0, 0, 3, 9])
USAGES = st.builds(Usage, TOKENS, TOKENS, TOKENS, st.just(1), st.just(0.5), st.just(0), st.sampled_from([0.0, 0.25]))
CALLS = st.lists(st.tuples(st.sampled_from(["s0", "s1", "s2", "s3", "gateway", "s0+gateway", ""]), USAGES), max_size=8)


def run_of(calls: list[tuple[str, Usage]], *, ended: bool = True) -> list[Event]:
    """Returns a run with these calls to these servers."""
    made: list[Event] = [RunStarted(seq=1, at=1.0, run="r", workflow="w", graph="", inputs={})]
    for number, (server, usage) in enumerate(calls):
        at = len(made) + 1
        made.append(
            AttemptFinished(
                seq=at, at=1.0, node=f"n{number}", attempt=1, name="reader", server=server, model="m", usage=usage
            )
        )
    return [*made, RunFinished(seq=len(made) + 1, at=2.0, status="done", outcome=ValueOutcome(1))] if ended else made


@given(CALLS)
def test_usage_sum_has_price_of_calls(calls: list[tuple[str, Usage]]) -> None:
    priced, wanted = unpriced_server(FLEET), dict[str, int]()
    for server, usage in calls:
        if name := priced(server, usage):
            wanted[name] = wanted.get(name, 0) + 1
    used, found = usage_of(run_of(calls)), dict[str, int]()
    assert used is not None
    for one in used.calls:
        if name := priced(one.server, one.usage):
            found[name] = found.get(name, 0) + one.finished
    assert found == wanted
    assert sum((one.usage for one in used.calls), NO_USAGE) == sum((usage for _, usage in calls), NO_USAGE)


@given(CALLS, st.booleans())
def test_usage_round_trips(calls: list[tuple[str, Usage]], ended: bool) -> None:
    used = usage_of(run_of(calls, ended=ended))
    assert used is not None
    assert decode_usage(encode_usage(used)) == used
    assert used.status == ("done" if ended else "")


def test_usage_repeated_call_counts_open_call() -> None:
    made = run_of([], ended=False)
    made += [AttemptStarted(seq=seq, at=1.0, node="a", attempt=1, name="reader") for seq in (2, 3, 4)]
    used = usage_of(made)
    assert used is not None
    assert sum(one.open for one in used.calls) == 3


def test_usage_without_first_event_is_none() -> None:
    assert usage_of(run_of([])[1:]) is None
    assert msgspec.json.decode(encode_usage(usage_of(run_of([]))), type=list)[0] == "w"
