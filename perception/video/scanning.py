"""Find a moment in a stream by reading its packets: exact where seeking is not.

MPEG-TS and MPEG-PS have no index, and their stamps may begin again; raw streams have no stamps at all. Packets are
read from the beginning without decoding, on the same clock that the frames get, until the moment has come. Decoding
begins with the last key frame before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from perception.clocks import StreamClock

MOST_HELD = 2000
"""Packets that wait for a key frame; a stream without any is decoded from there on."""


@dataclass(frozen=True)
class ScanStart:
    """Where decoding begins."""

    packets: Iterator[Any]
    """From the last key frame before the wanted moment."""
    index: int
    """Number of the first of these packets, from 0."""
    last_ns: int | None
    """Time of the packet before it, None where it is the first."""
    offset_ns: int | None
    """Time minus stamp at that place, as `StreamClock.offset_ns`."""


def scan(packets: Iterator[Any], clock: StreamClock, wanted_ns: int, begin: Any, has_clock: bool) -> ScanStart:
    """Read packets up to a moment.

    Args:
        packets: of one stream, from the beginning.
        clock: a new one, as the frames get.
        wanted_ns: the moment, nanoseconds from the beginning.
        begin: first stamp of the stream in seconds.
        has_clock: whether stamps mean anything.
    """
    held: list[Any] = []
    first_index = 0
    before_first: tuple[int | None, int | None] = (None, clock.offset_ns)
    for index, packet in enumerate(packets):
        if packet.size == 0:  # the end
            held.append(packet)
            break
        before = (clock.last_ns, clock.offset_ns)
        stamp = packet.dts if has_clock else None
        time_ns = clock.next_ns(None if stamp is None else round((stamp * packet.time_base - begin) * 10**9))
        shown_ns = time_ns
        if has_clock and packet.pts is not None and packet.dts is not None:
            shown_ns += round((packet.pts - packet.dts) * packet.time_base * 10**9)
        if packet.is_keyframe and shown_ns <= wanted_ns:
            held, first_index, before_first = [], index, (before[0], clock.offset_ns)
        held.append(packet)
        if time_ns >= wanted_ns or len(held) > MOST_HELD:
            break
    last_ns, offset_ns = before_first

    def from_there() -> Iterator[Any]:
        yield from held
        held.clear()
        yield from packets

    return ScanStart(from_there(), first_index, last_ns, offset_ns)
