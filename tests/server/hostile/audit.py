"""What a reply to a hostile request must not be."""

from __future__ import annotations

import re
from collections.abc import Iterator

from orchestra.server.limits import SECURITY_HEADERS
from orchestra.server.problems import MEDIA_TYPE, explanations
from orchestra.server.streams import EVENT_STREAM
from tests.server.hostile.exchange import Attack, Reply
from tests.server.hostile.world import CANARY

TRACES = ("Traceback (most recent call last)", 'File "/', "site-packages", "orchestra/server/")
END_OF_CHUNKS = b"\r\n0\r\n\r\n"
"""The end of a stream: the run has ended, such as by another attack. What comes then is the next request."""
_CODE = re.compile(r"[A-Z]{1,3}\d{3}")
PROBLEM_FIELDS = ("type", "title", "status", "detail", "code", "hint", "pointer")
FAULTS_OF_THE_LOG = ("Traceback", "request failed", "Exception", "Task was destroyed")


def violations(attack: Attack, reply: Reply, folder: str) -> Iterator[str]:
    """Yields everything that is wrong with a reply."""
    text = (reply.body + reply.more).decode("utf-8", "replace")
    if reply.status >= 500:
        yield f"status {reply.status}: {text[:300]}"
    if attack.statuses and reply.status not in attack.statuses:
        yield f"status {reply.status}, not {sorted(attack.statuses)}: {text[:200]}"
    for trace in (*TRACES, folder, CANARY):
        if trace in text:
            yield f"the reply has {trace!r}"
    if attack.is_single and (second := re.search(rb"(^|\n)HTTP/1\.", reply.more)):
        first = reply.body + reply.more[: second.end() - len(b"HTTP/1.")]
        if not (reply.header("content-type").startswith(EVENT_STREAM) and first.endswith(END_OF_CHUNKS)):
            yield f"there was a second reply: {reply.more[:80]!r} after {first[-80:]!r}"
    if reply.status == 0:
        return
    if any("injected" in name for name, _ in reply.headers):
        yield "a header was injected"
    if reply.header("access-control-allow-origin"):
        yield "another web page may read the reply"
    for name, value in SECURITY_HEADERS.items():
        if reply.header(name) != value:
            yield f"the header {name} is {reply.header(name)!r}"
    if 400 <= reply.status < 500 and not attack.data.startswith(b"HEAD "):
        yield from _problem_violations(attack, reply)


def _problem_violations(attack: Attack, reply: Reply) -> Iterator[str]:
    problem = reply.json()
    if isinstance(problem, dict) and "jsonrpc" in problem:  # The form of MCP and A2A, whose codes are negative numbers.
        if not isinstance(problem["error"]["code"], int) or not problem["error"]["message"]:
            yield f"the error of JSON-RPC has no code or no message: {reply.body[:200]!r}"
        return
    if isinstance(problem, dict) and isinstance(problem.get("error"), dict):  # The form of OpenAI's API.
        problem = {**problem["error"], "status": reply.status, "pointer": problem["error"].get("param") or ""}
    elif not isinstance(problem, dict) or reply.header("content-type") != MEDIA_TYPE:
        yield f"the error is {reply.header('content-type')!r}: {reply.body[:200]!r}"
        return
    elif absent := [name for name in PROBLEM_FIELDS if name not in problem]:
        yield f"the error has no {absent}"
        return
    if problem["status"] != reply.status:
        yield f"the error has the status {problem['status']}, the reply {reply.status}"
    code, hint, pointer = problem["code"], problem["hint"], problem["pointer"]
    if not _CODE.fullmatch(code) or code not in explanations():
        yield f"nothing explains the code {code!r}"
    if not hint:
        yield f"{code} has no hint: {reply.body[:300]!r}"
    if attack.code and code != attack.code:
        yield f"the code is {code}, not {attack.code}: {reply.body[:300]!r}"
    if attack.pointer is not None and pointer != attack.pointer:
        yield f"the place is {pointer!r}, not {attack.pointer!r}"
