"""The OpenAPI 3.1 description of the routes, and a page that shows it. Both are made from the table of routes."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec

from orchestra.server.endpoints import JSON_TYPE, Endpoint
from orchestra.server.problems import MEDIA_TYPE, Problem
from orchestra.server.streams import EVENT_STREAM

_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")


def package_version() -> str:
    """Returns the version of Orchestra."""
    try:
        return version("orchestra-slm")
    except PackageNotFoundError:
        return "0"


def describe(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """Returns the OpenAPI description of routes."""
    types = [endpoint.response for endpoint in endpoints if endpoint.response is not None]
    types += (
        [endpoint.body for endpoint in endpoints if endpoint.body is not None]
        + [endpoint.query for endpoint in endpoints]
        + [Problem]
    )
    unique = list(dict.fromkeys(types))
    schemas, components = msgspec.json.schema_components(unique, ref_template="#/components/schemas/{name}")
    schemas_by_type = dict(zip(unique, schemas, strict=True))
    paths: dict[str, Any] = {}
    for endpoint in endpoints:
        paths.setdefault(_PARAMETER.sub(r"{\1}", endpoint.path), {})[endpoint.method.lower()] = _operation(
            endpoint, schemas_by_type, components
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Orchestra",
            "version": package_version(),
            "description": "Runs workflows of small language models; each answer has its evidence and its verdicts.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(endpoint: Endpoint, schemas_by_type: Mapping[Any, Any], components: Mapping[str, Any]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(endpoint.path)
    ]
    query = _resolve(schemas_by_type[endpoint.query], components)
    parameters += [
        {"name": name, "in": "query", "required": name in query.get("required", ()), "schema": schema}
        for name, schema in query.get("properties", {}).items()
    ]
    problem = {"description": "An error", "content": {MEDIA_TYPE: {"schema": schemas_by_type[Problem]}}}
    content: dict[str, Any] = {}
    if endpoint.response is not None:
        content[JSON_TYPE] = {"schema": schemas_by_type[endpoint.response]}
    if endpoint.media_type != JSON_TYPE:
        content[endpoint.media_type] = {"schema": {"type": "string"}}
    if endpoint.body is not None and "stream" in getattr(endpoint.body, "__struct_fields__", ()):
        content[EVENT_STREAM] = {"schema": {"type": "string"}}
    status = "204" if not content else str(endpoint.status)
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "tags": [endpoint.area],
        "parameters": parameters,
        "responses": {status: {"description": "The reply", **({"content": content} if content else {})}},
    }
    if content and status == "200" and endpoint.method == "POST":
        operation["responses"]["202"] = {"description": "It goes on", "content": content}
    operation["responses"]["default"] = problem
    if endpoint.body is not None:
        body = {"content": {JSON_TYPE: {"schema": schemas_by_type[endpoint.body]}}}
        operation["requestBody"] = {
            **body,
            "required": bool(_resolve(schemas_by_type[endpoint.body], components).get("required")),
        }
    if endpoint.is_upload:
        operation["requestBody"] = {"required": True, "content": {"*/*": {"schema": {"type": "string"}}}}
    if endpoint.scope is not None:
        operation["security"] = [{"bearer": [endpoint.scope]}]
    return operation


def _resolve(schema: Mapping[str, Any], components: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref", "")
    component: Mapping[str, Any] = components[reference.rpartition("/")[2]] if reference else schema
    return component


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Orchestra: HTTP API</title><link rel="stylesheet" href="docs/style.css"></head><body>
<h1>Orchestra: HTTP API</h1><p>The description for programs: <a href="openapi.json">openapi.json</a>.</p>
{body}
</body></html>
"""
STYLE = """:root { color-scheme: light dark; } body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem;
margin: 2rem auto; padding: 0 1rem; } code, pre { font: 13px/1.45 ui-monospace, monospace; } pre { overflow: auto;
padding: .6rem; border: 1px solid #8886; border-radius: 4px; } details { border-bottom: 1px solid #8886;
padding: .35rem 0; } summary { cursor: pointer; } .method { display: inline-block; width: 4.5rem; font-weight: 600; }
table { border-collapse: collapse; } td { padding: .1rem .8rem .1rem 0; vertical-align: top; }
"""


def render_page(endpoints: Sequence[Endpoint]) -> str:
    """Returns the routes as a page. It loads nothing from elsewhere, and has no scripts."""
    described = describe(endpoints)
    schemas = described["components"]["schemas"]
    areas: dict[str, list[str]] = {}
    for endpoint in endpoints:
        path = _PARAMETER.sub(r"{\1}", endpoint.path)
        areas.setdefault(endpoint.area, []).append(
            _render_route(endpoint, path, described["paths"][path][endpoint.method.lower()], schemas)
        )
    parts = [f"<h2>{html.escape(area)}</h2>{''.join(routes)}" for area, routes in areas.items()]
    models = [
        f'<details id="{html.escape(name)}"><summary><code>{html.escape(name)}</code></summary>{_render_json(schema)}'
        "</details>"
        for name, schema in sorted(schemas.items())
    ]
    return _PAGE.format(body="".join([*parts, "<h2>Types</h2>", *models]))


def _render_route(endpoint: Endpoint, path: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{html.escape(parameter['name'])}</code></td><td>{parameter['in']}</td>"
        f"<td><code>{html.escape(_short_type(parameter['schema']))}</code></td></tr>"
        for parameter in operation["parameters"]
    )
    names = [("body", endpoint.body), ("reply", endpoint.response)]
    types = " · ".join(f"{label}: {_links(kind, schemas)}" for label, kind in names if kind is not None)
    scope = f"scope {endpoint.scope}" if endpoint.scope is not None else "no credential"
    return (
        f'<details><summary><span class="method">{endpoint.method}</span><code>{html.escape(path)}</code> '
        f"{html.escape(endpoint.summary)}</summary><p>{scope}{' · ' + types if types else ''}</p>"
        f"<table>{rows}</table></details>"
    )


def _links(kind: Any, schemas: Mapping[str, Any]) -> str:
    (schema,), _ = msgspec.json.schema_components([kind], ref_template="#/components/schemas/{name}")
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    label = html.escape(name or "JSON")
    return f'<a href="#{label}">{label}</a>' if name in schemas else label


def _short_type(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " | ".join(_short_type(variant) for variant in schema["anyOf"])
    return str(schema.get("type", "text"))


def _render_json(schema: Mapping[str, Any]) -> str:
    text = msgspec.json.format(msgspec.json.encode(schema), indent=2).decode()
    return f"<pre>{html.escape(text)}</pre>"


def route_rows(endpoints: Iterable[Endpoint]) -> list[tuple[str, str, str, str]]:
    """Returns method, path, scope and summary of each route."""
    return [
        (endpoint.method, _PARAMETER.sub(r"{\1}", endpoint.path), endpoint.scope or "", endpoint.summary)
        for endpoint in endpoints
    ]
