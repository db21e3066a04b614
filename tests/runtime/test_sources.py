"""What comes out of files and folders: frame ids, times, losses, and sentences instead of tracebacks."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from perception.errors import UserError
from perception.source_options import SourceOptions
from perception.sources import Source, open_source, open_sources
from perception.sources.kitti import mended_times, read_timestamps
from perception.types import Frame

IMAGE = np.random.default_rng(0).integers(0, 255, (40, 64, 3)).astype(np.uint8)

NAN, INFINITE = float("nan"), float("inf")


def ids(source: Source) -> list[int]:
    return [frame.frame_id for frame in source]


# ---------------------------------------------------------------- video


def test_a_video_gives_every_frame_at_its_time(video_file: Path) -> None:
    source = open_source(video_file)
    frames = list(source)
    assert (source.size_hw, source.rate_hz, source.live) == ((96, 320), 10.0, False)
    assert [f.frame_id for f in frames] == list(range(20))
    assert [f.timestamp_ns for f in frames] == [i * 10**8 for i in range(20)]
    assert frames[3].image_bgr.shape == (96, 320, 3)
    assert abs(int(frames[10].image_bgr[30, 60].mean()) - 255) < 12  # the square has moved to x = 50..70


def test_variable_frame_rate_keeps_its_exact_times(tmp_path: Path) -> None:
    from perception.sinks.video import H264Writer

    times_ms = [0, 40, 50, 250, 251, 900]
    writer = H264Writer(tmp_path / "vfr.mp4", 25)
    for t in times_ms:
        writer.write(IMAGE, t * 10**6)
    writer.close()
    assert [f.timestamp_ns // 10**6 for f in open_source(tmp_path / "vfr.mp4")] == times_ms


def test_start_duration_and_every(video_file: Path) -> None:
    options = SourceOptions(start_s=0.5, duration_s=1.0, every=3)
    frames = list(open_source(video_file, options))
    assert [f.timestamp_ns // 10**8 for f in frames] == [f.frame_id for f in frames]
    assert all(5 <= f.frame_id < 15 for f in frames)
    assert np.diff([f.frame_id for f in frames]).tolist() == [3] * (len(frames) - 1)
    assert sum(f.dropped_before for f in frames) == 0  # nobody wanted them, so they are not lost


def test_corrupt_packets_cost_themselves_only(video_file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mkv"  # a container that does not care what its packets hold
    with av.open(str(video_file)) as given, av.open(str(broken), "w") as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        for number, packet in enumerate(given.demux(video=0)):
            if packet.dts is None:
                continue
            if number in (5, 6):
                damaged = av.Packet(b"\xff" * packet.size)
                damaged.pts, damaged.dts, damaged.time_base = packet.pts, packet.dts, packet.time_base
                packet = damaged
            packet.stream = stream
            out.mux(packet)
    source = open_source(broken)
    frames = list(source)
    assert source.corrupt > 0
    assert len(frames) >= 15
    assert all(b.timestamp_ns > a.timestamp_ns for a, b in pairwise(frames))


def test_a_file_cut_short_gives_what_it_holds(video_file: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(video_file.read_bytes()[: video_file.stat().st_size * 2 // 3])
    source = open_source(cut)
    assert 5 <= len(list(source)) < 20


def test_odd_sizes_and_full_colour(tmp_path: Path) -> None:
    path = tmp_path / "odd.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 63, 41, "bgr0"
        image = np.zeros((41, 63, 3), np.uint8)
        image[:, :, 2] = 200
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "bgr24").reformat(format="bgr0")))
        container.mux(stream.encode(None))
    (frame,) = open_source(path)
    assert frame.image_bgr.shape == (41, 63, 3)
    assert frame.image_bgr[20, 20].tolist() == [0, 0, 200]


def test_sample_videos_read_to_their_end(data_root: Path) -> None:
    source = open_source(data_root / "videos" / "udacity_test_small1.mp4")
    assert len(ids(source)) == 88
    assert source.notes == []  # the header counts 91, three of which the edit list hides


@pytest.mark.parametrize(("content", "says"), [(b"", "empty"), (b"not a video\n" * 99, "is it a video")])
def test_what_is_no_video_is_a_sentence(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "drive.mp4"
    path.write_bytes(content)
    with pytest.raises(UserError, match=says):
        open_source(path)


def test_sound_alone_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(UserError, match="holds no image"):
        open_source(path)


def test_a_missing_path_and_a_dead_address(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        open_source(tmp_path / "none.mp4")
    with pytest.raises(UserError) as error:
        open_source("rtsp://me:secret@127.0.0.1:9/a", SourceOptions(timeout_s=1))
    assert "secret" not in str(error.value)
    assert "***@127.0.0.1:9" in str(error.value)


# ---------------------------------------------------------------- pictures


def test_a_folder_in_natural_order_with_one_broken_picture(tmp_path: Path) -> None:
    for i in (1, 2, 9, 10, 11):
        cv2.imwrite(str(tmp_path / f"f{i}.png"), np.full((8, 8, 3), i, np.uint8))
    (tmp_path / "f9.png").write_bytes(b"broken")
    (tmp_path / ".hidden.png").write_bytes(b"x")
    source = open_source(tmp_path, SourceOptions(rate_hz=20))
    events = []
    source.on_event = events.append
    frames = list(source)
    assert [int(f.image_bgr[0, 0, 0]) for f in frames] == [1, 2, 10, 11]
    assert [f.frame_id for f in frames] == [0, 1, 3, 4]
    assert [f.dropped_before for f in frames] == [0, 0, 1, 0]
    assert [f.timestamp_ns // 10**6 for f in frames] == [0, 50, 150, 200]
    assert (source.corrupt, [e.kind for e in events]) == (1, ["corrupt"])


def test_a_jpeg_that_is_cut_short_is_counted(tmp_path: Path) -> None:
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.jpg"), IMAGE)
    path = tmp_path / "1.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    source = open_source(tmp_path)
    events = []
    source.on_event = events.append
    assert ids(source) == [0, 2]
    assert source.corrupt == 1
    assert "1.jpg: the end of the image is missing" in events[0].detail


def test_a_flood_of_damage_is_counted_but_not_a_flood_of_events(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), IMAGE)
    for i in range(1, 60):
        (tmp_path / f"{i}.png").write_bytes(b"broken")
    source = open_source(tmp_path)
    events = []
    source.on_event = events.append
    assert ids(source) == [0]
    assert source.corrupt == 59
    assert 1 <= len(events) < 59


@pytest.mark.parametrize(
    "image",
    [
        np.full((5, 7), 128, np.uint8),
        np.full((5, 7), 128 * 257, np.uint16),
        np.full((5, 7, 4), 128, np.uint8),
        np.full((5, 7, 3), 128 * 257, np.uint16),
    ],
    ids=["grey", "grey-16", "rgba", "colour-16"],
)
def test_any_kind_of_picture_becomes_bgr(image: np.ndarray, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), image)
    (frame,) = open_source(tmp_path / "a.png")
    assert frame.image_bgr.shape == (5, 7, 3)
    assert (np.abs(frame.image_bgr.astype(int) - 128) <= 1).all()


def test_folders_without_pictures_are_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="without images"):
        open_source(tmp_path)
    (tmp_path / "drive.MP4").write_bytes(b"x")
    with pytest.raises(UserError, match=r"perception run .*drive\.MP4"):
        open_source(tmp_path)
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(UserError, match="cannot be decoded"):
        open_source(tmp_path)


# ---------------------------------------------------------------- KITTI

P2 = "P2: 700 0 32 0 0 700 20 0 0 0 1 0\n"


def pictures(folder: Path, numbers: list[int], digits: int = 6) -> Path:
    folder.mkdir(parents=True)
    for number in numbers:
        cv2.imwrite(str(folder / f"{number:0{digits}d}.png"), IMAGE)
    return folder


def test_kitti_tracking_brings_its_calibration_and_its_gaps(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "training" / "image_02" / "0003", [0, 1, 4])
    (tmp_path / "training" / "calib").mkdir()
    (tmp_path / "training" / "calib" / "0003.txt").write_text(P2)
    frames = list(open_source(folder))
    assert [f.frame_id for f in frames] == [0, 1, 4]
    assert [f.timestamp_ns // 10**8 for f in frames] == [0, 1, 4]
    assert frames[0].camera is not None
    assert frames[0].camera.P_cam2[0, 0] == 700


def test_kitti_raw_brings_its_time_stamps(tmp_path: Path) -> None:
    drive = tmp_path / "2011_09_26" / "2011_09_26_drive_0001_sync"
    pictures(drive / "image_02" / "data", [0, 1, 2], 10)
    (drive / "image_02" / "timestamps.txt").write_text(
        "2011-09-26 23:59:59.900000000\n2011-09-27 00:00:00.003339\n2011-09-27 00:00:00.100000005\n"
    )
    (tmp_path / "2011_09_26" / "calib_cam_to_cam.txt").write_text(
        "S_02: 1 2\nP_rect_02: 700 0 32 0 0 700 20 0 0 0 1 0\n"
    )
    for location in (drive, drive / "image_02", drive / "image_02" / "data"):
        frames = list(open_source(location))
        assert [f.timestamp_ns for f in frames] == [0, 103_339_000, 200_000_005]
        assert frames[0].camera is not None


def test_a_bad_time_stamp_is_named(tmp_path: Path) -> None:
    path = tmp_path / "timestamps.txt"
    path.write_text("2011-09-26 13:02:25.5\nyesterday\n")
    with pytest.raises(UserError, match=r"timestamps\.txt:2"):
        read_timestamps(path)


def test_kitti_object_has_a_calibration_for_each_picture(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "image_2", [3, 7])
    (tmp_path / "calib").mkdir()
    (tmp_path / "calib" / "000007.txt").write_text(P2)
    assert [f.camera is not None for f in open_source(folder)] == [False, True]


DAY = "721.5377 0 609.5593 {} 0 721.5377 172.854 0.2 0 0 1 0.003\n"
ALL_CAMERAS = "".join(f"P{n}: " + DAY.format(-100 * n) for n in range(4))


def layout(root: Path, kind: str, camera: int, size_hw: tuple[int, int]) -> Path:
    """One of KITTI's folders with three images and the calibration of 1242×375."""
    parents = {
        "tracking": root / f"image_0{camera}" / "0003",
        "raw": root / "2011_09_26" / "2011_09_26_drive_0001_sync" / f"image_0{camera}" / "data",
        "object": root / f"image_{camera}",
        "odometry": root / "sequences" / "00" / f"image_{camera}",
    }
    folder = parents[kind]
    folder.mkdir(parents=True)
    for number in range(3):
        cv2.imwrite(str(folder / f"{number:06d}.jpg"), np.full((*size_hw, 3), 99, np.uint8))
    files = {
        "tracking": root / "calib" / "0003.txt",
        "raw": root / "2011_09_26" / "calib_cam_to_cam.txt",
        "object": root / "calib" / "000000.txt",
        "odometry": folder.parent / "calib.txt",
    }
    files[kind].parent.mkdir(exist_ok=True)
    raw = "".join(f"S_rect_0{n}: 1242 375\nP_rect_0{n}: " + DAY.format(-100 * n) for n in range(4))
    files[kind].write_text(raw if kind == "raw" else ALL_CAMERAS)
    if kind == "raw":
        (folder.parent / "timestamps.txt").write_text("".join(f"2011-09-26 13:02:2{n}.5\n" for n in range(3)))
    if kind == "odometry":
        (folder.parent / "times.txt").write_text("0.0\n1.0e-01\n0.25\n")
    return folder


