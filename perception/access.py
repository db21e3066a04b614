"""Who may connect to an address that this process serves: loopback without a token, everybody else with one."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import socket
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from perception.errors import UserError

SHORTEST_TOKEN = 12
STUCK_MS = 15_000
"""The kernel drops a peer that acknowledges no bytes for this long."""


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

    def url_with_token(self, path: str = "") -> str:
        """What to open. Shown once on the terminal, written nowhere."""
        return self.url + path + (f"?{urlencode({'token': self.token})}" if self.token else "")

    @property
    def cookie_name(self) -> str:
        return f"perception-{self.port}"  # browsers don't keep the cookies of two ports apart

    @property
    def cookie_value(self) -> str:
        """Proves that the token was known, without being the token."""
        return hmac.new((self.token or "").encode(), b"perception live page", hashlib.sha256).hexdigest()


def open_door(host: str, port: int, token: str | None, option: str = "--serve") -> Door:
    """Bind an address. Off loopback a token is required, and generated if none is given.

    Args:
        host: name or address of this machine.
        port: 0 takes a free one.
        token: at least 12 characters; None: loopback needs none, other addresses get a generated one.
        option: how the address was typed, for messages.

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
            f"{option}: '{host}' is not an address of this machine",
            "HOST:PORT",
            "--serve 127.0.0.1:8080   (--serve alone means this, and goes behind the source)"
            if option == "--serve"
            else f"{option} 127.0.0.1:{port}",
        ) from None
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STUCK_MS)
        listener.bind(address)
        listener.listen(1024)  # a full queue costs a newcomer a second or more
    except OSError as error:
        listener.close()
        free = f"{option} {host}:{port + 1 if port < 65535 else 8080}"
        raise UserError(f"{option}: port {port} on {host}: {error.strerror}", "a free port", free) from None
    loopback = ipaddress.ip_address(str(address[0])).is_loopback
    if token is None and not loopback:
        token = secrets.token_urlsafe(18)
    return Door(listener, host, listener.getsockname()[1], token, loopback)


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
