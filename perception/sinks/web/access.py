"""The guard of the live page: the rule of `perception.access`, and nobody from a foreign web site."""

from __future__ import annotations

import asyncio
import re
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from perception.access import Door, is_loopback_name, same

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

WRONG_TOKEN_WAIT_S = 0.5
PUBLIC_PATHS = ("/static/style.css", "/static/icon.svg")
"""What the page that asks for the token needs itself."""
API = "/api/"
_PLAIN_HOST = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}")


class Guard:
    """ASGI middleware in front of everything: host, origin, method, token; and headers that shut the browser's doors.

    - Host: on loopback only loopback's own names, so that a foreign site whose name was bound to 127.0.0.1 (DNS
      rebinding) reads nothing.
    - Origin: a web socket is opened from this page or from no page at all.
    - Method: GET and HEAD, but for the API, which takes the token in a header alone: no cookie, so that no other site
      can use a browser that was here.
    """

    def __init__(
        self, app: ASGIApp, door: Door, denied_page: str, on_admitted: Callable[[tuple[str, int] | None], None]
    ) -> None:
        """Guard an application.

        Args:
            app: what is behind the guard.
            door: host, port and token.
            denied_page: HTML for who comes without the token; `{{reason}}` is replaced.
            on_admitted: called with the client's host and port when a request is let through.
        """
        self.app, self.door, self.denied_page, self.on_admitted = app, door, denied_page, on_admitted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", [])
                message["headers"] += [(n.encode(), v.encode("latin-1")) for n, v in _headers(host)]
            await send(message)

        answer = await self._refusal(scope, headers, host)
        if answer is None:
            if self.door.token is None or scope["path"] not in PUBLIC_PATHS:
                self.on_admitted(scope.get("client"))
            await self.app(scope, receive, send_guarded)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            await answer(scope, receive, send_guarded)

    async def _refusal(self, scope: Scope, headers: dict[str, str], host: str) -> Any:
        """The answer where the request goes no further, None where it may."""
        from starlette.responses import PlainTextResponse, RedirectResponse

        if not _PLAIN_HOST.fullmatch(host) or (self.door.loopback and not is_loopback_name(host)):
            return PlainTextResponse(f"This page is at {self.door.url}\n", 421)
        if scope["type"] == "websocket":
            origin = headers.get("origin")
            if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
                return PlainTextResponse("wrong origin\n", 403)
        elif scope["path"].startswith(API) and scope["method"] in ("POST", "DELETE"):
            if self.door.token is None:
                return PlainTextResponse("changes need a token: start the run with --token\n", 403)
            bearer = headers.get("authorization", "")
            right = bearer[:7].lower() == "bearer " and same(bearer[7:].strip(), self.door.token)
            return None if right else await self._denied(bool(bearer))
        elif scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("nothing here can be changed\n", 405, {"Allow": "GET, HEAD"})
        if self.door.token is None or scope["path"] in PUBLIC_PATHS:
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = next((value for name, value in query if name == "token"), None)
        if given is not None and scope["type"] == "http":
            if not same(given, self.door.token):
                return await self._denied(bool(given))
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            # a path that begins with two slashes would lead to another host
            clean = RedirectResponse("/" + scope["path"].lstrip("/\\") + (f"?{rest}" if rest else ""), 303)
            clean.set_cookie(self.door.cookie_name, self.door.cookie_value, httponly=True, samesite="strict")
            return clean
        bearer = headers.get("authorization", "")
        if bearer[:7].lower() == "bearer ":
            return None if same(bearer[7:].strip(), self.door.token) else await self._denied(True)
        if same(_cookie(headers.get("cookie", ""), self.door.cookie_name), self.door.cookie_value):
            return None
        return await self._denied(False)

    async def _denied(self, was_wrong: bool) -> Any:
        from starlette.responses import HTMLResponse

        if was_wrong:
            await asyncio.sleep(WRONG_TOKEN_WAIT_S)  # guessing is slow
        words = "That token is not the right one." if was_wrong else "This page needs the token of the run."
        page = self.denied_page.replace("{{reason}}", words)
        return HTMLResponse(page, 401, {"WWW-Authenticate": 'Bearer realm="perception"'})


def _cookie(header: str, name: str) -> str:
    try:
        morsel = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def _headers(host: str) -> list[tuple[str, str]]:
    """Nothing from elsewhere, nothing to elsewhere, in no one's frame. `host` has been checked."""
    socket_of_this_page = f"ws://{host} wss://{host}" if _PLAIN_HOST.fullmatch(host) else ""
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        f"connect-src 'self' {socket_of_this_page}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return [
        ("content-security-policy", policy),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("x-frame-options", "DENY"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
        ("cache-control", "no-cache"),
    ]
