"""Adapters of a server that restarts while one is being loaded."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from orchestra.agents.card import Card
from orchestra.core.protocols import CallResult
from orchestra.fleet.supervisor.folders import Folders

from .calling import TEXT, call, only
from .test_local_servers import adapter, kept


async def test_server_restart_during_adapter_load_keeps_call(faked: Any, folders: Folders, tmp_path: Path) -> None:
    config = kept(folders, device="cpu", max_loras=2, adapters={"skill": str(adapter(tmp_path / "skill"))})
    card = Card.declare("writer", input=TEXT, output={"type": "string"}, prompt="{{ text }}", adapter="skill")
    async with faked(config, {"writer": card}) as fleet:

        async def moving() -> None:
            while True:  # the address changes at each moment of the load
                fleet._adapters.forget("m")
                await asyncio.sleep(0)

        moves = asyncio.create_task(moving())
        done = await only(fleet, call("writer"))
        moves.cancel()
        assert isinstance(done, CallResult)
        assert not fleet._adapters.is_loaded("m", card), "it is looked for again at the next call"
        assert isinstance(await only(fleet, call("writer")), CallResult)
        assert fleet._adapters.is_loaded("m", card)
