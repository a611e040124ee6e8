"""A web service with one `Orchestra`: concurrent requests share its fleet, its journal and its limits.

    pip install starlette uvicorn
    uvicorn --app-dir examples --factory embed_starlette:build_app
    curl -s localhost:8000/answers -d '{"question": "Which team won?", "documents": [{"source": "a.txt", "text": "The
    Broncos won."}]}'

The `Orchestra` opens when the service starts and closes when it stops. A refused answer is a 200 with `"answer": null`,
since withholding is a valid outcome. Invalid input is a 422, a key whose run belongs to another process a 409, a spent
budget a 503.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from orchestra import (
    Budget,
    BudgetExceeded,
    FleetError,
    InputError,
    JournalError,
    Orchestra,
    Result,
    RunFailed,
    run_until_disconnected,
)
from orchestra.core.protocols import Workers


async def answers(request: Request) -> Response:
    """Answers one question from the documents of the request."""
    orchestra: Orchestra = request.state.orchestra
    try:
        body = json.loads(await request.body())
        inputs = {"question": body["question"], "documents": body["documents"]}
    except (ValueError, KeyError, TypeError):
        return JSONResponse({"error": "send JSON with question and documents"}, 422)
    # The same key never runs twice: a client that hung up, or whose reply was lost, repeats its request and gets the
    # answer of the first one, a failure too. It takes a new key for another try. Without a key, the run is cancelled
    # when its client has gone.
    key = request.headers.get("idempotency-key", "")
    limited = orchestra.options(idempotency_key=key, budget=Budget(tokens=20_000, seconds=60))
    try:
        run = limited.run(orchestra.find("answer_from_documents"), **inputs)
        result = await run_until_disconnected(run, request.is_disconnected)
    except InputError as error:
        return JSONResponse({"error": error.message, "hint": error.hint, "code": error.code}, 422)
    except BudgetExceeded as error:
        return JSONResponse({"error": error.message, "code": error.code}, 503)
    except RunFailed as error:
        return JSONResponse({"error": error.message, "code": error.code}, 500)
    except FleetError as error:  # it has not begun, and the key is free
        return JSONResponse({"error": error.message, "hint": error.hint, "code": error.code}, 503)
    except JournalError as error:
        return JSONResponse({"error": error.message, "code": error.code}, 409 if error.code == "J022" else 500)
    return Response(status_code=499) if result is None else JSONResponse(as_reply(result))  # no client is left


def as_reply(result: Result[Any]) -> dict[str, Any]:
    """What the client gets: the answer with its quotes, what it cost, and the run's name in the journal."""
    value = result.value or {"text": None, "citations": []}
    tokens = result.usage.prompt_tokens + result.usage.output_tokens
    return {
        "answer": value["text"],
        "quotes": value["citations"],
        "status": result.status,
        "tokens": tokens,
        "run": result.run,
    }


def build_app(workers: Workers | None = None) -> Starlette:
    """Builds the service. `workers` replaces the fleet in a test."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Any]]:
        async with Orchestra.open(workers=workers) as orchestra:
            yield {"orchestra": orchestra}

    return Starlette(routes=[Route("/answers", answers, methods=["POST"])], lifespan=lifespan)
