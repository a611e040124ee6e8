"""The written list of attacks. Each function returns those of one kind, for a world with an attacker and a victim."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import msgspec

from orchestra.server.application import all_endpoints
from orchestra.server.endpoints import Endpoint
from tests.server.hostile.exchange import Attack, bearer, json_message, message
from tests.server.hostile.target import MAX_BODY, MAX_UPLOAD
from tests.server.hostile.world import PUBLIC, World
from tests.server.servers import INPUTS

BAD: Final = frozenset(range(400, 500))
"""Any refusal."""
FINE: Final = frozenset({200, 201, 202, 204})
EXISTS: Final = frozenset({*FINE, 404})
"""Right for a thing that another attack may have deleted, by a right request."""
AFTER_A_STREAM: Final = frozenset({0, 200, 400, 431})
"""Right for bytes that may arrive before the stream has begun."""
CLOSED_OR_BAD: Final = frozenset({0, *BAD})
Headers = Sequence[tuple[str, str]]
TEXTS: Final[Mapping[str, str]] = {
    "parent folder": "..%2f..%2f..%2fetc%2fpasswd",
    "parent folder, encoded twice": "%252e%252e%252fetc",
    "overlong dots": "%c0%ae%c0%ae",
    "null byte": "%00",
    "null byte and ending": "a%00.json",
    "line breaks": "a%0d%0aX-Injected:%201%0d%0a%0d%0a",
    "no UTF-8": "%ff%fe",
    "SQL": "a'%20OR%20'1'='1",
    "template": "%7B%7B7*7%7D%7D$%7B7*7%7D",
    "backslashes": "..%5c..%5cwindows",
    "very long": "a" * 8000,
    "long and odd": "%F0%9F%92%A3" * 500,
    "matrix parameter": "a;admin=1",
    "script": "%3Cscript%3Ealert(1)%3C%2Fscript%3E",
    "digits beyond int": "9" * 5000,
}
JUNK: Final[tuple[Any, ...]] = (
    None, True, -1, 0, 1.5, 1e308, -1e308, 2**63, 2**64, 10**40, "", "x", "\x00", "💣" * 100, "9" * 5000,
    "../../etc/passwd", "\u202e\u0000", [], [[]], ["x"] * 1000, {}, {"a": {"b": 1}}, {"$file": "file_x"},
    {"$file": {"$file": 1}}, {"": ""}, {"__proto__": {"admin": True}}, {"orchestra.tenant": "beta"},
)  # fmt: skip
NUMBERS: Final = ("0", "-1", "201", "1e9", "NaN", "Infinity", "²", "٣", "0x10", "9" * 30, "9" * 5000, "", " 1", "1;2")
TIMES: Final = (
    "999999w", "999999d", "1e300", "-1e300", "nan", "inf", "-1", "0001-01-01", "9999-12-31T23:59:59", "24h24h",
    "1969-12-31T00:00:00+23:59", "now'--", "9" * 400, "253402300799", "-62135596800",
)  # fmt: skip
PRIVATE_URLS: Final = (
    "http://example.com/", "https://127.0.0.1/", "https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://10.0.0.1/",
    "https://169.254.169.254/latest/meta-data", "https://[fe80::1]/", "https://[64:ff9b::7f00:1]/", "https://0.0.0.0/",
    "https://user:password@example.com/", "https://example.com:0/", "https://example.com:99999/", "https:///x",
    "file:///etc/passwd", "gopher://127.0.0.1/", "javascript:alert(1)", "https://exa\nmple.com/", "https://[::1",
    "https://192.168.1.1#x", "", "https://" + "a" * 3000, "https://224.0.0.1/", "https://[2002:7f00:1::]/",
)  # fmt: skip
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "HEAD")


def all_attacks(world: World, canary_port: int) -> dict[str, list[Attack]]:
    """Returns the attacks by kind. Webhooks to this machine go to `canary_port`, where no process may connect."""
    kinds: Mapping[str, Callable[[World], Iterable[Attack]]] = {
        "paths": paths,
        "foreign ids": foreign_ids,
        "methods": methods,
        "hosts": hosts,
        "other pages": other_pages,
        "headers": headers,
        "credentials": credentials,
        "queries": queries,
        "bodies": bodies,
        "mistyped fields": mistyped_fields,
        "oversized": oversized,
        "compressed": compressed,
        "framing": framing,
        "smuggling": smuggling,
        "slow": slow,
        "leaving": leaving,
        "streams": streams,
        "uploads": uploads,
        "webhooks": lambda one: webhooks(one, canary_port),
        "runs": runs,
    }
    return {kind: list(make(world)) for kind, make in kinds.items()}


def own(world: World, *more: tuple[str, str]) -> list[tuple[str, str]]:
    """Returns the headers of the attacker."""
    return [bearer(world.attacker.key), *more]


def start(world: World, body: Any, *more: tuple[str, str], path: str = "/api/runs") -> bytes:
    """Returns a request with a JSON body of the attacker."""
    return json_message("POST", path, body, own(world, *more))


def with_parameters() -> list[Endpoint]:
    """The routes whose path names something."""
    return [one for one in all_endpoints() if "{" in one.path]


def with_body() -> list[Endpoint]:
    """The routes that read JSON."""
    return [one for one in all_endpoints() if one.body is not None]


def paths(world: World) -> Iterator[Attack]:
    """Odd texts at every place of every path."""
    for name, text in TEXTS.items():
        for one in with_parameters():
            path = re.sub(r"{\w+(:\w+)?}", text, one.path, count=1)
            path = re.sub(r"{(\w+)(:\w+)?}", lambda match: world.attacker.ids.get(match[1], "read"), path)
            body = b"{}" if one.body is not None else None
            data = message(one.method, path, own(world, ("Content-Type", "application/json")), body)
            yield Attack(f"{name} in {one.method} {one.path}", data, BAD)
        for path in (f"/{text}", f"/api/{text}", f"/assets/{text}", f"/docs/{text}", f"/runs/{text}"):
            yield Attack(f"{name} in {path[:20]}", message("GET", path, own(world)), BAD)
    for path in (
        "//evil.example/%2e%2e",
        "/api//runs",
        "/.git/config",
        "/studio.js/..%2f..%2fkeys.py",
        "/%2e%2e/keys.py",
    ):
        yield Attack(f"path {path}", message("GET", path, own(world)), BAD)
    yield Attack("path of the studio with a null byte", message("GET", "/index.html%00.png"), BAD)


def foreign_ids(world: World) -> Iterator[Attack]:
    """What belongs to the victim, by its right id, with the attacker's credential."""
    for one in with_parameters():
        if set(re.findall(r"{(\w+)", one.path)) <= set(PUBLIC):
            continue
        path = world.victim.path(one)
        path += {"diff_runs": f"?other={world.victim.ids['run']}"}.get(one.name, "")
        body = BODIES.get(one.name, {}) if one.body is not None else None
        data = (
            message(one.method, path, own(world)) if body is None else json_message(one.method, path, body, own(world))
        )
        yield Attack(f"foreign id in {one.method} {one.path}", data, frozenset({404}), "S009")
    victim = world.victim.ids
    for path in ("/api/files", "/api/threads", "/api/schedules", "/api/webhooks", "/api/batches", "/api/runs"):
        kind = path.removeprefix("/api/").removesuffix("es" if path.endswith("batches") else "s")
        data = message("GET", f"{path}?cursor={victim[kind]}", own(world))
        yield Attack(f"foreign cursor in {path}", data, frozenset({422}), "S002", "cursor")
    other = message("GET", f"/api/runs/{world.attacker.ids['run']}/diff?other={victim['run']}", own(world))
    yield Attack("foreign run in a comparison", other, frozenset({404}), "S009")
    for name in ("$file", "$file_text"):
        body = {"workflow": "answer", "inputs": {"question": {name: victim["file"]}, "documents": []}}
        yield Attack(f"foreign {name}", start(world, body), frozenset({404}), "S009", "/inputs/question")
    yield Attack(
        "foreign file of a batch", start(world, {"workflow": "answer", "file": victim["file"]}, path="/api/batches"),
        frozenset({404}), "S009",
    )  # fmt: skip
    body = {
        "model": "approve",
        "messages": [{"role": "user", "content": "yes"}],
        "orchestra": {"answer_to": victim["waiting"]},
    }
    data = start(world, body, path="/v1/chat/completions")
    yield Attack("foreign question over the OpenAI API", data, frozenset({404}), "S009")
    body = {"model": "answer", "input": "When?", "previous_response_id": victim["run"]}
    yield Attack("foreign response", start(world, body, path="/v1/responses"), frozenset({404}), "S009")
    yield Attack(
        "foreign runs in a list to cancel", start(world, {"ids": [victim["waiting"]]}, path="/api/runs/cancel"), FINE
    )
    tags = {"workflow": "answer", "inputs": INPUTS, "options": {"tags": {"orchestra.tenant": "beta"}}}
    yield Attack("tag of the victim", start(world, tags), frozenset({422}), "S015", "/options/tags")


