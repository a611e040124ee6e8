"""The way of a request through the files of the package, as `python -m tests.architecture.request_path` traces it."""

from __future__ import annotations

import pytest

from tests.architecture.request_path import trace_ask, trace_planning, trace_run

pytestmark = pytest.mark.slow

MAX_REENTRIES = 10
"""Call sites that may go back into a file on the stack while a request is planned and answered."""


def test_ask_takes_path_of_run_to_http_request() -> None:
    asked, output = trace_ask()
    ran, _ = trace_run()
    assert output.startswith("A line.\n")
    assert asked[0] == "cli/typer_adapter.py"
    assert asked[-1] == "fleet/http/client.py"
    assert asked == ["cli/run/plan.py" if name == "cli/run/run.py" else name for name in ran]


def test_planning_rarely_goes_back_into_file_on_stack() -> None:
    sites = trace_planning().sites
    assert len(sites) <= MAX_REENTRIES, sorted(sites)
    planning = ("app/planning.py", "engine/kinds/", "router/")
    assert [site for site in sites if site[2].startswith(planning)] == [], "planning has one direction"
