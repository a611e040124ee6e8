"""The routes of files: texts that are uploaded once, and named in the inputs of runs."""

from __future__ import annotations

import re
import time
from typing import Any

import msgspec
from starlette.responses import Response

from orchestra.schema.strict_json import digest
from orchestra.server.collections import Collection
from orchestra.server.endpoints import Call, NoBody, Page, PageQuery, RouteTable
from orchestra.server.problems import RequestError
from orchestra.server.services import Services

ROUTES = RouteTable()
FILE, CONTENT = "file", "file_content"
DOCUMENT_KEY, TEXT_KEY = "$file", "$file_text"
_NAME = re.compile(r"[^\x00-\x1f\x7f/\\]{1,200}")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,60}/[A-Za-z0-9!#$&^_.+-]{1,60}")


class UploadQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The name of the file: it becomes the source of the document."""

    name: str


class FileItem(msgspec.Struct, frozen=True, kw_only=True):
    """An uploaded file."""

    id: str
    name: str
    media_type: str
    bytes: int
    digest: str
    created: float


def files_of(services: Services) -> Collection[FileItem]:
    """The files of all tenants."""
    return Collection(services.records, FILE, "file", FileItem)


@ROUTES.route("POST", "/api/files", "run", FileItem, query=UploadQuery, status=201, is_upload=True)
async def upload_file(call: Call[NoBody, UploadQuery]) -> FileItem:
    """Upload a file. In the inputs of a run, `{"$file": ID}` is the document, and `{"$file_text": ID}` its text."""
    name = call.query.name
    if not _NAME.fullmatch(name):
        raise RequestError("S002", "the name of a file is one line without / and \\", hint="a.txt", pointer="name")
    content_type = call.request.headers.get("content-type", "").partition(";")[0].strip()
    data = await call.request.body()
    files = files_of(call.services)
    item = FileItem(
        id=files.new_id(),
        name=name,
        media_type=content_type if _MEDIA_TYPE.fullmatch(content_type) else "application/octet-stream",
        bytes=len(data),
        digest=digest(data),
        created=time.time(),
    )
    await call.services.records.add(CONTENT, item.id, call.principal.tenant, data)
    await files.add(item.id, call.principal.tenant, item)
    return item


@ROUTES.route("GET", "/api/files", "read", Page[FileItem], query=PageQuery)
async def list_files(call: Call[NoBody, PageQuery]) -> Page[FileItem]:
    """List the files of the tenant, newest first."""
    return await files_of(call.services).page(call.principal.tenant, call.query, lambda stored_file: stored_file.value)


@ROUTES.route("GET", "/api/files/{file}", "read", FileItem)
async def get_file(call: Call) -> FileItem:
    """Show a file: its name, size and digest."""
    return (await files_of(call.services).require(call.path["file"], call.principal.tenant)).value


@ROUTES.route("GET", "/api/files/{file}/content", "read", media_type="application/octet-stream")
async def get_file_content(call: Call) -> Response:
    """Download a file. It is sent as an attachment, so that a browser does not open it."""
    item = (await files_of(call.services).require(call.path["file"], call.principal.tenant)).value
    headers = {"Content-Disposition": "attachment"}
    return Response(await file_content(call, item), media_type="application/octet-stream", headers=headers)


@ROUTES.route("DELETE", "/api/files/{file}", "run")
async def delete_file(call: Call) -> None:
    """Delete a file. Runs that have read it keep their inputs."""
    item = (await files_of(call.services).require(call.path["file"], call.principal.tenant)).value
    await files_of(call.services).delete(item.id)
    await call.services.records.delete(CONTENT, item.id)


async def file_content(call: Call[Any, Any], item: FileItem) -> bytes:
    """Returns the content of a file. Raises `RequestError` S009 if it was deleted."""
    record = await call.services.records.get(CONTENT, item.id)
    if record is None:
        raise RequestError("S009", f"there is no file {item.id!r}", hint="GET /api/files")
    return record.data


async def resolve_files(call: Call[Any, Any], value: Any, pointer: str = "/inputs") -> Any:
    """Returns a value in which files that it names are replaced by their contents. Raises `RequestError` S009 for an
    unknown file, S019 for one that is not text.
    """
    match value:
        case {"$file": str(name), **rest} if not rest:
            item, text = await _file_text(call, name, pointer)
            return {"source": item.name, "text": text}
        case {"$file_text": str(name), **rest} if not rest:
            return (await _file_text(call, name, pointer))[1]
        case dict():
            return {key: await resolve_files(call, entry, f"{pointer}/{key}") for key, entry in value.items()}
        case list():
            return [await resolve_files(call, list_item, f"{pointer}/{index}") for index, list_item in enumerate(value)]
        case _:
            return value


async def _file_text(call: Call[Any, Any], name: str, pointer: str) -> tuple[FileItem, str]:
    try:
        item = (await files_of(call.services).require(name, call.principal.tenant)).value
        return item, (await file_content(call, item)).decode("utf-8-sig")
    except RequestError as error:
        raise RequestError(error.code, error.message, hint=error.hint, pointer=pointer) from error
    except UnicodeDecodeError as error:
        message = f"the file {name!r} is not UTF-8 text"
        raise RequestError("S019", message, hint="convert it", pointer=pointer) from error
