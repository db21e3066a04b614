"""MCAP files of ROS 1, ROS 2 and Foxglove, whole or cut short, with bounded memory."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any

import lz4.frame
import zstandard
from mcap.exceptions import McapError
from mcap.reader import SeekingReader
from mcap.records import Channel, Chunk, ChunkIndex, Message, Schema
from mcap.stream_reader import StreamReader, breakup_chunk
from mcap.summary import Summary
from mcap_protobuf.decoder import DecoderFactory

from perception.bags.bag import MOST_RECORD, Bag, Stored, add_topic
from perception.bags.messages import normalised_type, read_ros
from perception.errors import UserError

_MAGIC = b"\x89MCAP0\r\n"
_BROKEN = (
    McapError,
    struct.error,
    ValueError,
    EOFError,
    OverflowError,
    RuntimeError,
    zstandard.ZstdError,
    KeyError,
    MemoryError,
)
"""What parsing bytes that are no MCAP, or not all of one, raises."""


class McapBag(Bag):
    """One recording in one or several files, in order."""

    def __init__(self, path: Path, parts: list[Path]) -> None:
        super().__init__(path)
        self._parts = [_Part(part) for part in parts]
        for part in self._parts:
            part.add_topics(self)
            self.notes += part.notes

    def messages(self, names: Collection[str]) -> Iterator[Stored]:
        for part in self._parts:
            yield from part.messages(names)
            self.notes += [note for note in part.notes if note not in self.notes]

    def close(self) -> None:
        for part in self._parts:
            part.file.close()


class _Bounded(io.BufferedReader):
    """A file that allocates no more for a read than it holds, whatever length a damaged record names."""

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, os.fstat(self.fileno()).st_size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


class _Part:
    """One file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        try:
            self.file: IO[bytes] = _Bounded(path.open("rb", buffering=0))
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}", "an MCAP file", "check the path") from None
        if self.file.read(8) != _MAGIC:
            self.file.close()
            raise UserError(f"{path}: not an MCAP file", "one that begins with MCAP's eight bytes", "mcap info FILE")
        self._decoders: dict[int, Any] = {}
        self._protobuf = DecoderFactory()
        self.summary = self._read_summary()

    def _read_summary(self) -> Summary | None:
        """What stands at the end of the file; None where it ends before, or says nothing of its parts."""
        try:
            summary = SeekingReader(self.file, record_size_limit=MOST_RECORD).get_summary()
        except (*_BROKEN, OSError):
            summary = None
        if summary is not None and summary.channels and summary.chunk_indexes:
            return summary
        return None

    def add_topics(self, bag: Bag) -> None:
        """Topics, counts and times. Without a summary, those that the whole file shows."""
        if self.summary is not None:
            channels, schemas, statistics = self.summary.channels, self.summary.schemas, self.summary.statistics
            counts: dict[int, int] | None = statistics.channel_message_counts if statistics else None
            if statistics is not None and statistics.message_count:
                _widen(bag, statistics.message_start_time, statistics.message_end_time)
        else:
            channels, schemas, counts = {}, {}, {}
            for record in self._scan():
                if isinstance(record, Schema):
                    schemas[record.id] = record
                elif isinstance(record, Channel):
                    channels[record.id] = record
                elif isinstance(record, Message):
                    counts[record.channel_id] = counts.get(record.channel_id, 0) + 1
                    _widen(bag, record.log_time, record.log_time)
        for channel in channels.values():
            schema = schemas.get(channel.schema_id)
            count = None if counts is None else counts.get(channel.id, 0)
            add_topic(bag.topics, channel.topic, schema.name if schema else "", channel.message_encoding, count)

    def messages(self, names: Collection[str]) -> Iterator[Stored]:
        schemas: dict[int, Schema] = dict(self.summary.schemas) if self.summary else {}
        channels: dict[int, Channel] = dict(self.summary.channels) if self.summary else {}
        for record in self._indexed(names) if self.summary else self._scan():
            if isinstance(record, Schema):
                schemas[record.id] = record
            elif isinstance(record, Channel):
                channels[record.id] = record
            elif isinstance(record, Message):
                channel = channels.get(record.channel_id)
                if channel is not None and channel.topic in names:
                    yield self._decoded(record, channel, schemas.get(channel.schema_id))

    def _decoded(self, record: Message, channel: Channel, schema: Schema | None) -> Stored:
        try:
            if channel.message_encoding == "protobuf":
                decoder = self._decoders.get(channel.id) or self._protobuf.decoder_for("protobuf", schema)
                if decoder is None:
                    raise ValueError("no definition of its type")
                self._decoders[channel.id] = decoder
                message = decoder(record.data)
            else:
                name = normalised_type(schema.name if schema else "")
                message = read_ros(record.data, name, channel.message_encoding)
        except Exception as error:  # whatever protobuf raises for bytes that are not its own
            return Stored(channel.topic, record.log_time, None, str(error)[:150] or type(error).__name__)
        return Stored(channel.topic, record.log_time, message)

    def _indexed(self, names: Collection[str]) -> Iterator[Any]:
        """Records of the chunks that hold these topics."""
        assert self.summary is not None
        wanted = {channel.id for channel in self.summary.channels.values() if channel.topic in names}
        for index in sorted(self.summary.chunk_indexes, key=lambda index: index.chunk_start_offset):
            if index.message_index_offsets and not wanted & set(index.message_index_offsets):
                continue
            try:
                yield from self._chunk_at(index)
            except (*_BROKEN, OSError) as error:
                self._note(f"a part of {self.path.name} cannot be read ({_reason(error)}); skipped")

    def _chunk_at(self, index: ChunkIndex) -> list[Any]:
        self.file.seek(index.chunk_start_offset)
        reader = StreamReader(self.file, skip_magic=True, emit_chunks=True, record_size_limit=MOST_RECORD)
        chunk = next(iter(reader.records))
        if not isinstance(chunk, Chunk):
            raise ValueError("no chunk where the index says")
        return breakup_chunk(_unpacked(chunk))

    def _scan(self) -> Iterator[Any]:
        """All records from the beginning, to the end or to where the file was cut."""
        self.file.seek(0)
        reader = StreamReader(self.file, emit_chunks=True, record_size_limit=MOST_RECORD)
        records = iter(reader.records)
        ends = False
        while not ends:
            try:
                record = next(records)
                inside = breakup_chunk(_unpacked(record)) if isinstance(record, Chunk) else [record]
            except StopIteration:
                return
            except (*_BROKEN, OSError) as error:
                whole = self.file.tell()
                self._note(
                    f"{self.path.name} is cut short at byte {whole:,} ({_reason(error)}): what is whole is read"
                )
                return
            yield from inside

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _unpacked(chunk: Chunk) -> Chunk:
    """The chunk without its compression. A small one that would unpack to more than `MOST_RECORD` is refused."""
    most = min(MOST_RECORD, chunk.uncompressed_size)
    if chunk.compression == "zstd":
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(chunk.data)) as stream:
            data = stream.read(most + 1)
    elif chunk.compression == "lz4":
        data = lz4.frame.LZ4FrameDecompressor().decompress(chunk.data, max_length=most + 1)
    else:
        data = chunk.data
    if len(data) != chunk.uncompressed_size:
        raise ValueError(f"a chunk of {len(data):,} bytes where {chunk.uncompressed_size:,} are announced")
    return Chunk(
        compression="",
        data=data,
        message_end_time=chunk.message_end_time,
        message_start_time=chunk.message_start_time,
        uncompressed_crc=chunk.uncompressed_crc,
        uncompressed_size=chunk.uncompressed_size,
    )


def _widen(bag: Bag, first_ns: int, last_ns: int) -> None:
    before = bag.span_ns or (first_ns, last_ns)
    bag.span_ns = (min(before[0], first_ns), max(before[1], last_ns))


def _reason(error: BaseException) -> str:
    return str(error)[:100] or type(error).__name__
