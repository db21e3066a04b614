"""When stored frames were taken: stamps that restart, jump, repeat or are missing, raw streams, and exact starts."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import pytest
from clips import number_of, numbered, write_clip

from perception.clocks import StreamClock
from perception.errors import UserError
from perception.source_options import SourceOptions
from perception.sources import Source, open_source

MS = 10**6


def times_ms(source: Source) -> list[int]:
    return [round(frame.timestamp_ns / MS) for frame in source]


def clip(path: Path, count: int, rate: int = 10, **options) -> Path:
    return write_clip(path, (numbered(n) for n in range(count)), rate, **options)


# ---------------------------------------------------------------- the clock alone


def stored(
    stamps_ms: list[int | None], step_ms: int = 100, furthest_ms: int = 10_000
) -> tuple[list[int], StreamClock]:
    clock = StreamClock(step_ms * MS, 0, furthest_ms * MS)
    return [clock.next_ns(None if s is None else s * MS) // MS for s in stamps_ms], clock


@pytest.mark.parametrize(
    ("stamps", "expected", "segments", "still"),
    [
        ([0, 100, 200, 300], [0, 100, 200, 300], 0, 0),
        ([0, 40, 50, 251, 900], [0, 40, 50, 251, 900], 0, 0),  # a rate that varies is the truth
        ([0, 100, 200, 0, 100, 200], [0, 100, 200, 300, 400, 500], 1, 0),  # joined with cat
        ([0, 100, 3_600_000, 3_600_100], [0, 100, 200, 300], 1, 0),  # a jump ahead
        ([0, 100, 5_000, 5_100], [0, 100, 5_000, 5_100], 0, 0),  # a gap
        ([None, None, 200, 300], [0, 100, 200, 300], 0, 0),  # missing at the start, and in their place
        ([None, None, 0, 100], [0, 100, 200, 300], 1, 0),  # missing before the first
        ([0, 100, None, None, 400], [0, 100, 200, 300, 400], 0, 0),
        ([0, 0, 0, 0], [0, 100, 200, 300], 0, 3),
        ([0, 100, 100, 200, 300, 400], [0, 100, 200, 250, 300, 400], 0, 1),  # one that repeats is caught up with
        ([0, 100, 300, 200, 400, 500], [0, 100, 300, 400, 450, 500], 0, 0),  # two that changed places
        ([0, 100, 200, 100, 200, 300], [0, 100, 200, 300, 400, 500], 1, 0),  # joined with an overlap
        ([900_000, 900_100, 900_200], [0, 100, 200], 1, 0),  # far from the announced beginning
        ([0, 100, 20_000, 20_100, 0, 100], [0, 100, 200, 300, 400, 500], 2, 0),
    ],
)
def test_stamps_of_a_stored_source(stamps: list[int | None], expected: list[int], segments: int, still: int) -> None:
    found, clock = stored(stamps)
    assert found == expected
    assert (clock.segments, clock.stood_still) == (segments, still)


# ---------------------------------------------------------------- joined files


def test_ts_files_joined_by_cat_go_on(tmp_path: Path) -> None:
    one = clip(tmp_path / "one.ts", 10).read_bytes()
    two = clip(tmp_path / "two.ts", 7).read_bytes()
    path = tmp_path / "both.ts"
    path.write_bytes(one + two)
    source = open_source(path)
    frames = list(source)
    assert [round(f.timestamp_ns / MS) for f in frames] == [n * 100 for n in range(17)]
    assert [f.frame_id for f in frames] == list(range(17))
    assert any("jumped" in note for note in source.notes)
    late = list(open_source(path, SourceOptions(start_s=1.2)))
    assert [(f.frame_id, number_of(f.image_bgr)) for f in late] == [(n, n - 10) for n in range(12, 17)]


def test_an_hls_discontinuity_goes_on(tmp_path: Path) -> None:
    for name in ("a", "b"):
        clip(tmp_path / f"{name}.ts", 10)
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXT-X-PLAYLIST-TYPE:VOD\n"
        "#EXTINF:1.0,\na.ts\n#EXT-X-DISCONTINUITY\n#EXTINF:1.0,\nb.ts\n#EXT-X-ENDLIST\n"
    )
    found = times_ms(open_source(playlist))
    assert found == [n * 100 for n in range(20)]


def test_a_playlist_whose_files_never_come_is_given_up(tmp_path: Path) -> None:
    playlist = tmp_path / "live.m3u8"
    playlist.write_text("#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\nnone.ts\n")
    with pytest.raises(UserError, match=r"playlist whose parts cannot be read|gives no image within"):
        open_source(playlist, SourceOptions(timeout_s=1))


def test_a_local_playlist_that_nobody_continues_ends(tmp_path: Path) -> None:
    clip(tmp_path / "a.ts", 10)
    playlist = tmp_path / "live.m3u8"
    playlist.write_text("#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\na.ts\n")
    source = open_source(playlist, SourceOptions(timeout_s=2))
    assert source.live
    frames = list(source)
    assert [number_of(f.image_bgr) for f in frames] == list(range(10))
    assert any("playlist was not continued" in note for note in source.notes)


def test_a_video_that_begins_between_two_key_frames(tmp_path: Path) -> None:
    whole = clip(tmp_path / "whole.ts", 30, gop=10, sc_threshold="0")
    with av.open(str(whole)) as given, av.open(str(tmp_path / "cut.ts"), "w") as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        for number, packet in enumerate(p for p in given.demux(video=0) if p.size):
            if number >= 4:
                packet.stream = stream
                out.mux(packet)
    source = open_source(tmp_path / "cut.ts")
    frames = list(source)
    assert number_of(frames[0].image_bgr) == 10
    assert times_ms_from(frames) == [n * 100 for n in range(20)]
    assert any("between two key frames" in note for note in source.notes)


def times_ms_from(frames: list) -> list[int]:
    first = frames[0].timestamp_ns
    return [round((frame.timestamp_ns - first) / MS) for frame in frames]


# ---------------------------------------------------------------- no clock at all

RAW = [("a.h264", "libx264", "h264"), ("a.mjpeg", "mjpeg", "mjpeg"), ("a.m2v", "mpeg2video", "mpeg2video")]


def raw(path: Path, codec: str, container_format: str, count: int = 20) -> Path:
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    rate = 25 if codec == "mpeg2video" else 10
    return clip(path, count, rate, codec=codec, container_format=container_format, pixel_format=pixels, gop=5)


def test_a_raw_stream_goes_by_its_own_rate(tmp_path: Path) -> None:
    source = open_source(raw(tmp_path / "a.h264", "libx264", "h264"))
    assert source.rate_hz == 10
    assert times_ms(source) == [n * 100 for n in range(20)]
    assert source.notes == []


def test_a_raw_stream_without_a_rate_says_that_it_is_a_guess(tmp_path: Path) -> None:
    path = raw(tmp_path / "a.mjpeg", "mjpeg", "mjpeg")
    source = open_source(path)
    assert times_ms(source) == [n * 40 for n in range(20)]
    assert any("25 Hz is a guess" in note for note in source.notes)
    asked = open_source(path, SourceOptions(rate_hz=10))
    assert times_ms(asked) == [n * 100 for n in range(20)]
    assert asked.notes == []


def test_a_rate_that_is_not_used_is_said(video_file: Path) -> None:
    source = open_source(video_file, SourceOptions(rate_hz=5))
    assert times_ms(source) == [n * 100 for n in range(20)]
    assert any("--rate 5 is not used" in note for note in source.notes)


# ---------------------------------------------------------------- starts


@pytest.mark.parametrize("suffix", ["ts", "mpg", "mp4", "mkv", "avi", "flv"])
@pytest.mark.parametrize("start_s", [0.02, 0.4, 1.55, 2.6, 2.96])
def test_a_start_is_exact_to_the_frame(suffix: str, start_s: float, tmp_path: Path) -> None:
    codec = {"mpg": "mpeg2video", "avi": "mpeg4"}.get(suffix, "libx264")
    path = clip(tmp_path / f"a.{suffix}", 75, 25, codec=codec, gop=25)
    frames = list(open_source(path, SourceOptions(start_s=start_s)))
    first = -int(-start_s * 25 // 1)
    assert [number_of(f.image_bgr) for f in frames] == list(range(first, 75))
    assert [round(f.timestamp_ns / MS) for f in frames] == [n * 40 for n in range(first, 75)]
    assert [f.frame_id for f in frames] == list(range(first, 75))


@pytest.mark.parametrize(("name", "codec", "container_format"), RAW)
def test_raw_streams_start_where_they_are_asked_to(
    name: str, codec: str, container_format: str, tmp_path: Path
) -> None:
    path = raw(tmp_path / name, codec, container_format)
    rate = open_source(path).rate_hz
    assert rate is not None
    frames = list(open_source(path, SourceOptions(start_s=12 / rate)))
    assert [number_of(f.image_bgr) for f in frames] == list(range(12, 20))
    assert [f.frame_id for f in frames] == list(range(12, 20))
    assert list(open_source(path, SourceOptions(start_s=100))) == []


def test_an_edit_list_hides_frames_on_purpose(tmp_path: Path, cases_root: Path) -> None:
    source = open_source(cases_root / "editlist-count" / "cut_without_reencode.mp4")
    assert (source.frame_count, times_ms(source), source.notes) == (12, [n * 40 for n in range(12)], [])


# ---------------------------------------------------------------- names, metadata, damage


@pytest.mark.parametrize(
    "name", ["12:30:00.mp4", "cache:x.mp4", "concat:a.mp4", "rtsp:x.mp4", "pipe:0.mp4", "50% ü.mp4", "file:a.mp4"]
)
def test_names_of_local_files_are_names(name: str, video_file: Path, tmp_path: Path, monkeypatch) -> None:
    shutil.copy(video_file, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(list(open_source(name))) == 20
    assert len(list(open_source(tmp_path / name))) == 20
    assert len(list(open_source(f"front={name}"))) == 20


def test_a_file_url_is_a_path(video_file: Path, tmp_path: Path) -> None:
    shutil.copy(video_file, tmp_path / "12:30 ü.mp4")
    for url in (
        (tmp_path / "12:30 ü.mp4").as_uri(),
        f"file://{tmp_path}/12:30 ü.mp4",
        f"FILE://localhost{video_file}",
    ):
        assert len(list(open_source(url))) == 20
    with pytest.raises(UserError, match="no such file"):
        open_source(f"file://{tmp_path}/none.mp4")


def test_metadata_in_another_encoding(video_file: Path, tmp_path: Path) -> None:
    data = video_file.read_bytes()
    path = tmp_path / "a.mkv"
    with av.open(str(video_file)) as given, av.open(str(path), "w") as out:
        out.metadata["title"] = "Strasse"
        stream = out.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    data = path.read_bytes()
    assert b"Strasse" in data
    path.write_bytes(data.replace(b"Strasse", b"Stra\xdf\xffe"))
    assert len(list(open_source(path))) == 20


def test_an_unknown_codec_is_a_sentence(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", 3)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz9"))
    with pytest.raises(UserError, match=r"no decoder for its codec \(zzz9\)"):
        open_source(path)


@pytest.mark.parametrize(("suffix", "codec", "pixels"), [("mov", "png", "rgb24"), ("avi", "mjpeg", "yuvj420p")])
def test_a_broken_image_in_the_middle_costs_itself(suffix: str, codec: str, pixels: str, tmp_path: Path) -> None:
    path = clip(tmp_path / f"a.{suffix}", 20, codec=codec, pixel_format=pixels)
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    data = path.read_bytes()
    assert packets[5] in data
    path.write_bytes(data.replace(packets[5], b"\x11" * len(packets[5])))
    source = open_source(path)
    frames = list(source)
    assert [number_of(f.image_bgr) for f in frames] == [n for n in range(20) if n != 5]
    assert [f.frame_id for f in frames] == [n for n in range(20) if n != 5]
    assert (frames[5].dropped_before, source.corrupt) == (1, 1)


@pytest.mark.parametrize("name", ["a.jpg", "a.mp4", "camera.toml"])
def test_a_git_lfs_pointer_is_named(name: str, tmp_path: Path) -> None:
    from perception.cameras.files import read_camera

    path = tmp_path / name
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n")
    with pytest.raises(UserError, match="git lfs pull"):
        read_camera(path) if name.endswith("toml") else open_source(path)
