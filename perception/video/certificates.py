"""Who a server is: certificates of https, rtsps, rtmps and tls, and of what a playlist names.

FFmpeg verifies the certificate of the URL that it is given, but not those of the files that an HLS or DASH playlist
names. These are looked at here, before anything is read from them.
"""

from __future__ import annotations

import re
import socket
import ssl
from urllib.parse import urljoin, urlsplit

from perception.errors import UserError
from perception.redact import redact

_PORTS = {"https": 443, "rtsps": 322, "rtmps": 443, "tls": 443}
_MOST_BYTES = 4 << 20
"""Of a playlist; an hour of parts takes some hundred kilobytes."""
_PLAYLIST_SUFFIX = (".m3u8", ".m3u", ".mpd")


def is_encrypted(location: str) -> bool:
    """Whether a URL's protocol has certificates."""
    return location.partition(":")[0].lower() in _PORTS


def authorities() -> str:
    """The file of the authorities that this machine trusts.

    Raises:
        UserError: there is none.
    """
    found = ssl.get_default_verify_paths().cafile
    if found is not None:
        return found
    try:
        import certifi
    except ImportError:
        raise UserError(
            "no certificate authorities on this machine, so no certificate can be verified",
            "the system's, or the package certifi",
            "pip install certifi   (or --no-verify-tls, if you trust the network)",
        ) from None
    return certifi.where()


def certificate_fault(url: str, timeout_s: float) -> UserError | None:
    """What is wrong with the certificate behind a URL; None where nothing is, or nobody answers."""
    if not is_encrypted(url):
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme.lower()]
        context = ssl.create_default_context(cafile=authorities())
        with (
            socket.create_connection((host, port), timeout_s) as connection,
            context.wrap_socket(connection, server_hostname=host),
        ):
            return None
    except ssl.SSLCertVerificationError as error:
        return UserError(
            f"{redact(url)}: its certificate is refused ({error.verify_message}), so no password was sent",
            f"a certificate for {host} from an authority that this machine trusts",
            "--no-verify-tls, if you trust the network between",
        )
    except (OSError, ValueError):
        return None


def check_playlist(url: str, timeout_s: float) -> None:
    """Look at the certificate of every server that a playlist, or a playlist in it, names.

    Raises:
        UserError: one is not valid for its name.
    """
    checked: set[str] = set()
    waiting, seen = [url], {url}
    while waiting:
        playlist = waiting.pop()
        for named in _named_in(_text(playlist, timeout_s)):
            target = urljoin(playlist, named)
            host = urlsplit(target).netloc
            if is_encrypted(target) and host not in checked:
                checked.add(host)
                if fault := certificate_fault(target, timeout_s):
                    raise fault
            inner = urlsplit(target).path.lower().endswith(_PLAYLIST_SUFFIX)
            if inner and target not in seen and len(seen) < 100:
                seen.add(target)
                waiting.append(target)


def _named_in(text: str) -> set[str]:
    """URLs and names in a playlist: its lines, and what stands in URI="…" or in an XML element or attribute."""
    lines = {line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("#", "<"))}
    return lines | set(re.findall(r'URI="([^"]+)"', text)) | set(re.findall(r"https?://[^\s\"'<>]+", text))


def _text(url: str, timeout_s: float) -> str:
    """The playlist, read with its server's certificate verified; empty where it cannot be read."""
    from base64 import b64encode
    from urllib.parse import unquote
    from urllib.request import Request, urlopen

    parts = urlsplit(url)
    if parts.scheme.lower() not in ("http", "https"):
        return ""
    request = Request(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl())
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_header("Authorization", "Basic " + b64encode(pair.encode()).decode())
    try:
        context = ssl.create_default_context(cafile=authorities())
        with urlopen(request, timeout=timeout_s, context=context) as answer:
            text: str = answer.read(_MOST_BYTES).decode("utf-8", "replace")
            return text
    except (OSError, ValueError):
        return ""