BODIES: Final[Mapping[str, Any]] = {
    "answer_question": {"value": "yes"},
    "start_thread_run": {"workflow": "answer", "inputs": INPUTS},
}


def methods(world: World) -> Iterator[Attack]:
    """Methods that a path does not have, and headers that would replace the method."""
    known: dict[str, set[str]] = {}
    for one in all_endpoints():
        known.setdefault(one.path, set()).add(one.method)
    for path, allowed in known.items():
        address = re.sub(r"{(\w+)(:\w+)?}", lambda match: world.attacker.ids.get(match[1], "read"), path)
        for method in METHODS:
            if method not in allowed and not (method == "HEAD" and "GET" in allowed) and ":path" not in path:
                data = message(method, address, own(world))
                yield Attack(f"{method} {path}", data, frozenset({404, 405}))
    run = world.attacker.ids["run"]
    for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "_method"):
        data = message("GET", f"/api/runs/{run}", own(world, (name, "DELETE")))
        yield Attack(f"{name}: DELETE", data, frozenset({200, 404}))
    yield Attack(
        "_method", message("GET", f"/api/runs/{run}?_method=DELETE", own(world)), frozenset({422}), "S002", "_method"
    )
    for name in ("X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Path"):
        data = message("GET", "/healthz", [(name, "/metrics")])
        yield Attack(f"{name}: /metrics", data, frozenset({200}))


