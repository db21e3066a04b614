"""The one place where a location is made fit to be shown: passwords and tokens in URLs appear nowhere else."""

from __future__ import annotations

import re

_USER_INFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^/?#\s]*@")
_SECRET_PARAMETER = re.compile(
    r"(?P<key>[?&;](?:[\w.-]*(?:token|password|passwd|pwd|secret|key|auth|signature|sig|user|usr|login)[\w.-]*)=)"
    r"[^&;#\s'\"]*",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """A location, or any text that holds one, without user names, passwords and secret-looking parameters.

    `rtsp://me:pw@host/a?token=1` becomes `rtsp://***@host/a?token=***`. A password may itself hold an `@`: all up to
    the last one before the path goes.
    """
    text = _USER_INFO.sub(r"\g<scheme>***@", text)
    return _SECRET_PARAMETER.sub(r"\g<key>***", text)
