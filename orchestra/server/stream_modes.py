"""What a stream of a run sends, by its mode."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Final

from orchestra.server.agent_protocols.ag_ui_events import ag_ui_frames
from orchestra.server.services import Services
from orchestra.server.streams import (
    FrameSource,
    Position,
    StreamMode,
    event_frames,
    text_frames,
    value_frames,
)
from orchestra.server.verified_stream import verified_frames

FRAMES: Final[Mapping[StreamMode, FrameSource]] = {
    "events": event_frames,
    "values": value_frames,
    "text": text_frames,
    "ag-ui": ag_ui_frames,
}


def frames_from(mode: StreamMode, services: Services, run: str, position: Position) -> AsyncGenerator[bytes, None]:
    """Returns what a stream sends after a position."""
    if mode == "verified":
        return verified_frames(services, run, position)
    return FRAMES[mode](services, run, position.after)