@pytest.mark.parametrize("kind", ["tracking", "raw", "object", "odometry"])
@pytest.mark.parametrize("camera", range(4))
def test_each_kitti_camera_has_its_own_projection(kind: str, camera: int, tmp_path: Path) -> None:
    frame = next(iter(open_source(layout(tmp_path, kind, camera, (375, 1242)))))
    assert frame.camera is not None
    assert frame.camera.P_cam2[0].tolist() == [721.5377, 0, 609.5593, -100 * camera]


@pytest.mark.parametrize("kind", ["tracking", "raw", "object", "odometry"])
def test_resized_kitti_folders_scale_their_calibration_and_say_so(kind: str, tmp_path: Path) -> None:
    source = open_source(layout(tmp_path, kind, 2, (188, 621)))
    frame = next(iter(source))
    assert frame.camera is not None
    assert frame.camera.P_cam2[0, :3].tolist() == pytest.approx([360.77, 0, 304.78], rel=1e-4)
    assert "the calibration is scaled from 1242×375 to 621×188 pixels" in source.notes


@pytest.mark.parametrize("kind", ["tracking", "raw", "object", "odometry"])
def test_cropped_kitti_folders_give_no_metres_and_say_so(kind: str, tmp_path: Path) -> None:
    source = open_source(layout(tmp_path, kind, 2, (375, 800)))
    frames = list(source)
    assert [f.camera for f in frames] == [None] * 3
    assert len([note for note in source.notes if "no metres" in note and "1242×375" in note]) == 1