def hosts(world: World) -> Iterator[Attack]:
    """Hosts for which the server does not answer, and several."""
    for host in (
        "evil.example", "localhost.evil.example", "evil.example:80", "localhost@evil.example", "[::1",
        "127.0.0.1.nip.io",
        "localhost, evil.example", "169.254.169.254", "LOCALHOST:1:2", "a" * 3000, "%6cocalhost", "local\u0131host",
    ):  # fmt: skip
        yield Attack(f"host {host[:40]}", message("GET", "/api", own(world), host=host), frozenset({400, 421}))
    yield Attack("no host", message("GET", "/api", own(world), host=""), frozenset({400, 421}))
    twice = message("GET", "/api", own(world, ("Host", "evil.example")), host="localhost")
    yield Attack("two hosts", twice, frozenset({400, 421}))
    twice = message("GET", "/api", own(world, ("Host", "localhost")), host="evil.example")
    yield Attack("two hosts, the foreign one first", twice, frozenset({400, 421}))
    forwarded = message("GET", "/api", own(world, ("X-Forwarded-Host", "localhost")), host="evil.example")
    yield Attack("forwarded host", forwarded, frozenset({421}), "S007")
    absolute = message("GET", "http://evil.example/api", own(world), host="localhost")
    yield Attack("absolute address of another host", absolute, frozenset({200, 400, 421}))


def other_pages(world: World) -> Iterator[Attack]:
    """Requests of other web pages: simple ones, preflights, forms."""
    body = {"workflow": "answer", "inputs": INPUTS}
    for origin in (
        "https://evil.example",
        "null",
        "http://localhost.evil.example",
        "http://localhost:1",
        "http://[::1",
        "x",
    ):
        yield Attack(f"origin {origin}", start(world, body, ("Origin", origin)), frozenset({403}), "S008")
        asked = [("Origin", origin), ("Access-Control-Request-Method", "DELETE"),
                 ("Access-Control-Request-Headers", "authorization")]  # fmt: skip
        yield Attack(f"preflight of {origin}", message("OPTIONS", "/api/runs", asked), frozenset({403}), "S008")
    cross = start(world, body, ("Sec-Fetch-Site", "cross-site"))
    yield Attack("request of another site", cross, frozenset({403}), "S008")
    for kind in (
        "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "application/xml",
        "application/jsonx", "text/plain; a=application/json",
    ):  # fmt: skip
        data = message("POST", "/api/runs", own(world, ("Content-Type", kind)), b'{"workflow": "answer"}')
        yield Attack(f"content type {kind or 'empty'}", data, frozenset({415}), "S001", "Content-Type")


