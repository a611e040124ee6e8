"""A run as one HTML file, with the studio in it.

`scripts/build_studio.py` builds the files of `orchestra/server/studio/` from `studio/`. A user needs no Node.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from pathlib import Path

import msgspec

from orchestra.app.html.content import RunContent
from orchestra.app.html.render import StudioParts, render_page
from orchestra.app.run_record import RunRecord, encode_record

FOLDER = Path(__file__).parents[2] / "server" / "studio"
"""The built files. The package `orchestra.server` is not imported, because it needs the extra `server`."""


@cache
def _read_file(name: str) -> str:
    return (FOLDER / name).read_text("utf-8")


def render_saved_run(content: RunContent, record: RunRecord) -> str:
    """Returns a run as one HTML file: the studio with the record of the run, and the plain page for readers without
    JavaScript.

    The policy of the page permits this one script by its digest, and no connection.
    """
    script = _read_file("studio.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = StudioParts(
        style=_read_file("studio.css"),
        script=script,
        policy=f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'",
        record=to_script_data(record),
    )
    return render_page(content, parts)


def to_script_data(record: RunRecord) -> str:
    """Returns the record as JSON that is safe inside of a `script` element: ASCII, and without `<`, `>` and `&`."""
    text = json.dumps(msgspec.json.decode(encode_record(record)), separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
