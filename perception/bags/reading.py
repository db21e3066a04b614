"""Open a bag: MCAP, ROS 1 `.bag`, ROS 2 `.db3` and folders.

MCAP is read with `mcap`, part after part, so a file that was cut short gives all of its whole messages. The others
are read with `rosbags`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from perception.bags.bag import Bag, Stored, add_topic
from perception.bags.messages import CALIBRATION_TYPES, IMAGE_TYPES, read_ros, typestore
from perception.errors import MissingDependencyError, UserError, lfs_pointer

SUFFIXES = (".mcap", ".bag", ".db3")
_LOCATION = re.compile(r"(?P<path>.+?\.(?:mcap|bag|db3)|.+?)(?::(?P<topic>/?[^/:\\].*))?", re.IGNORECASE | re.DOTALL)


def split_location(location: str) -> tuple[Path, str] | None:
    """Path and topic of `drive.mcap:/camera/front`, the topic empty where none is named; None for what is no bag."""
    if "\0" in location or "://" in location:
        return None
    if _is_bag(Path(location)):
        return Path(location), ""
    match = _LOCATION.fullmatch(location)
    if match is None or not match["topic"] or not _is_bag(Path(match["path"])):
        return None
    return Path(match["path"]), match["topic"]


def _is_bag(path: Path) -> bool:
    if path.suffix.lower() in SUFFIXES:
        return path.is_file()
    return path.is_dir() and ((path / "metadata.yaml").is_file() or any(path.glob("*.mcap")))


def open_bag(path: Path) -> Bag:
    """Open any of the formats.

    Raises:
        UserError: not a bag, or one that cannot be read.
        MissingDependencyError: the extra `ros` is not installed.
    """
    try:
        import rosbags  # noqa: F401

        from perception.bags.mcap_files import McapBag
    except ImportError:
        raise MissingDependencyError("rosbags", "ros", "MCAP and ROS bags") from None
    if (pointer := lfs_pointer(path)) is not None:
        raise pointer
    if path.suffix.lower() == ".mcap":
        return McapBag(path, [path])
    if path.is_dir() and (parts := sorted(path.glob("*.mcap"), key=_by_number)):
        return McapBag(path, parts)
    return RosBag(path)


def _by_number(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


class RosBag(Bag):
    """ROS 1 `.bag`, ROS 2 `.db3` or a folder with `metadata.yaml`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        from rosbags.rosbag1 import Reader as Reader1
        from rosbags.rosbag2 import Reader as Reader2

        is_ros1 = path.suffix.lower() == ".bag"
        typestore(1 if is_ros1 else 2)
        try:
            self._reader: Any = Reader1(path) if is_ros1 else Reader2(path)
            self._reader.open()
        except Exception as error:  # whatever three parsers raise for bytes that are no bag
            mend = "rosbag reindex FILE" if is_ros1 else "ros2 bag reindex FOLDER   (a recording that was cut short)"
            raise UserError(f"{path}: {str(error).rstrip('.')}", "a whole bag with its index", mend) from None
        for connection in list[Any](self._reader.connections):
            encoding = "ros1" if is_ros1 else connection.ext.serialization_format
            add_topic(self.topics, connection.topic, connection.msgtype, encoding, connection.msgcount)
        if self._reader.message_count:
            self.span_ns = (self._reader.start_time, self._reader.end_time - 1)

    def messages(self, names: Collection[str]) -> Iterator[Stored]:
        wanted = [c for c in self._reader.connections if c.topic in names]
        if not wanted:
            return
        try:
            for connection, log_ns, data in self._reader.messages(wanted):
                topic = self.topics[connection.topic]
                try:
                    yield Stored(topic.name, log_ns, read_ros(data, topic.msgtype, topic.encoding))
                except ValueError as error:
                    yield Stored(topic.name, log_ns, None, str(error))
        except Exception as error:
            self.notes.append(f"the bag cannot be read to its end ({str(error)[:100].rstrip('.')})")

    def close(self) -> None:
        if self._reader is not None:
            reader, self._reader = self._reader, None
            reader.close()


def list_topics(bag: Bag) -> str:
    """Topics with images, and the names of the others, for messages."""
    images = bag.of_types(IMAGE_TYPES)
    texts = [f"{t.name} ({t.msgtype}{'' if t.messages is None else f', {t.messages} messages'})" for t in images]
    others = sorted(t.name for t in bag.topics.values() if t not in images and t.msgtype not in CALIBRATION_TYPES)
    if others:
        shown = ", ".join(others[:8]) + (", …" if len(others) > 8 else "")
        texts.append(f"without images that can be read: {shown}")
    return "; ".join(texts)