def headers(world: World) -> Iterator[Attack]:
    """Headers that are too many, too long, or no text."""
    yield Attack(
        "200 headers", message("GET", "/api", [(f"X-{number}", "a") for number in range(200)]), frozenset({431}), "S017"
    )
    yield Attack("large header", message("GET", "/api", [("X-Large", "a" * 40_000)]), frozenset({431}), "S017")
    yield Attack("huge header", message("GET", "/api", [("X-Large", "a" * 100_000)]), frozenset({0, 431}))
    yield Attack("huge name", message("GET", "/api", [("X" * 100_000, "a")]), frozenset({0, 431}))
    yield Attack("huge address", message("GET", "/" + "a" * 100_000), frozenset({0, 400, 431}))
    yield Attack("long query", message("GET", "/api/runs?workflow=" + "a" * 30_000, own(world)), frozenset({200, *BAD}))
    get = "/api/runs/" + world.attacker.ids["waiting"]
    for text in ("x", "-1", "1.5", "9" * 16, "9" * 5000, "٣", "1; DROP", "0x1", "NaN", " ", "1\t2"):
        data = message("GET", f"{get}/events", own(world, ("Last-Event-ID", text)))
        junk = frozenset({200}) if text == " " else frozenset({422})
        yield Attack(f"Last-Event-ID {text[:20]!r}", data, junk)
    for text in ("999999999999999", "0"):
        data = message("GET", f"/api/runs/{world.attacker.ids['run']}/events", own(world, ("Last-Event-ID", text)))
        yield Attack(f"Last-Event-ID {text}", data, EXISTS)
    body = {"workflow": "answer", "inputs": INPUTS}
    for text in ("a" * 300, "a\tb", "é" * 200, "\x7f"):
        data = start(world, body, ("Idempotency-Key", text))
        yield Attack(f"Idempotency-Key {text[:10]!r}", data, BAD)
    for name in ("traceparent", "tracestate", "baggage", "Accept", "Accept-Language", "Cookie", "Range",
                 "If-None-Match",
                 "If-Modified-Since", "If-Range", "Forwarded", "X-Forwarded-For", "Via", "Expect"):  # fmt: skip
        for value in ("00-" + "f" * 32 + "-" + "f" * 16 + "-ff", "\x80\xff", "a" * 9000, "bytes=0-,-1,99-1",
                      "99999999999999999999",
                      "Sun, 99 Foo 99999 99:99:99 GMT", "bytes=" + "1-2," * 1000, ""):  # fmt: skip
            for path in ("/api", "/index.html", "/docs"):
                yield Attack(f"{name}: {value[:20]!r}", message("GET", path, own(world, (name, value))))
    for byte in ("\x00", "\x0b", "\x01", "\r", "\n"):
        data = message("GET", "/api", own(world, ("X-A", f"a{byte}b")))
        yield Attack(f"header with {byte!r}", data)
    for upgrade in ("websocket", "h2c", "x" * 500):
        data = message("GET", "/api", own(world, ("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", upgrade)))
        yield Attack(f"upgrade to {upgrade[:10]}", data, frozenset({200, *CLOSED_OR_BAD}))


def credentials(world: World) -> Iterator[Attack]:
    """Credentials that are none."""
    none = "eyJhbGciOiJub25lIn0.eyJ0ZW5hbnQiOiJiZXRhIiwic2NvcGUiOiJhZG1pbiJ9."
    key = world.attacker.key
    for text in (
        "", "Bearer", "Bearer ", "Basic YTpi", f"Bearer {none}", f"Bearer {key}x", f"Bearer {key[:-1]}", f"Basic {key}",
        f"Bearer {key[:15]}_{'a' * 43}", "Bearer " + "a" * 20_000, "Bearer \x80\xff", "Bearer null",
        "Bearer ../../keys",
        f"Bearer {key.upper()}", "Digest username=admin",
    ):  # fmt: skip
        for path in ("/api", "/api/runs", "/metrics", "/v1/models"):
            data = message("GET", path, [("Authorization", text)])
            yield Attack(f"credential {text[:30]!r} at {path}", data, frozenset({401}), "S005")
    yield Attack("key in the query", message("GET", f"/api?key={key}"), frozenset({401}), "S005")
    yield Attack("key in a cookie", message("GET", "/api", [("Cookie", f"key={key}")]), frozenset({401}), "S005")


def queries(world: World) -> Iterator[Attack]:
    """Parameters of every route with odd values; unknown and repeated ones."""
    for one in all_endpoints():
        path = world.attacker.path(one)
        body = b"{}" if one.body is not None else None
        kind = ("Content-Type", "application/json")
        yield Attack(
            f"unknown parameter of {one.name}", message(one.method, f"{path}?admin=1", own(world, kind), body),
            frozenset({422}), "S002", "admin",
        )  # fmt: skip
        for field in msgspec.structs.fields(one.query):
            values = {*NUMBERS, *TIMES, *TEXTS.values(), "true", "null", world.victim.ids["run"]}
            for value in sorted(values):
                text = value if "%" in value else quote(value)
                data = message(one.method, f"{path}?{field.encode_name}={text}", own(world, kind), body)
                yield Attack(f"{field.encode_name}={value[:30]} of {one.name}", data)
            twice = f"{path}?{field.encode_name}=1&{field.encode_name}=1"
            yield Attack(f"{field.encode_name} twice", message(one.method, twice, own(world, kind), body))


