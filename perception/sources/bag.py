"""One image topic of an MCAP file or ROS bag: `drive.mcap:/camera/front`.

Capture time is the header's stamp. The calibration is the `CameraInfo` topic nearest to the image topic; it does not
say how high the camera stands, so metres need `--height-m`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from perception.arrays import U8
from perception.bags.messages import (
    CALIBRATION_TYPES,
    IMAGE_TYPES,
    CalibrationMessage,
    ImageMessage,
    calibration_of,
    image_of,
)
from perception.bags.reading import list_topics, open_bag, split_location
from perception.cameras.pinhole import PinholeCamera
from perception.cameras.sized import Distortion, SizedCamera
from perception.cameras.yaml_files import FISHEYE, MODELS
from perception.clocks import StreamClock
from perception.errors import UserError
from perception.source_options import SourceOptions
from perception.sources import IMAGES_RATE_HZ, Source
from perception.types import Frame

_FAR_NS = 30 * 3600 * 10**9
"""Stamps this far apart in one recording are a fault of it."""
_TRIED = 50
"""Unreadable messages at the beginning after which a topic is refused."""


def claim(location: str) -> float:
    """3 for a bag, also with a topic after it."""
    return 3.0 if location and split_location(location) is not None else 0.0


def open_source(location: str, name: str, options: SourceOptions) -> Source:
    return BagTopic(location, name, options)


class BagTopic(Source):
    """The images of one topic. A message that cannot be read is counted and skipped."""

    kind = "bag"

    def __init__(self, location: str, name: str, options: SourceOptions) -> None:
        super().__init__(location, name, options)
        found = split_location(location)
        assert found is not None
        self.path, topic = found
        self._bag = open_bag(self.path)
        try:
            self.topic = self._choose(topic)
            self._take_calibration()
            self._begin()
        except BaseException:
            self._bag.close()
            raise

    # ------------------------------------------------------------ opening

    def _choose(self, wanted: str) -> str:
        """The topic to read.

        Raises:
            UserError: none with images, several and none is named, or one that is not there.
        """
        images = {topic.name: topic for topic in self._bag.of_types(IMAGE_TYPES)}
        listed = list_topics(self._bag)
        if not images:
            kinds = "Image, CompressedImage or CompressedVideo, of ROS in CDR or Foxglove in Protobuf"
            raise UserError(f"{self.path}: no topic with images" + (f" ({listed})" if listed else ""), kinds)
        do = f"perception run {self.path}:{next(iter(images))}"
        if not wanted and len(images) > 1:
            raise UserError(f"{self.path}: {len(images)} topics with images", listed, do)
        name = wanted or next(iter(images))
        if name not in images:
            name = "/" + name
        if name not in images:
            raise UserError(f"{self.path}: no images on topic '{wanted}'", listed, do)
        self.frame_count = images[name].messages
        if self._bag.span_ns is not None and self.frame_count and self.frame_count > 1:
            span_s = (self._bag.span_ns[1] - self._bag.span_ns[0]) / 1e9
            self.rate_hz = round((self.frame_count - 1) / span_s, 3) if span_s > 0 else None
        self.rate_hz = self.options.rate_hz or self.rate_hz or IMAGES_RATE_HZ
        return name

    def _begin(self) -> None:
        """Read up to the first image: it says the size, and when time begins.

        Raises:
            UserError: there is none that can be decoded.
        """
        step_ns = round(1e9 / (self.rate_hz or IMAGES_RATE_HZ))
        self._clock = StreamClock(step_ns, None, _FAR_NS)
        self._next_id, self._unstamped = 0, 0
        self._images = self._decoded()
        first = next(self._images, None)
        if first is None:
            raise UserError(f"{self.path}: no messages on topic '{self.topic}'", "a topic with images")
        self.size_hw = (first[0].shape[0], first[0].shape[1])
        self._images = chain([first], self._images)

    def _take_calibration(self) -> None:
        """The calibration topic that shares most of the image topic's name, where it belongs to this one alone."""
        parts = self.topic.split("/")
        topics = [t.name for t in self._bag.of_types(CALIBRATION_TYPES)]
        near = [name for name in topics if parts[: name.count("/")] == name.split("/")[:-1] and name.count("/") > 1]
        alone = topics if len(topics) == 1 and len(self._bag.of_types(IMAGE_TYPES)) == 1 else []
        name = max(near, key=len, default=alone[0] if alone else "")
        if not name:
            self.note("no CameraInfo found for this topic: nothing metric is reported without --camera")
            return
        stored = next((one for one in self._bag.messages([name]) if one.message is not None), None)
        if stored is None:
            self.note(f"{name}: no message that can be read")
        elif self.options.height_m is None:
            self.note(f"{name} does not say how high the camera stands: --height-m METRES makes it the calibration")
        else:
            try:
                is_straight = "rect" in "".join(parts[-2:])
                message = calibration_of(stored.message)
                self.calibration = camera_of(message, self.options.height_m, is_straight, f"{self.path.name}:{name}")
            except ValueError as error:
                self.note(f"{name} is no calibration that can be used: {error}")

    # ------------------------------------------------------------ reading

    def _messages(self) -> Iterator[tuple[ImageMessage | None, int, str]]:
        """Each message of the topic: its image, the time it was recorded, and what is wrong with it."""
        msgtype = self._bag.topics[self.topic].msgtype
        for stored in self._bag.messages([self.topic]):
            if stored.message is None:
                yield None, stored.log_ns, stored.problem
            else:
                try:
                    image = image_of(stored.message, msgtype)
                except ValueError as error:
                    yield None, stored.log_ns, str(error)
                else:
                    yield image, stored.log_ns, ""

    def _decoded(self) -> Iterator[tuple[U8, int, int]]:
        """Image, time and number of each message that can be decoded; times and numbers count from the first."""
        from perception.bags.images import (
            UnknownEncodingError,
            VideoDecoder,
            compressed_to_bgr,
            is_video,
            pixels_to_bgr,
        )

        most = self.options.max_megapixels
        decoder: VideoDecoder | None = None
        times: dict[int, int] = {}  # of packets whose image has not come
        refused: UserError | None = None
        begun = False
        for number, (message, log_ns, problem) in enumerate(self._messages()):
            if message is not None:
                timestamp_ns = self._time(message, log_ns)
            start = time.perf_counter()
            try:
                if message is None:
                    raise UserError(problem)
                if is_video(message):
                    decoder = decoder or VideoDecoder(message.encoding, most)
                    times[number] = timestamp_ns
                    found = [(image, key) for image, key in decoder.push(message.data, number)]
                elif timestamp_ns < self.options.start_s * 1e9 and begun:
                    continue
                elif message.size_hw is not None:
                    found = [(pixels_to_bgr(message, most), number)]
                else:
                    found = [(compressed_to_bgr(message, most), number)]
            except UserError as error:
                refused = refused or error
                if not begun and (isinstance(error, UnknownEncodingError) or number >= _TRIED):
                    break
                self.emit_corrupt(f"message {number} of {self.topic}: {error.found}; skipped")
                continue
            self.decode_ms = (time.perf_counter() - start) * 1e3
            for image, key in found:
                begun = True
                yield image, times.pop(key, timestamp_ns) if decoder else timestamp_ns, key
        for image, key in decoder.flush() if decoder is not None else ():
            begun = True
            yield image, times.pop(key, 0), key
        if not begun and refused is not None:
            raise UserError(f"{self.path}: {self.topic}: {refused.found}", refused.expected, refused.do)

    def _time(self, message: ImageMessage, log_ns: int) -> int:
        """Time of a message on the source's clock."""
        stamp_ns = message.stamp_ns
        if stamp_ns is None:
            self._unstamped += 1
            stamp_ns = log_ns
        if self.epoch_ns is None:
            self.epoch_ns = stamp_ns
            self._clock.offset_ns = -stamp_ns
        return self._clock.next_ns(stamp_ns)

    def read(self) -> Iterator[Frame]:
        expected = 0
        for image, timestamp_ns, number in self._images:
            yield Frame(image, timestamp_ns, number, self.name, None, max(0, number - expected))
            expected = number + 1
        clock = self._clock
        self.notes += [note for note in self._bag.notes if note not in self.notes]
        if self._unstamped:
            self.note(f"{self._unstamped} messages without a stamp; the time of recording is used")
        if clock.segments:
            self.note(f"stamps jumped {clock.segments} times; the clock went on by one frame each time")
        if clock.stood_still:
            self.note(f"{clock.stood_still} images with the stamp of the one before; spaced by the frame rate")
        if clock.out_of_order:
            self.note(f"{clock.out_of_order} stamps were out of order; spaced by the frame rate")

    def close(self) -> None:
        self._bag.close()


