"""A bag: topics, and the messages of some of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from perception.bags.messages import normalised_type

MOST_RECORD = 1 << 30
"""Largest record of an MCAP file, and largest part when it is unpacked, bytes."""
_ENCODINGS = ("cdr", "ros1", "protobuf")


class Topic(NamedTuple):
    """One topic of a bag, as far as we read it."""

    name: str
    msgtype: str
    encoding: str
    """How its messages are serialised; empty where a topic has several types or none that we read."""
    messages: int | None = None
    """How many; None where the bag does not say."""


class Stored(NamedTuple):
    """One message of a bag."""

    topic: str
    log_ns: int
    """When it was recorded."""
    message: Any
    """None where it cannot be read."""
    problem: str = ""
    """Why."""


class Bag(ABC):
    """Topics and messages. Close it when done."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.topics: dict[str, Topic] = {}
        self.span_ns: tuple[int, int] | None = None
        """Recording times of the first and the last message; None where the bag does not say."""
        self.notes: list[str] = []
        """What was wrong with it."""

    @abstractmethod
    def messages(self, names: Collection[str]) -> Iterator[Stored]:
        """All messages of these topics, in the order of recording. May be called again."""

    @abstractmethod
    def close(self) -> None: ...

    def of_types(self, types: Collection[str]) -> list[Topic]:
        """Topics that hold one of these, and how they do is known to us."""
        return [t for t in self.topics.values() if t.msgtype in types and t.encoding in _ENCODINGS]


def add_topic(topics: dict[str, Topic], name: str, msgtype: str, encoding: str, count: int | None) -> None:
    """Note one connection of a topic; a bag may have several for one topic."""
    msgtype, known = normalised_type(msgtype), topics.get(name)
    if known is None:
        topics[name] = Topic(name, msgtype, encoding, count)
    elif (known.msgtype, known.encoding) != (msgtype, encoding):
        topics[name] = known._replace(encoding="")
    elif count is not None:
        topics[name] = known._replace(messages=(known.messages or 0) + count)