def bodies(world: World) -> Iterator[Attack]:
    """Bodies that are no JSON, or JSON that cannot be stored."""
    texts: Mapping[str, tuple[bytes, frozenset[int]]] = {
        "nothing": (b"", frozenset({400, 422})),
        "one brace": (b"{", frozenset({400})),
        "deep lists": (b"[" * 100_000, frozenset({400})),
        "deep objects": (b'{"workflow":"answer","inputs":' + b'{"a":' * 300 + b"1" + b"}" * 301, BAD),
        "deep lists, closed": (b'{"workflow":"answer","inputs":{"a":' + b"[" * 400 + b"]" * 400 + b"}}", BAD),
        "very deep objects": (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, BAD),
        "surrogate": (b'{"workflow": "\\ud800"}', frozenset({400})),
        "surrogate in a key": (b'{"workflow": "answer", "inputs": {"\\udfff": 1}}', frozenset({400})),
        "no UTF-8": (b'{"workflow": "\xff"}', frozenset({400})),
        "UTF-16": ('{"workflow": "answer"}'.encode("utf-16"), frozenset({400})),
        "byte order mark": (b"\xef\xbb\xbf" + b'{"workflow": "answer"}', frozenset({400})),
        "NaN": (b'{"workflow": "answer", "timeout": NaN}', frozenset({400})),
        "Infinity": (b'{"workflow": "answer", "timeout": -Infinity}', frozenset({400})),
        "number beyond floats": (b'{"workflow": "answer", "timeout": 1e999}', BAD),
        "5,000 digits": (b'{"workflow": "answer", "inputs": {"a": ' + b"9" * 5000 + b"}}", BAD),
        "5,000 digits after the point": (
            b'{"workflow": "answer", "timeout": 0.' + b"1" * 5000 + b"}",
            frozenset({200, 202, *BAD}),
        ),
        "null byte": (b'{"workflow": "ans\\u0000wer"}', BAD),
        "raw null byte": (b'{"workflow": "answer"}\x00', frozenset({400})),
        "two values": (b'{"workflow": "answer"}{}', frozenset({400})),
        "comment": (b'{"workflow": "answer" /* x */}', frozenset({400})),
        "single quotes": (b"{'workflow': 'answer'}", frozenset({400})),
        "null": (b"null", frozenset({422})),
        "list": (b"[]", frozenset({422})),
        "text": (b'"answer"', frozenset({422})),
        "number": (b"1", frozenset({422})),
        "key twice": (b'{"workflow": "approve", "workflow": "nothing"}', BAD),
        "key of an input twice": (b'{"workflow": "approve", "inputs": {"draft": "a", "draft": 1}}', BAD),
        "many keys": (
            b'{"workflow": "answer", "inputs": {' + b",".join(b'"k%d":1' % i for i in range(60_000)) + b"}}",
            BAD,
        ),
        "prototype": (b'{"workflow": "answer", "__proto__": {"admin": true}}', BAD),
        "unknown field": (b'{"workflow": "answer", "admin": true}', frozenset({422})),
        "file of the server": (b'{"workflow": "../../etc/passwd"}', frozenset({404})),
        "path of a workflow": (b'{"workflow": "./answer.yaml"}', frozenset({404})),
    }
    strict = {one.name for one in with_body() if one.path.startswith("/api/runs")} & {"start_run"}
    for one in with_body():
        path = world.attacker.path(one)
        for name, (data, statuses) in texts.items():
            right = statuses if one.name in strict else frozenset({200, 201, 202, *BAD})
            yield Attack(f"{name} to {one.name}", json_message(one.method, path, data, own(world)), right)


def mistyped_fields(world: World) -> Iterator[Attack]:
    """Every field of every body with values of other types."""
    for one in with_body():
        assert one.body is not None
        path, whole = world.attacker.path(one), WHOLE.get(one.name, {})
        for field in msgspec.structs.fields(one.body):
            for value in JUNK:
                data = json_message(one.method, path, {**whole, field.encode_name: value}, own(world))
                yield Attack(f"{one.name}: {field.encode_name} = {str(value)[:30]!r}", data)
    for name in ("budget", "label", "memo", "tags", "accept", "purpose", "sample", "ttl"):
        for value in JUNK:
            body = {"workflow": "answer", "inputs": INPUTS, "options": {name: value}}
            yield Attack(f"option {name} = {str(value)[:30]!r}", start(world, body))
    for name in ("tokens", "seconds", "calls", "money", "check_tokens"):
        for value in JUNK:
            body = {"workflow": "answer", "inputs": INPUTS, "options": {"budget": {name: value}}}
            yield Attack(f"budget {name} = {str(value)[:30]!r}", start(world, body))
    for value in JUNK:
        for name in ("question", "documents"):
            yield Attack(
                f"input {name} = {str(value)[:30]!r}",
                start(world, {"workflow": "answer", "inputs": {**INPUTS, name: value}}),
            )
    for name in ("cron", "timezone"):
        for value in ("* * * *", "99 * * * *", "*/0 * * * *", "1-1000000000 * * * *", "a b c d e", "0 0 31 2 *",
                      "../../etc/passwd",
                      "/etc/passwd", "\x00", "A" * 199, "UTC\x00", "0 0 1 1 1#99", "@reboot", "٣ * * * *"):  # fmt: skip
            body = {"cron": "0 0 1 1 *", "workflow": "answer", "inputs": INPUTS, name: value}
            data = start(world, body, path="/api/schedules")
            yield Attack(f"schedule {name} = {value[:20]!r}", data)


