"""Who may see the live page: loopback without a token, anybody else with one, nobody from a foreign web site."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import re
import secrets
import socket
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from perception.errors import UserError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

SHORTEST_TOKEN = 12
WRONG_TOKEN_WAIT_S = 0.5
PUBLIC_PATHS = ("/static/style.css", "/static/icon.svg")
"""What the page that asks for the token needs itself."""
STUCK_MS = 15_000
"""A viewer that takes no bytes for this long is cut off, by the kernel."""
_PLAIN_HOST = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}")


@dataclass(frozen=True)
class Door:
    """A bound socket, and the rule for who comes in."""

    listener: socket.socket
    host: str
    """As it was asked for."""
    port: int
    token: str | None
    """None: loopback, everybody on this machine may look."""
    loopback: bool

    @property
    def url(self) -> str:
        """What to open, without the token."""
        host = self.host if not ipaddress_or_none(self.host) else _reachable(self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"

    @property
    def url_with_token(self) -> str:
        """What to open. Shown once on the terminal, written nowhere."""
        return self.url + (f"?{urlencode({'token': self.token})}" if self.token else "")

    @property
    def cookie_name(self) -> str:
        return f"perception-{self.port}"  # browsers don't keep the cookies of two ports apart

    @property
    def cookie_value(self) -> str:
        """Proves that the token was known, without being the token."""
        return hmac.new((self.token or "").encode(), b"perception live page", hashlib.sha256).hexdigest()


def open_door(host: str, port: int, token: str | None) -> Door:
    """Bind the address; where it is not loopback, ask for a token, and make one where none is given.

    Raises:
        UserError: no such address, the port is taken or not allowed, the token is too short.
    """
    if token is not None and len(token) < SHORTEST_TOKEN:
        raise UserError(
            f"a token of {len(token)} characters",
            f"at least {SHORTEST_TOKEN}, so that it cannot be guessed",
            "leave --token out: one is made and printed",
        )
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise UserError(
            f"live page: '{host}' is not an address of this machine",
            "HOST:PORT",
            "--serve 127.0.0.1:8080   (--serve alone means this, and goes behind the source)",
        ) from None
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STUCK_MS)
        listener.bind(address)
        listener.listen(64)
    except OSError as error:
        listener.close()
        free = f"--serve {host}:{port + 1 if port < 65535 else 8080}"
        raise UserError(f"live page: port {port} on {host}: {error.strerror}", "a free port", free) from None
    loopback = ipaddress.ip_address(str(address[0])).is_loopback
    if token is None and not loopback:
        token = secrets.token_urlsafe(18)
    return Door(listener, host, listener.getsockname()[1], token, loopback)


class Guard:
    """ASGI middleware in front of everything: host, origin, method, token; and headers that shut the browser's doors.

    - Host: on loopback only loopback's own names, so that a foreign site whose name was bound to 127.0.0.1 (DNS
      rebinding) reads nothing.
    - Origin: a web socket is opened from this page or from no page at all.
    - Method: nothing here changes anything, so GET and HEAD are all there is.
    """

    def __init__(self, app: ASGIApp, door: Door, denied_page: str) -> None:
        self.app, self.door, self.denied_page = app, door, denied_page

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


def same(given: str, wanted: str) -> bool:
    """Compare in a time that does not depend on where the two differ."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), wanted.encode("utf-8", "surrogatepass"))


def is_loopback_name(host_header: str) -> bool:
    """Whether a Host header names this machine itself: localhost, 127.x.x.x, [::1], with any port."""
    try:
        host = urlsplit(f"//{host_header}").hostname
    except ValueError:  # half a bracket
        return False
    if host is None or "@" in host_header:
        return False
    address = ipaddress_or_none(host)
    return host.rstrip(".") == "localhost" if address is None else address.is_loopback


def ipaddress_or_none(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _reachable(host: str) -> str:
    """0.0.0.0 can be listened at but not opened: this machine's own address towards the network."""
    if not ipaddress.ip_address(host).is_unspecified:
        return host
    family, outside = (socket.AF_INET6, "2001:db8::1") if ":" in host else (socket.AF_INET, "192.0.2.1")
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((outside, 9))  # picks a route; sends nothing
            return str(probe.getsockname()[0])
        except OSError:
            return "localhost"


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