def camera_of(message: CalibrationMessage, height_m: float, is_straight: bool, origin: str) -> SizedCamera:
    """The camera of a CameraInfo. Its pitch is taken as 0.

    Args:
        message: with a size, K and perhaps P and distortion.
        height_m: of the camera above the road.
        is_straight: the images are rectified, so P counts and the distortion does not.
        origin: for messages.

    Raises:
        ValueError: a focal length or size that cannot be, or a distortion model that is not known.
    """
    height, width = message.size_hw
    if not (0 < height <= 100_000 and 0 < width <= 100_000):
        raise ValueError(f"a size of {width}×{height} pixels")
    projection = np.hstack([message.K, np.zeros((3, 1))])
    distortion = None
    if is_straight and message.P[0, 0] > 0:
        projection = message.P.copy()
    elif any(message.coefficients):
        model = message.distortion_model or "plumb_bob"
        if len(message.coefficients) not in MODELS.get(model, ()):
            raise ValueError(f"distortion model '{model[:40]}' with {len(message.coefficients)} coefficients")
        distortion = Distortion(message.K, np.array(message.coefficients), model in FISHEYE)
    return SizedCamera(PinholeCamera(projection, height_m), message.size_hw, origin, distortion)


def topics_of(location: str | Path) -> list[str]:
    """Image topics of a bag, for programs that read all of them."""
    found = split_location(str(location))
    if found is None:
        raise UserError(f"{location}: not a bag", "an MCAP file or ROS bag", "check the path")
    bag = open_bag(found[0])
    try:
        return [topic.name for topic in bag.of_types(IMAGE_TYPES)]
    finally:
        bag.close()
