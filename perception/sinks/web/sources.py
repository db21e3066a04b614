"""The page's API: `GET`, `POST` and `DELETE /api/sources`."""

from __future__ import annotations

import json
from typing import Any, Protocol

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from perception.errors import UserError

PATH = "/api/sources"
MOST_BYTES = 8192


class SourceControl(Protocol):
    """What changes the sources of a run."""

    def sources(self) -> list[dict[str, Any]]: ...

    def add_remote(self, location: str) -> str: ...

    def remove(self, name: str) -> None: ...


class SourceApi:
    """The routes; without a control all but the list is refused."""

    def __init__(self) -> None:
        self.control: SourceControl | None = None

    def routes(self) -> list[Route]:
        return [
            Route(PATH, self._list, methods=["GET"]),
            Route(PATH, self._add, methods=["POST"]),
            Route(PATH + "/{name}", self._remove, methods=["DELETE"]),
        ]

    async def _list(self, _: Request) -> Response:
        return JSONResponse({"sources": [] if self.control is None else self.control.sources()})

    async def _add(self, request: Request) -> Response:
        control, body = self.control, b""
        async for part in request.stream():
            body += part
            if len(body) > MOST_BYTES:
                return _refused(413, f"at most {MOST_BYTES} bytes")
        try:
            location = json.loads(body)["location"]
        except (ValueError, TypeError, KeyError, RecursionError):
            location = None
        if not isinstance(location, str) or control is None:
            return _refused(400, 'expected {"location": "front=rtsp://HOST/STREAM"}')
        try:
            name = await run_in_threadpool(control.add_remote, location)
        except UserError as error:
            return _refused(422, error.found, error.expected)
        return JSONResponse({"name": name}, 201)

    async def _remove(self, request: Request) -> Response:
        if self.control is None:
            return _refused(404, "no such source")
        try:
            await run_in_threadpool(self.control.remove, request.path_params["name"])
        except UserError as error:
            return _refused(404, error.found, error.expected)
        return Response(status_code=204)


def _refused(status: int, found: str, expected: str = "") -> JSONResponse:
    return JSONResponse({"error": found, "expected": expected}, status)