def test_a_stream_that_changes_its_size_has_a_camera_for_each(tmp_path: Path) -> None:
    from perception.cameras.files import CameraFile
    from perception.sources import calibrate_sources

    sizes = [(300, 400)] * 2 + [(150, 200)] * 2 + [(300, 300)] * 2 + [(300, 400)]
    for number, size_hw in enumerate(sizes):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((*size_hw, 3), np.uint8))
    source = open_source(tmp_path)
    calibrate_sources([source], CameraFile(400, 300, 1.5, 400, 400, 200, 150).sized("camera.toml"))
    focal = [f.camera and f.camera.K_cam2[0, 0] for f in source]
    assert focal == [400, 400, 200, 200, None, None, 400]
    assert any("no metres" in note and "400×300" in note for note in source.notes)


def test_a_calibration_that_cannot_belong_to_the_first_image_is_refused(tmp_path: Path) -> None:
    from perception.cameras.files import CameraFile
    from perception.sources import calibrate_sources

    cv2.imwrite(str(tmp_path / "0.png"), IMAGE)
    with pytest.raises(UserError, match="400×300"):
        calibrate_sources([open_source(tmp_path)], CameraFile(400, 300, 1.5, 400, 400, 200, 150).sized())


def test_odometry_times(tmp_path: Path) -> None:
    frames = list(open_source(layout(tmp_path, "odometry", 2, (375, 1242))))
    assert [f.timestamp_ns // 10**6 for f in frames] == [0, 100, 250]


STAMP = "2011-09-26 13:02:25.{}\n"


@pytest.mark.parametrize(
    ("lines", "expected_ms"),
    [
        (["0", "1", "2", "3"], [0, 100, 200, 300]),
        (["0", "", "2", "3"], [0, 100, 200, 300]),
        (["0", "1", "", "", "45"], [0, 100, 216, 333, 450]),
        (["0", "2", "1", "3"], [0, 100, 200, 300]),
        (["1", "0", "2", "3"], [0, 100, 200, 300]),
        (["0", "1", "1", "3"], [0, 100, 200, 300]),
        (["5", "6", "7", "8", "9", "0", "1"], [0, 100, 200, 300, 400, 500, 600]),
    ],
)
def test_time_stamps_with_empty_swapped_and_repeated_lines(
    lines: list[str], expected_ms: list[int], tmp_path: Path
) -> None:
    path = tmp_path / "timestamps.txt"
    path.write_text("".join(STAMP.format(line) if line else "\n" for line in lines) + "\n")
    times, mended = mended_times(read_timestamps(path))
    first = times[0]
    assert [(t - first) // 10**6 for t in times] == expected_ms
    assert bool(mended) == (expected_ms != [0, 100, 200, 300] or lines != ["0", "1", "2", "3"])


def test_fewer_time_stamps_than_images_go_on(tmp_path: Path) -> None:
    folder = layout(tmp_path, "raw", 2, (375, 1242))
    (folder.parent / "timestamps.txt").write_text("2011-09-26 13:02:25.0\n2011-09-26 13:02:25.5\n")
    assert [f.timestamp_ns // 10**6 for f in open_source(folder)] == [0, 500, 600]


def test_images_of_one_folder_named_one_by_one_are_one_source(tmp_path: Path) -> None:
    pictures(tmp_path / "a", [1, 2, 10], 1)
    pictures(tmp_path / "b", [5], 1)
    listed = sorted((tmp_path / "a").iterdir()) + list((tmp_path / "b").iterdir())
    sources = open_sources([*listed[:2], tmp_path / "a", *listed[2:]])
    assert [source.kind for source in sources] == ["images"] * 3
    assert [source.frame_count for source in sources] == [3, 3, 1]
    assert [source.name for source in sources] == ["a", "a", "5"]
    assert [path.name for path in sources[0].paths] == ["1.png", "2.png", "10.png"]


def test_kitti_images_named_one_by_one_keep_calibration_and_times(tmp_path: Path) -> None:
    folder = layout(tmp_path, "tracking", 2, (375, 1242))
    (source,) = open_sources(sorted(folder.iterdir())[1:])
    frames = list(source)
    assert [f.frame_id for f in frames] == [1, 2]
    assert [f.timestamp_ns // 10**6 for f in frames] == [100, 200]
    assert frames[0].camera is not None


def test_sample_sequences(data_root: Path) -> None:
    source = open_source(data_root / "kitti" / "tracking" / "training" / "image_02" / "0005")
    first: Frame = next(iter(source))
    assert source.frame_count == 16
    assert first.camera is not None


# ---------------------------------------------------------------- names


def test_names(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), IMAGE)
    assert open_source(f"front={tmp_path / 'a.png'}").name == "front"
    assert open_source(tmp_path / "a.png").name == "a"
    odd = tmp_path / "x=1.png"
    cv2.imwrite(str(odd), IMAGE)
    assert open_source(odd).name == "x-1"


@pytest.mark.parametrize(
    "bad",
    [
        *({"every": 0}, {"start_s": -1}, {"duration_s": 0}, {"rate_hz": 0}, {"reconnects": -1}),
        *({name: value} for name in ("start_s", "duration_s", "timeout_s", "rate_hz") for value in (NAN, INFINITE)),
    ],
)
def test_impossible_options_are_refused(bad: dict) -> None:
    with pytest.raises(UserError, match="try: "):
        SourceOptions(**bad)


def test_an_mp4_with_its_index_at_the_end_is_a_sentence_on_standard_input(tmp_path: Path) -> None:
    path = tmp_path / "index-at-the-end.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "5", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 640, 384, "yuv420p"
        for number in range(12):  # longer than what FFmpeg holds in memory
            noise = np.random.default_rng(number).integers(0, 255, (384, 640, 3)).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, "bgr24")))
        container.mux(stream.encode(None))
    process = subprocess.run(
        [sys.executable, "-c", "from perception.sources import open_source; print(len(list(open_source('-'))))"],
        input=path.read_bytes(), capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert b"UserError" in process.stderr
    assert b"front to end" in process.stderr
