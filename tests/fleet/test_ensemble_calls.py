"""Calls to ensembles: one call for the engine, with the usage of all members."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestra.agents.registry import Registry
from orchestra.core.events import Usage
from orchestra.core.protocols import CallError, CallRequest, CallResult
from orchestra.fleet.ensemble_calls import call_ensemble

MEMBER = "name: {0}\ninput: {{text: str}}\noutput: str\nprompt: prompt.md\n"
BOTH = "name: both\nkind: ensemble\nmembers: [first, second]\ninput: {text: str}\noutput: str\n"


@pytest.mark.parametrize(("server", "all_of_them"), [("far", "near+far"), ("near", "near"), ("", "near")])
async def test_ensemble_failure_usage_covers_all_servers(tmp_path: Path, server: str, all_of_them: str) -> None:
    for name in ("first", "second", "both"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "agent.yaml").write_text(BOTH if name == "both" else MEMBER.format(name))
        (tmp_path / name / "prompt.md").write_text("{{ text }}")
    (tmp_path / "both" / "prompt.md").unlink()
    card = Registry.load((tmp_path,)).cards["both"]

    async def do(call: CallRequest) -> CallResult | CallError:
        if call.name == "first":
            return CallResult(
                value="yes",
                usage=Usage(prompt_tokens=9, output_tokens=2, calls=1),
                server="near",
                model="small",
                confidence=0.9,
            )
        return CallError(
            code="F206", reason="it broke off", usage=Usage(prompt_tokens=8, output_tokens=1, calls=1), server=server
        )

    refused = await call_ensemble(
        CallRequest(run="r", node="a", attempt=1, kind="agent", name="both", inputs={"text": "?"}), card, do
    )
    assert isinstance(refused, CallError)
    assert (refused.usage.prompt_tokens, refused.usage.output_tokens, refused.usage.calls) == (17, 3, 1)
    assert (refused.server, refused.model) == (all_of_them, "small")
