"""HTML and SVG that escape by default: text from files and labels can't become markup.

A `str` is text and is escaped; only `Markup`, which this module alone makes, goes in as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

_VOID = {"br", "img", "meta", "line", "rect", "circle", "path", "polyline", "polygon"}
_SVG_VOID = _VOID - {"br", "img", "meta"}
# control characters are not legal in HTML or XML, and file names may hold them
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


class Markup(str):
    """Text that is already HTML or SVG."""


Child = str | int | float | Markup | None | Iterable["Child"]


def text(value: object) -> Markup:
    """A value as escaped text; control characters become U+FFFD."""
    return value if isinstance(value, Markup) else Markup(escape(_CONTROL.sub("\ufffd", str(value)), quote=True))


def join(children: Child) -> Markup:
    """Children, nested as they may be, as one piece of markup; None is nothing."""
    if children is None:
        return Markup("")
    if isinstance(children, (str, int, float)):
        return text(children)
    return Markup("".join(join(child) for child in children))


def tag(name: str, *children: Child, **attributes: object) -> Markup:
    """An element. `class_` and `for_` lose the underscore, other underscores become hyphens.

    An attribute that is None or False is left out; True is written bare.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        parts.append(key if value is True else f'{key}="{text(_short(value))}"')
    opening = " ".join(parts)
    if name in _VOID and not children:
        return Markup(f"<{opening}/>" if name in _SVG_VOID else f"<{opening}>")
    return Markup(f"<{opening}>{join(children)}</{name}>")


def _short(value: object) -> object:
    """Coordinates need no more than two decimals, and pages get smaller."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
