"""Images reach the network upright and with square pixels, whatever the container says about how they are stored."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import corner_names, corners, numbered, write_clip

from perception.cameras.geometry import ImageGeometry
from perception.errors import UserError
from perception.source_options import SourceOptions
from perception.sources import open_source
from perception.video.frames import Deinterlacer, FrameConverter, hdr_to_display_light

# matrix (a, b, c, d) of MP4's track header: a stored point (x, y) is shown at (a x + c y, b x + d y)
MATRICES = {
    "upright": ((1, 0, 0, 1), "RGBW"),
    "90 clockwise": ((0, 1, -1, 0), "BRWG"),
    "180": ((-1, 0, 0, -1), "WBGR"),
    "90 counterclockwise": ((0, -1, 1, 0), "GWRB"),
    "mirrored": ((-1, 0, 0, 1), "GRWB"),
    "upside down": ((1, 0, 0, -1), "BWRG"),
    "transposed": ((0, 1, 1, 0), "RBGW"),
    "transposed the other way": ((0, -1, -1, 0), "WGBR"),
}


def turn(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write a display matrix into an MP4's track header."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    a, b, c, d = (value * 65536 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", MATRICES)
def test_a_display_matrix_is_obeyed(name: str, tmp_path: Path) -> None:
    matrix, shown = MATRICES[name]
    source = open_source(turn(write_clip(tmp_path / "a.mp4", [corners()] * 3), matrix))
    frames = list(source)
    expected = (96, 64) if matrix[0] == 0 else (64, 96)
    assert (source.size_hw, frames[0].size_hw, corner_names(frames[2].image_bgr)) == (expected, expected, shown)
    assert bool(source.notes) == (name != "upright")


def clean_aperture(path: Path, width: int, height: int) -> Path:
    """Insert a `clap` box, centred, into an MP4 whose index is at its end."""
    data = bytearray(path.read_bytes())
    starts, begin, end = [], 0, len(data)
    for name, skip in (
        (b"moov", 0),
        (b"trak", 0),
        (b"mdia", 0),
        (b"minf", 0),
        (b"stbl", 0),
        (b"stsd", 8),
        (b"avc1", 78),
    ):
        at = begin
        while data[at + 4 : at + 8] != name:
            at += struct.unpack(">I", data[at : at + 4])[0]
            assert at < end
        starts.append(at)
        begin, end = at + 8 + skip, at + struct.unpack(">I", data[at : at + 4])[0]
    data[end:end] = struct.pack(">I4s8i", 40, b"clap", width, 1, height, 1, 0, 1, 0, 1)
    for at in starts:
        data[at : at + 4] = struct.pack(">I", struct.unpack(">I", data[at : at + 4])[0] + 40)
    path.write_bytes(data)
    return path


def test_a_clean_aperture_is_cut_out(tmp_path: Path) -> None:
    image = np.zeros((64, 96, 3), np.uint8)  # black borders around the corners
    image[8:56, 16:80] = corners((48, 64))
    path = clean_aperture(write_clip(tmp_path / "a.mp4", [image] * 2), 64, 48)
    if "Frame Cropping" not in ffmpeg_listing(path):
        pytest.skip("this FFmpeg does not read clean apertures")
    source = open_source(turn(path, (0, 1, -1, 0)))
    frames = list(source)
    assert (source.size_hw, frames[1].size_hw) == ((64, 48), (64, 48))
    assert corner_names(frames[1].image_bgr) == "BRWG"
    assert frames[1].image_bgr.max(axis=2).min() > 100  # no border is left


def ffmpeg_listing(path: Path) -> str:
    with av.open(str(path)) as container:
        level = av.logging.get_level()
        try:
            av.logging.set_level(av.logging.INFO)
            return container.dumps_format()
        finally:
            av.logging.set_level(level)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_is_obeyed_in_every_format(suffix: str, orientation: int, tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image", reason="Pillow writes the orientation")
    ops = pytest.importorskip("PIL.ImageOps")
    path = tmp_path / f"a.{suffix}"
    image = pillow.fromarray(corners()[..., ::-1])
    exif = image.getexif()
    exif[274] = orientation
    options = {"tiffinfo": {274: orientation}} if suffix == "tiff" else {"exif": exif}
    image.save(path, **options)
    truth = corner_names(np.asarray(ops.exif_transpose(pillow.open(path)))[..., ::-1])
    (frame,) = open_source(path)
    assert corner_names(frame.image_bgr) == truth
    assert corner_names(ImageGeometry.from_exif(orientation).apply(corners())) == truth


@pytest.mark.parametrize(
    ("aspect", "shown"), [(Fraction(4, 3), (64, 128)), (Fraction(1, 2), (128, 96)), (Fraction(1), (64, 96))]
)
def test_pixels_become_square(aspect: Fraction, shown: tuple[int, int], tmp_path: Path) -> None:
    source = open_source(write_clip(tmp_path / "a.mp4", [corners()] * 2, aspect=aspect))
    frames = list(source)
    assert (source.size_hw, frames[1].size_hw, corner_names(frames[1].image_bgr)) == (shown, shown, "RGBW")


def test_an_absurd_pixel_aspect_is_ignored_and_said() -> None:
    converter = FrameConverter()
    frame = av.VideoFrame.from_ndarray(corners(), "bgr24")
    assert converter.to_bgr(frame, Fraction(5000)).shape == (64, 96, 3)
    assert "cannot be true" in converter.notes["aspect"]


def test_interlaced_video_is_deinterlaced_by_choice(tmp_path: Path) -> None:
    fields = []
    for number in range(6):  # a bar that moves 8 pixels between the fields
        image = np.full((64, 96, 3), 30, np.uint8)
        for row in (0, 1):
            left = 16 * number + 8 * row
            image[row::2, left : left + 8] = 230
        fields.append(image)
    path = write_clip(tmp_path / "a.mp4", fields, flags="+ildct+ilme", crf="1")
    combs = {}
    for deinterlace in (True, False):
        source = open_source(path, SourceOptions(deinterlace=deinterlace))
        frames = list(source)
        assert [f.timestamp_ns for f in frames] == [n * 10**8 for n in range(6)]
        assert any("interlaced" in note for note in source.notes)
        grey = frames[3].image_bgr[..., 1].astype(int)
        combs[deinterlace] = np.abs(grey[1:-1:2] - (grey[:-2:2] + grey[2::2]) / 2).mean()
    assert combs[True] < combs[False] / 4


def test_a_progressive_frame_passes_the_deinterlacer_untouched() -> None:
    frame = av.VideoFrame.from_ndarray(corners(), "bgr24")
    assert list(Deinterlacer()(frame, None)) == [frame]


def test_hdr_curves_by_hand() -> None:
    """PQ code 0.508 is 100 cd/m², the reference white; HLG's 0.5 is a twelfth of the scene's peak."""
    pq, hlg = hdr_to_display_light("PQ"), hdr_to_display_light("HLG")
    for curve in (pq, hlg):
        assert curve[0] == 0 and curve[255] == pytest.approx(1, abs=0.01) and (np.diff(curve) >= 0).all()
    assert pq[103] == pytest.approx(0.324, abs=0.03)  # 33 cd/m² are below or at the knee: unchanged
    assert 0.6 < pq[130] < 0.7  # white keeps headroom above it
    assert hlg[64] == pytest.approx(10 * ((64 / 255) ** 2 / 3) ** 1.2, rel=1e-3)


def test_hdr_case_looks_like_the_original(cases_root: Path) -> None:
    source = open_source(cases_root / "hdr" / "street_pq.mp4")
    frame = next(iter(source))
    original = next(iter(open_source(cases_root / "size-change-camera" / "street_1242_then_620.ts")))
    assert abs(frame.image_bgr.std() - original.image_bgr.std()) < 16
    assert np.abs(frame.image_bgr.mean((0, 1)) - original.image_bgr.mean((0, 1))).max() < 12


def test_cover_art_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=8000)
        cover = container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 640, 480, "rgb24"
        cover.disposition = 0x400
        cover_frame = av.VideoFrame.from_ndarray(np.zeros((480, 640, 3), np.uint8), "rgb24")
        container.mux(cover.encode(cover_frame))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    with pytest.raises(UserError, match="cover art"):
        open_source(path)


def test_the_largest_of_several_videos_is_read_and_named(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=10) for _ in range(2)]
        for stream, (height, width) in zip(streams, ((48, 64), (96, 128)), strict=True):
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for stream, size in zip(streams, ((48, 64), (96, 128)), strict=True):
            for number in range(3):
                frame = av.VideoFrame.from_ndarray(numbered(number, size), "bgr24")
                frame.pts, frame.time_base = number, Fraction(1, 10)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    source = open_source(path)
    assert source.size_hw == (96, 128)
    assert "2 video streams: #1 (h264 128x96) is read, not #0 (h264 64x48)" in source.notes


# ---------------------------------------------------------------- limits


def test_a_large_image_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    cv2.imwrite(str(path), np.zeros((2000, 3000, 3), np.uint8))
    with pytest.raises(UserError, match=r"6 megapixels[\s\S]*--max-megapixels 7"):
        open_source(path, SourceOptions(max_megapixels=5))
    assert open_source(path, SourceOptions(max_megapixels=7)).size_hw == (2000, 3000)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tiff", "webp", "ppm"])
def test_every_header_is_read_before_decoding(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(path), np.zeros((100, 200, 3), np.uint8))
    with pytest.raises(UserError, match="200×100"):
        open_source(path, SourceOptions(max_megapixels=0.01))


def test_a_png_that_promises_gigabytes_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.zeros((24, 32, 3), np.uint8))
    data = path.read_bytes()
    at = data.index(b"IDAT") - 4
    path.write_bytes(data[:at] + struct.pack(">I", 0xFF000000) + data[at + 4 :])
    with pytest.raises(UserError, match="cannot be decoded"):
        open_source(path)


def test_a_large_video_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", [np.zeros((512, 1024, 3), np.uint8)])
    with pytest.raises(UserError, match="megapixels"):
        open_source(path, SourceOptions(max_megapixels=0.5))


@pytest.mark.parametrize("pixels", ["bayer_rggb8", "bayer_gbrg16le"])
@pytest.mark.parametrize("size", [(5, 5), (16, 3), (4, 3), (17, 2), (3, 4), (640, 33)])
def test_raw_bayer_of_odd_sizes_does_not_end_the_process(pixels: str, size: tuple[int, int]) -> None:
    frame = av.VideoFrame(*size, pixels)
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    width, height = size[0] // 2 * 2, size[1] // 2 * 2
    expected = (size[1], size[0]) if size[0] % 2 == size[1] % 2 == 0 else (height, width)
    assert FrameConverter().to_bgr(frame).shape[:2] == expected


@pytest.mark.parametrize(("width", "height"), [(16, 1), (1, 16), (1, 1)])
def test_raw_bayer_without_a_second_row_is_a_sentence(width: int, height: int) -> None:
    with pytest.raises(UserError, match="raw Bayer"):
        FrameConverter().to_bgr(av.VideoFrame(width, height, "bayer_rggb8"))
