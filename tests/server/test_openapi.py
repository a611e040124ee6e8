"""The description of the routes."""

from __future__ import annotations

import re
from pathlib import Path

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # its stubs are not among the tools

from orchestra.server.application import all_endpoints
from orchestra.server.openapi import describe
from tests.server.servers import serving


def test_description_has_every_route_with_summary_and_scope() -> None:
    paths = describe(all_endpoints())["paths"]
    for one in all_endpoints():
        operation = paths[re.sub(r":\w+}", "}", one.path)][one.method.lower()]
        assert operation["summary"].endswith((".", "…"))
        assert operation.get("security", []) == ([{"bearer": [one.scope]}] if one.scope is not None else [])


def test_description_has_valid_schemas_and_no_dangling_reference() -> None:
    described = describe(all_endpoints())
    schemas = described["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    references = set(re.findall(r"#/components/schemas/([^\"']+)", str(described)))
    assert references <= set(schemas)
    names = [one["operationId"] for path in described["paths"].values() for one in path.values()]
    assert len(names) == len(set(names))


async def test_replies_match_their_schemas(tmp_path: Path) -> None:
    described = describe(all_endpoints())
    async with serving(tmp_path) as server:
        run = (await server.run())["id"]
        await server.run("approve", {"draft": "a"})
        for path, operations in described["paths"].items():
            operation = operations.get("get")
            schema = (operation or {}).get("responses", {}).get("200", {}).get("content", {}).get("application/json")
            if schema is None or "{" in path.replace("{run}", "").replace("{node}", ""):
                continue
            address = path.replace("{run}", run).replace("{node}", "read")
            reply = await server.client.get(
                f"{address}?other={run}" if path.endswith("/diff") else address, headers={"Accept": "application/json"}
            )
            assert reply.status_code == 200, reply.text
            whole = {**schema["schema"], "components": described["components"]}
            assert list(Draft202012Validator(whole).iter_errors(reply.json())) == [], path


async def test_page_of_the_routes_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        page = (await server.client.get("/docs")).text
        style = await server.client.get("/docs/style.css")
    assert "<script" not in page
    assert re.findall(r'(?:src|href)="((?:https?:)?//[^"]*)"', page) == []
    assert style.status_code == 200
    assert all(one.path.partition(":")[0] in page for one in all_endpoints())
