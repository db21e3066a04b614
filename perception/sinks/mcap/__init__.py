"""An MCAP file, `recording.mcap`: image, boxes, road, objects in space and health, for Foxglove and Rerun.

`--set mcap.ros2=True` writes the same as messages of ROS 2, which `ros2 bag` reads, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

from perception.errors import MissingDependencyError
from perception.sinks import RunInfo, Sink
from perception.sinks.mcap.scene import Message
from perception.types import HealthEvent, Result

FILE_NAME = "recording.mcap"


class McapSink(Sink):
    """One file for all sources; time is the time of capture. A part is written each second, so a kill costs one."""

    name = "mcap"
    lossless = True

    def __init__(self, path: Path, ros2: bool = False, quality: int = 80) -> None:
        """
        Args:
            path: the file.
            ros2: messages of ROS 2 in CDR instead of Foxglove's in Protobuf.
            quality: of the JPEG images, 1 to 100.
        """
        self.path, self.ros2, self.quality = path, ros2, quality
        self._file: IO[bytes] | None = None
        self._writer: Any = None
        self._channels: dict[str, int] = {}
        self._schemas: dict[str, int] = {}

    @classmethod
    def in_folder(cls, folder: Path, ros2: bool = False, quality: int = 80) -> McapSink:
        return cls(folder / FILE_NAME, ros2, quality)

    def open(self, info: RunInfo) -> None:
        try:
            from mcap.writer import Writer

            if self.ros2:
                from perception.sinks.mcap.ros2 import Ros2Messages as Messages
            else:
                from perception.sinks.mcap.foxglove import FoxgloveMessages as Messages  # type: ignore[assignment]
        except ImportError:
            raise MissingDependencyError("mcap", "ros", "MCAP recordings") from None
        self._messages = Messages(info, self.quality)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("wb")
        self._writer = Writer(self._file)
        self._writer.start(profile=self._messages.profile, library="perception")

    def sources_changed(self, info: RunInfo) -> None:
        self._messages.sources_changed(info)

    def write(self, result: Result) -> None:
        for message in self._messages.of_result(result):
            self._write(message)

    def event(self, event: HealthEvent) -> None:
        self._write(self._messages.of_event(event))

    def _write(self, message: Message) -> None:
        channel = self._channels.get(message.topic)
        if channel is None:
            schema = self._schemas.get(message.schema)
            if schema is None:
                schema = self._writer.register_schema(message.schema, message.schema_encoding, message.schema_data)
                self._schemas[message.schema] = schema
            metadata = {"offered_qos_profiles": ""} if self.ros2 else {}
            channel = self._writer.register_channel(message.topic, message.encoding, schema, metadata)
            self._channels[message.topic] = channel
        self._writer.add_message(channel, message.log_ns, message.data, message.log_ns)

    def close(self) -> None:
        writer, self._writer = self._writer, None
        file, self._file = self._file, None
        try:
            if writer is not None:
                writer.finish()
        finally:
            if file is not None:
                file.close()

    def outputs(self) -> list[str]:
        return [str(self.path)]