WHOLE: Final[Mapping[str, Any]] = {
    "start_run": {"workflow": "answer", "inputs": INPUTS},
    "start_thread_run": {"workflow": "answer", "inputs": INPUTS},
    "create_batch": {"workflow": "answer", "rows": [INPUTS]},
    "create_schedule": {"cron": "0 0 1 1 *", "workflow": "answer", "inputs": INPUTS, "paused": True},
    "create_webhook": {"url": "https://hooks.invalid/"},
    "create_api_key": {"name": "app", "scopes": ["read"]},
    "check": {"answer": "a", "against": "a", "checks": ["quote"]},
    "ask": {"request": "When?"},
    "plan": {"request": "When?"},
    "create_chat_completion": {"model": "answer", "messages": [{"role": "user", "content": "When?"}]},
    "create_response": {"model": "answer", "input": "When?"},
    "create_embeddings": {"model": "none", "input": "a"},
}


def oversized(world: World) -> Iterator[Attack]:
    """Bodies beyond the limit, with and without a stated size."""
    large, json_type = b" " * (MAX_BODY + 1), ("Content-Type", "application/json")
    for one in with_body():
        path = world.attacker.path(one)
        yield Attack(
            f"large body to {one.name}", json_message(one.method, path, large, own(world)), frozenset({413}), "S003"
        )
    stated = message("POST", "/api/runs", own(world, json_type, ("Content-Length", str(10**15))))
    yield Attack("stated size", stated, frozenset({413}), "S003")
    chunk = b"%x\r\n%s\r\n" % (1 << 16, b" " * (1 << 16))
    head = message("POST", "/api/runs", own(world, json_type, ("Transfer-Encoding", "chunked")))
    yield Attack("large body in chunks", head + chunk * 17 + b"0\r\n\r\n", frozenset({413}), "S003")
    upload = message("POST", "/api/files?name=a", own(world), b"a" * (MAX_UPLOAD + 1))
    yield Attack("large file", upload, frozenset({413}), "S003")
    yield Attack("large body of a GET", message("GET", "/api", own(world), large), frozenset({200, 413}))
    yield Attack(
        "large body without a credential", message("POST", "/api/runs", [json_type], large), frozenset({401, 413})
    )


def compressed(world: World) -> Iterator[Attack]:
    """Bodies that would be large when they are decompressed."""
    zeros = b"0" * (8 << 20)
    for name, data in (("gzip", gzip.compress(zeros)), ("deflate", zlib.compress(zeros)), ("br", b"x"), ("zstd", b"x"),
                       ("gzip, gzip", gzip.compress(gzip.compress(zeros))), ("GZIP", b""),
                       ("identity, gzip", b"x")):  # fmt: skip
        for path in ("/api/runs", "/api/files?name=a", "/v1/chat/completions"):
            kind = ("Content-Type", "application/json")
            body = message("POST", path, own(world, kind, ("Content-Encoding", name)), data)
            yield Attack(f"{name} to {path}", body, frozenset({415}), "S001", "Content-Encoding")
    body = message("POST", "/api/runs", own(world, ("Transfer-Encoding", "gzip, chunked")))
    yield Attack("compressed transfer", body + b"0\r\n\r\n", BAD)


def framing(world: World) -> Iterator[Attack]:
    """Messages whose sizes are wrong, and what is no HTTP."""
    json_type = ("Content-Type", "application/json")
    head = message("POST", "/api/runs", own(world, json_type, ("Transfer-Encoding", "chunked")))
    for name, rest in {
        "no number": b"zz\r\n{}\r\n0\r\n\r\n",
        "negative": b"-2\r\n{}\r\n0\r\n\r\n",
        "too small": b"1\r\n{}\r\n0\r\n\r\n",
        "beyond 64 bits": b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n",
        "line feeds only": b"2\n{}\n0\n\n",
        "spaces": b" 2 \r\n{}\r\n0\r\n\r\n",
        "hexadecimal prefix": b"0x2\r\n{}\r\n0\r\n\r\n",
        "null byte": b"2\x00\r\n{}\r\n0\r\n\r\n",
    }.items():
        yield Attack(f"chunk size: {name}", head + rest, CLOSED_OR_BAD, is_single=True)
    extension = b"2;" + b"a" * 100_000 + b"\r\n{}\r\n0\r\n\r\n"
    yield Attack("chunk with a long extension", head + extension, CLOSED_OR_BAD, is_single=True)
    trailer = b"2\r\n{}\r\n0\r\nContent-Length: 5\r\nX-Injected: 1\r\n\r\n"
    yield Attack("chunks with a trailer", head + trailer, CLOSED_OR_BAD, is_single=True)
    yield Attack("many small chunks", head + b"1\r\n \r\n" * 5000 + b"0\r\n\r\n", BAD)
    for length in ("-1", "abc", "1 2", "0x5", "+2", "2,2", "9" * 30, "", "2\t2", "²"):
        data = message("POST", "/api/runs", own(world, json_type, ("Content-Length", length)))
        yield Attack(f"Content-Length {length[:20]!r}", data + b"{}", CLOSED_OR_BAD, is_single=True)
    for name, data in {
        "nothing but line ends": b"\r\n" * 50 + b"\r\nx\r\n\r\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(30),
        "HTTP/0.9": b"GET /api\r\n\r\n",
        "HTTP/9.9": b"GET /api HTTP/9.9\r\nHost: localhost\r\n\r\n",
        "no version": b"GET /api HTTP/\r\n\r\n",
        "spaces in the address": b"GET /api /x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "unknown method": b"EVIL /api HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "lower case": b"get /api http/1.1\r\nhost: localhost\r\n\r\n",
        "CONNECT": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        "asterisk": b"GET * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "asterisk options": b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "no UTF-8 in the address": b"GET /api/\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "null byte in the address": b"GET /api\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "fragment": b"GET /api#x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "no slash": b"GET api HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "only a query": b"GET ?x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "port in the address": b"GET http://localhost:99999999/api HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "header without a name": b"GET /api HTTP/1.1\r\nHost: localhost\r\n: x\r\n\r\n",
        "header without a colon": b"GET /api HTTP/1.1\r\nHost: localhost\r\nevil\r\n\r\n",
        "random bytes": bytes(range(256)) * 20,
    }.items():  # fmt: skip
        yield Attack(f"no HTTP: {name}", data, CLOSED_OR_BAD, is_single=True)


