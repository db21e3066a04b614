"""The one place where text is made fit to be shown: no password or token of a URL, no control character."""

from __future__ import annotations

import re

_URL = r"[A-Za-z][A-Za-z0-9+.-]+:/{1,2}"
"""How a URL begins. `Path` makes one slash of two, and a drive letter is no scheme."""
_PORT = r"\d{1,5}(?=[/?#\s'\"]|$)"
_PASSWORD = re.compile(
    # user:password@, where the password may hold any character: to the last @ before the next URL or the line's end
    rf"(?P<scheme>{_URL})(?:[^/?#\s@:]*:(?!{_PORT})(?:(?!\b{_URL})[^\n])*@"
    # user:1234/5@, user:1234 5@: a password that begins like a port; within one word, or with the word behind it,
    # since a port is the likelier reading
    r"|[^/?#\s@:]*:(?:\d\S*|\d{1,5}[^\S\n]\S*)@"
    # user@
    r"|[^/?#\s]*@)"
)
_NAMES = (
    r"[\w.-]*(?:token|passw|passphrase|pwd|secret|apikey|auth|signature|credential|session|login|user|usr)[\w.-]*?"
    r"|(?:[\w.-]*[_.-])?(?:pass|psw|key|sig|jwt|sid)|[pu]"
)
_PARAMETER = re.compile(
    # in a query or fragment; in a path, as in `user=admin_password=x_channel=1`
    rf"(?P<key>[?&;#/_,](?:{_NAMES})=)(?:(?!_\w+=)[^&;#\s'\"/,])*",
    re.IGNORECASE,
)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def redact(text: str) -> str:
    """Return a location, or any text that holds one, without user names, passwords and secret-looking parameters.

    `rtsp://me:pw@host/a?token=1` becomes `rtsp://***@host/a?token=***`. A password may hold any character but a line
    break. Where it cannot be told from what follows, more is hidden rather than less.
    """
    text = _PASSWORD.sub(r"\g<scheme>***@", text)
    return _PARAMETER.sub(r"\g<key>***", text)


def printable(text: str) -> str:
    """Return text with control characters, bidirectional overrides and lone surrogates as visible escapes.

    Names come from files, archives and networks; a terminal would obey escape codes in them.
    """
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)