def smuggling(world: World) -> Iterator[Attack]:
    """Two requests that look like one, so that a proxy and the server see different ones."""
    hidden = message("GET", "/metrics", own(world))
    auth = own(world, ("Content-Type", "application/json"))
    for name, extra in {
        "length and chunks": [("Content-Length", "6"), ("Transfer-Encoding", "chunked")],
        "chunks and length": [("Transfer-Encoding", "chunked"), ("Content-Length", "4")],
        "two lengths": [("Content-Length", "5"), ("Content-Length", "0")],
        "space before the colon": [("Transfer-Encoding ", "chunked"), ("Content-Length", "5")],
        "tab before the value": [("Transfer-Encoding", "\tchunked"), ("Content-Length", "5")],
        "unknown coding": [("Transfer-Encoding", "xchunked"), ("Content-Length", "5")],
        "chunked, identity": [("Transfer-Encoding", "chunked, identity"), ("Content-Length", "5")],
        "two codings": [("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "identity"), ("Content-Length", "5")],
        "upper case": [("TRANSFER-ENCODING", "CHUNKED"), ("Content-Length", "5")],
        "folded line": [
            ("X-A", "b\r\n Transfer-Encoding: chunked"),
            ("Transfer-Encoding", "chunked"),
            ("Content-Length", "5"),
        ],
        "line feed only": [("X-A", "b\nTransfer-Encoding: chunked"), ("Content-Length", "5")],
        "carriage return only": [("X-A", "b\rTransfer-Encoding: chunked"), ("Content-Length", "5")],
        "null byte in the name": [("Transfer-Encoding\x00", "chunked"), ("Content-Length", "5")],
        "vertical tab": [("Transfer-Encoding", "\x0bchunked"), ("Content-Length", "5")],
        "quoted": [("Transfer-Encoding", '"chunked"'), ("Content-Length", "5")],
    }.items():
        data = message("POST", "/api/runs", [*auth, *extra]) + b"0\r\n\r\n" + hidden
        lengths = [value for key, value in extra if key == "Content-Length"]
        refused = any(key.lower().strip().startswith("transfer-encoding") for key, _ in extra) or len(lengths) > 1
        yield Attack(name, data, CLOSED_OR_BAD, is_single=refused)
    for method in ("GET", "DELETE", "HEAD"):
        data = message(method, "/healthz", [("Content-Length", "6"), ("Transfer-Encoding", "chunked")])
        yield Attack(f"{method} with a hidden request", data + b"0\r\n\r\n" + hidden, CLOSED_OR_BAD, is_single=True)


def slow(world: World) -> Iterator[Attack]:
    """Heads and bodies that arrive byte by byte, or not at all."""
    head = message("POST", "/api/runs", own(world, ("Content-Type", "application/json"), ("Content-Length", "500")))
    yield Attack("body that stops", head + b"{", frozenset({408}), "S014")
    yield Attack("body byte by byte", head, frozenset({408}), "S014", pieces=(b" ",) * 400, pause=0.05)
    yield Attack("head that stops", b"GET /api HTTP/1.1\r\nHost: loc", frozenset({0}))
    yield Attack("head byte by byte", b"GET /api HTTP/1.1\r\nX-A: ", frozenset({0}), pieces=(b"a",) * 600, pause=0.05)
    yield Attack("nothing at all", b"", frozenset({0}))
    chunked = message(
        "POST", "/api/runs", own(world, ("Content-Type", "application/json"), ("Transfer-Encoding", "chunked"))
    )
    yield Attack("chunks that stop", chunked + b"5\r\n{", frozenset({408}), "S014")
    yield Attack(
        "upload that stops",
        message("POST", "/api/files?name=a", own(world, ("Content-Length", "9"))),
        frozenset({408}),
        "S014",
    )


def leaving(world: World) -> Iterator[Attack]:
    """Clients that go away in the middle of something."""
    events = message("GET", f"/api/runs/{world.attacker.ids['waiting']}/events", own(world))
    run = start(world, {"workflow": "answer", "inputs": INPUTS, "mode": "stream", "on_disconnect": "cancel"})
    waits = message("GET", f"/api/runs/{world.attacker.ids['waiting']}/answer?wait=3600", own(world))
    for name, data in {"an open stream": events, "a run": run, "a wait": waits, "half a head": run[:50],
                       "half a body": run[:-20], "nothing": b""}.items():  # fmt: skip
        yield Attack(f"leaves {name}", data, leaves=True)


def streams(world: World) -> Iterator[Attack]:
    """Requests on a connection whose stream goes on."""
    events = message("GET", f"/api/runs/{world.attacker.ids['waiting']}/events", own(world))
    for name, data in {"another request": message("GET", "/api", own(world)), "no HTTP": b"\x00\xff garbage\r\n\r\n",
                       "a huge head": b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000}.items():  # fmt: skip
        yield Attack(f"{name} after a stream", events, AFTER_A_STREAM, pieces=(data,), pause=0.05, is_single=True)
    for mode in ("x", "EVENTS", "", "%00", "text%0d%0aX-Injected:1"):
        path = f"/api/runs/{world.attacker.ids['waiting']}/events?mode={mode}"
        yield Attack(f"mode {mode}", message("GET", path, own(world)), frozenset({422}), "S002", "mode")


def uploads(world: World) -> Iterator[Attack]:
    """Files with names that are paths, and with types that are none."""
    for name in (
        "..%2fx",
        "a%2fb",
        "..%5cx",
        "%00",
        "a%0d%0aX-Injected:1",
        "a" * 201,
        "",
        "%2fetc%2fpasswd",
        "a%7fb",
        "a%1b%5b2J",
    ):
        data = message("POST", f"/api/files?name={name}", own(world), b"x")
        yield Attack(f"name {name[:30]}", data, frozenset({422}), "S002", "name")
    yield Attack("no name", message("POST", "/api/files", own(world), b"x"), frozenset({422}), "S002", "name")
    for kind in ("text/html", "image/svg+xml", "x" * 3000, "a/b\x00", "multipart/form-data", "\xff", 'a/b; charset="x'):
        data = message("POST", "/api/files?name=a", own(world, ("Content-Type", kind)), b"<script>alert(1)</script>")
        yield Attack(f"type {kind[:20]!r}", data, frozenset({201, 400}))
    for body in (b"\xff\xfe", b"not json", b'{"a": NaN}', b"[" * 10_000, b'{"a": "\\ud800"}', b"[1]", b""):
        yield Attack("content", message("POST", "/api/files?name=rows.jsonl", own(world), body), frozenset({201}))


def webhooks(world: World, canary_port: int) -> Iterator[Attack]:
    """Addresses inside: refused when they are stated, and never connected when a name hides them."""
    for url in PRIVATE_URLS:
        data = start(world, {"url": url}, path="/api/webhooks")
        yield Attack(f"webhook to {url[:40]}", data, frozenset({422}), "S012", "/url")
    for host in ("localhost", "localhost.", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "127.0.0.1.",
                 "[::ffff:7f00:1]",
                 "①②⑦.0.0.1", "loc%61lhost"):  # fmt: skip
        data = start(world, {"url": f"https://{host}:{canary_port}/"}, path="/api/webhooks")
        yield Attack(f"webhook to {host}", data, frozenset({201, 422}))


def runs(world: World) -> Iterator[Attack]:
    """Requests that are right by themselves, many times, and keys that are used twice."""
    body = {"workflow": "answer", "inputs": INPUTS}
    yield Attack("run", start(world, body, ("Idempotency-Key", "same")), frozenset({*FINE, 422}))
    asking = {"workflow": "approve", "inputs": {"draft": "x"}, "mode": "background"}
    yield Attack("other run with the same key", start(world, asking,
                                                      ("Idempotency-Key", "same")), frozenset({202, 422}))  # fmt: skip
    for wait in ("3600", "0.000001", "1e-300"):
        path = f"/api/runs/{world.attacker.ids['run']}/answer?wait={wait}"
        yield Attack(f"wait={wait}", message("GET", path, own(world)), EXISTS)
    for timeout in (1e-300, 0.001, 86_400):
        yield Attack(f"timeout={timeout}", start(world, {**body, "timeout": timeout}), FINE)
    for name in ("answer", "reader", "many", "recall"):
        yield Attack(f"inputs of {name} that fit nothing", start(world, {"workflow": name, "inputs": {"x": 1}}), BAD)
