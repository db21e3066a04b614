"""What each sink writes, read back by something else."""

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import get_args

import av
import cv2
import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.cameras.letterbox import plan_letterbox
from perception.cameras.pinhole import PinholeCamera
from perception.errors import UserError
from perception.formats.kitti import read_tracking
from perception.model import ModelSpec
from perception.sinks import RunInfo, Sink, SourceInfo
from perception.sinks.images import ImageSink
from perception.sinks.jsonl import JsonLinesSink, frame_line, json_text
from perception.sinks.kitti import KittiSink
from perception.sinks.metrics import MetricsSink, parse_address
from perception.sinks.mot import MotSink
from perception.sinks.rerun import RerunSink
from perception.sinks.video import VideoSink
from perception.types import (
    CLASS_NAMES,
    Detections,
    Disagreement,
    Frame,
    HealthEvent,
    HealthKind,
    Result,
    RoadMask,
    Track,
    Tracks,
)

SPEC = ModelSpec(CLASS_NAMES, (96, 320))
NOISE = np.random.default_rng(0).integers(0, 255, (91, 301, 3)).astype(np.uint8)
SCHEMA = json.loads((files("perception") / "schemas" / "record-2.json").read_text())


def make_result(
    i: int, source: str = "a", tracks: tuple[Track, ...] = (), size_hw: tuple[int, int] = (91, 301)
) -> Result:
    image = cv2.resize(np.roll(NOISE, i, 1), size_hw[::-1])
    road = np.zeros((24, 80), np.uint8)
    road[12:] = 255
    return Result(
        Frame(image, i * 40_000_000, i, source, None, 2 if i == 1 else 0),
        Detections.empty(),
        Tracks.from_rows(tracks),
        RoadMask(road, plan_letterbox(size_hw, SPEC.size_hw)),
        {"decode": 1.0, "network": 20.0},
        12.5,
    )


TRACKS = (
    Track(
        3, 0, np.array([10.25, 20.5, 40, 60], np.float32), 0.75, age_frames=4,
        position_m=(1.0, 10.0), position_std_m=(0.1, 1.0), distance_m=10.05, velocity_mps=(0.0, -2.0), ttc_s=5.0,
        bottom_m=1.6, size_m=(4.1, 1.7, 1.5), size_std_m=(0.3, 0.1, 0.1), heading_rad=-1.5, heading_std_rad=0.1,
    ),
    Track(4, 2, np.array([50, 20, 70, 60], np.float32), 0.5, "lost", 9, 5),
    Track(5, 1, np.array([80, 20, 90, 60], np.float32), 0.5, "tentative"),
)  # fmt: skip


def play(sink: Sink, results: list[Result], names: tuple[str, ...] = ("a",)) -> Sink:
    sink.open(RunInfo(SPEC, tuple(SourceInfo(n, n, "video", False, (91, 301), 25.0) for n in names)))
    for result in results:
        sink.write(result)
    sink.close()
    return sink


def frame_record(result: Result) -> dict:
    return json.loads(frame_line(result, [json_text(name) for name in CLASS_NAMES]))


def test_json_lines_follow_the_published_schema(tmp_path: Path) -> None:
    sink = JsonLinesSink.in_folder(tmp_path)
    sink.open(RunInfo(SPEC, ()))
    sink.write(make_result(0, tracks=TRACKS))
    sink.write(make_result(1))
    for kind in get_args(HealthKind):
        sink.event(HealthEvent(kind, "a", True, None, "why"))
    sink.close()
    records = [json.loads(line) for line in (tmp_path / "tracks.jsonl").read_text().splitlines()]
    validator = jsonschema.Draft202012Validator(SCHEMA)
    for record in records:
        validator.validate(record)
    assert len(records) == 2 + len(get_args(HealthKind))
    assert [t["track_id"] for t in records[0]["tracks"]] == [3, 4]  # a tentative track is nobody yet
    assert records[0]["tracks"][0]["box_xyxy"] == [10.25, 20.5, 40.0, 60.0]
    assert records[1]["dropped_before"] == 2
    assert not validator.is_valid(records[0] | {"frame_id": -1})
    assert not validator.is_valid({k: v for k, v in records[0].items() if k != "tracks"})


def test_the_schema_knows_every_field_that_is_written() -> None:
    lone = Detections(np.array([[1, 2, 30, 40]], np.float32), np.array([0.9], np.float32), np.array([1]))
    differs = Disagreement(lone, Detections.empty())
    record = frame_record(replace(make_result(0, tracks=TRACKS), disagreement=differs))
    jsonschema.Draft202012Validator(SCHEMA).validate(record)
    assert record["disagreement"] == {
        "only_first": [{"class_id": 1, "box_xyxy": [1, 2, 30, 40], "score": 0.9}],
        "only_second": [],
    }
    assert set(record) == set(SCHEMA["$defs"]["frame"]["properties"])
    assert set(record["tracks"][0]) == set(SCHEMA["$defs"]["track"]["properties"])
    assert set(record["road"]) == set(SCHEMA["$defs"]["road"]["properties"])


def test_the_road_outline_lies_where_the_road_is() -> None:
    road = frame_record(make_result(0))["road"]
    assert road["share"] == pytest.approx(0.5, abs=0.06)
    outline = np.array(road["outline_xy"])
    assert outline[:, 1].min() == pytest.approx(91 / 2, abs=4)
    assert outline[:, 0].max() == pytest.approx(301, abs=4)


def test_the_road_outline_has_one_decimal_at_any_scale() -> None:
    line = frame_line(make_result(0, size_hw=(131, 431)), [json_text(name) for name in CLASS_NAMES])
    outline = json.loads(line)["road"]["outline_xy"]
    assert any(value % 1 for point in outline for value in point)  # scaled, so not all are whole numbers
    assert all(round(value, 1) == value for point in outline for value in point)


def test_not_a_number_never_reaches_the_file(tmp_path: Path) -> None:
    track = Track(1, 0, np.zeros(4, np.float32), 0.5, distance_m=float("nan"), velocity_mps=(float("inf"), 0.0))
    (line,) = frame_record(make_result(0, tracks=(track,)))["tracks"]
    assert (line["distance_m"], line["velocity_mps"]) == (None, None)
    with pytest.raises(ValueError, match="track 1: found box"):
        frame_record(make_result(0, tracks=(Track(1, 0, np.full(4, np.nan, np.float32), 0.5),)))


NUMBERS = st.floats(-1e5, 1e5) | st.floats(-0.01, 0.01) | st.integers(-3000, 3000).map(lambda n: n / 2000)
PAIRS = st.none() | st.tuples(NUMBERS, NUMBERS)


@given(
    box=st.lists(st.floats(-1e5, 1e5, width=32), min_size=4, max_size=4),
    score=st.floats(0, 1),
    pairs=st.lists(PAIRS, min_size=3, max_size=3),
    numbers=st.lists(st.none() | NUMBERS, min_size=2, max_size=2),
    name=st.text() | st.sampled_from(("1.50, x", 'a "quoted" name', "2.000]")),
)
def test_tracks_are_written_as_python_rounds_and_prints(
    box: list[float], score: float, pairs: list, numbers: list, name: str
) -> None:
    position, spread, velocity = pairs
    track = Track(
        7, 0, np.array(box, np.float32), score, "confirmed", 3, 0, position, spread, numbers[0], velocity, numbers[1],
        numbers[1], position and (*position, 1.5), spread and (0.25, *spread), numbers[0],
    )  # fmt: skip
    line = frame_line(make_result(0, tracks=(track,)), [json_text(name)])
    assert json.loads(line)["tracks"][0]["class"] == name
    fields = {
        "box_xyxy": [round(v, 2) for v in box],
        "score": round(score, 4),
        "state": "confirmed",
        "age_frames": 3,
        "frames_since_seen": 0,
        "position_m": position and [round(v, 3) for v in position],
        "position_std_m": spread and [round(v, 3) for v in spread],
        "distance_m": numbers[0] if numbers[0] is None else round(numbers[0], 3),
        "velocity_mps": velocity and [round(v, 3) for v in velocity],
        "ttc_s": numbers[1] if numbers[1] is None else round(numbers[1], 3),
        "bottom_m": numbers[1] if numbers[1] is None else round(numbers[1], 3),
        "size_m": position and [round(v, 3) for v in (*position, 1.5)],
        "size_std_m": spread and [round(v, 3) for v in (0.25, *spread)],
        "heading_rad": numbers[0] if numbers[0] is None else round(numbers[0], 3),
        "heading_std_rad": None,
    }
    assert json.dumps(fields, separators=(",", ":"))[1:] + "]" in line


def test_video_plays_in_browsers_even_sizes_exact_times(tmp_path: Path) -> None:
    play(VideoSink(tmp_path), [make_result(i) for i in (0, 1, 2, 7)])
    with av.open(str(tmp_path / "annotated.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.height, stream.width) == (92, 302)
        times = [round(float(frame.pts * frame.time_base) * 1000) for frame in container.decode(stream)]
    assert times == [0, 40, 80, 280]


def test_video_colours_come_back(tmp_path: Path) -> None:
    colour = np.array([40, 160, 200])
    flat = Frame(np.full((90, 300, 3), colour, np.uint8), 0, 0, "a")
    play(VideoSink(tmp_path, annotate=False), [Result(flat, Detections.empty(), Tracks.empty(), None)])
    from perception.sources import open_source

    (frame,) = open_source(tmp_path / "annotated.mp4")
    assert np.abs(frame.image_bgr[45, 150].astype(int) - colour).max() <= 4


def test_a_new_size_in_mid_stream_goes_on_in_the_old_one(tmp_path: Path) -> None:
    play(VideoSink(tmp_path), [make_result(0), make_result(1, size_hw=(40, 64)), make_result(2)])
    with av.open(str(tmp_path / "annotated.mp4")) as container:
        assert [(f.height, f.width) for f in container.decode(video=0)] == [(92, 302)] * 3


def test_a_video_is_no_larger_than_players_take(tmp_path: Path) -> None:
    box = np.array([5000, 20, 6000, 60], np.float32)
    wide = make_result(0, tracks=(Track(1, 0, box, 0.9),), size_hw=(90, 8192))
    wide.frame.image_bgr[:] = 90
    play(VideoSink(tmp_path), [wide])
    with av.open(str(tmp_path / "annotated.mp4")) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="bgr24").astype(int)
    assert picture.shape[:2] == (46, 4096)  # 45 rows, made even
    drawn = np.flatnonzero((np.abs(picture[12:20] - 90) > 40).any(axis=(0, 2)))  # between the status and the road
    drawn = drawn[drawn > 1000]
    assert abs(drawn.min() - 2500) < 10 and abs(drawn.max() - 3000) < 10  # the box is where the car is


def test_one_video_for_each_source(tmp_path: Path) -> None:
    play(VideoSink(tmp_path), [make_result(0, "front"), make_result(0, "rear")], ("front", "rear"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["annotated-front.mp4", "annotated-rear.mp4"]


def test_kitti_rows_come_back_through_the_one_parser(tmp_path: Path) -> None:
    play(KittiSink(tmp_path), [make_result(0, tracks=TRACKS), make_result(1), make_result(2, tracks=TRACKS[:1])])
    rows = read_tracking(tmp_path / "a.txt", scores=True)
    assert rows.frame_ids.tolist() == [0, 2]
    assert rows.track_ids.tolist() == [3, 3]
    assert rows.objects.names == ("Car", "Car")
    assert rows.objects.boxes_xyxy[0].tolist() == [10.25, 20.5, 40, 60]
    assert (rows.objects.location_cam2[0] == -1000).all()  # no calibration, no camera to place it by
    assert (rows.objects.dimensions_hwl == -1).all() and (rows.objects.rotation_y == -10).all()


def test_kitti_rows_hold_the_whole_3d_box(tmp_path: Path) -> None:
    """10 m ahead and 10 m to the right, seen from behind: alpha is -90°, and rotation_y 45° more."""
    whole = TRACKS[0]._replace(position_m=(10.0, 10.0), heading_rad=-np.pi / 4)
    flat = Track(9, 1, TRACKS[0].box_xyxy, 0.5, position_m=(0.0, 20.0))
    result = make_result(0, tracks=(whole, flat, Track(8, 1, TRACKS[0].box_xyxy, 0.5)))
    camera = PinholeCamera(np.array([[200.0, 0, 150, 0], [0, 200, 45, 0], [0, 0, 1, 0]]), 1.65)
    play(KittiSink(tmp_path), [replace(result, frame=replace(result.frame, camera=camera))])
    rows = read_tracking(tmp_path / "a.txt", scores=True).objects
    assert rows.location_cam2.tolist() == [[10, 1.6, 10], [-1000, -1000, -1000], [-1000, -1000, -1000]]
    assert rows.dimensions_hwl.tolist() == [[1.5, 1.7, 4.1], [-1, -1, -1], [-1, -1, -1]]
    assert rows.rotation_y.tolist() == [-0.7854, -10, -10] and rows.alpha.tolist() == [-1.5708, -10, -10]
    (text, *_) = (tmp_path / "a.txt").read_text().split("\n")
    assert text.split()[3:6] == ["-1", "-1", "-1.570800"]


def test_a_position_without_a_size_is_a_point_on_the_road(tmp_path: Path) -> None:
    result = make_result(0, tracks=(Track(9, 1, TRACKS[0].box_xyxy, 0.5, position_m=(0.0, 20.0)),))
    camera = PinholeCamera(np.array([[200.0, 0, 150, 0], [0, 200, 45, 0], [0, 0, 1, 0]]), 1.65, pitch_rad=0.1)
    play(KittiSink(tmp_path), [replace(result, frame=replace(result.frame, camera=camera))])
    (place,) = read_tracking(tmp_path / "a.txt", scores=True).objects.location_cam2
    # a camera that looks down by 0.1 rad sees the road 20 m ahead higher than one that looks straight on
    assert place == pytest.approx(
        [0, 1.65 * np.cos(0.1) - 20 * np.sin(0.1), 20 * np.cos(0.1) + 1.65 * np.sin(0.1)], abs=1e-3
    )


def test_records_of_version_1_still_have_their_schema() -> None:
    """Files written before sizes and headings are checked against the schema that they name."""
    first = json.loads((files("perception") / "schemas" / "record-1.json").read_text())
    record = frame_record(make_result(0, tracks=TRACKS)) | {"schema": "perception.record/1"}
    jsonschema.Draft202012Validator(first).validate(record)  # more fields than it knows are no error
    assert not jsonschema.Draft202012Validator(SCHEMA).is_valid(record)


def test_mot_rows(tmp_path: Path) -> None:
    play(MotSink(tmp_path), [make_result(0, tracks=TRACKS)])
    assert (tmp_path / "a.txt").read_text() == "1,3,10.25,20.50,29.75,39.50,0.7500,-1,-1,-1\n"


def test_frames_as_pictures(tmp_path: Path) -> None:
    play(ImageSink(tmp_path), [make_result(0), make_result(12)])
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["000000.jpg", "000012.jpg"]
    assert cv2.imread(str(tmp_path / "a" / "000012.jpg")).shape == (91, 301, 3)


def test_metrics_can_be_scraped() -> None:
    from urllib.request import urlopen

    sink = MetricsSink("127.0.0.1:0")
    sink.open(RunInfo(SPEC, (SourceInfo("a", "a", "video", True),), "CPUExecutionProvider"))
    for i in range(3):
        sink.write(make_result(i, tracks=TRACKS))
    sink.event(HealthEvent("lost", "a", True))
    (address,) = sink.outputs()
    with urlopen(address, timeout=10) as answer:
        text = answer.read().decode()
    sink.close()
    lines = text.splitlines()
    assert 'perception_frames_total{source="a"} 3' in lines
    assert 'perception_frames_dropped_total{source="a"} 2' in lines
    assert 'perception_tracked_objects{source="a"} 1' in lines
    assert 'perception_events_total{source="a",kind="lost"} 1' in lines
    assert 'perception_unhealthy{source="a",kind="lost"} 1' in lines
    assert 'perception_stage_seconds_count{source="a",stage="network"} 3' in lines
    (median,) = [
        v for v in lines if v.startswith('perception_stage_seconds{source="a",stage="network",quantile="0.5"}')
    ]
    assert float(median.split()[-1]) == pytest.approx(0.02, rel=0.02)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("8080", ("127.0.0.1", 8080)),
        (":8080", ("127.0.0.1", 8080)),
        ("0.0.0.0", ("0.0.0.0", 9090)),
        ("[::1]:80", ("::1", 80)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text, 9090) == address


def test_bad_addresses_and_taken_ports_are_sentences() -> None:
    with pytest.raises(UserError, match="HOST:PORT"):
        parse_address("127.0.0.1:http", 9090)
    first = MetricsSink("127.0.0.1:0")
    first.open(RunInfo(SPEC, ()))
    taken = first.outputs()[0].split("/")[2]
    with pytest.raises(UserError, match="free port"):
        MetricsSink(taken).open(RunInfo(SPEC, ()))
    first.close()


def test_a_scraper_that_goes_away_is_no_news(capsys: pytest.CaptureFixture[str]) -> None:
    sink = MetricsSink("127.0.0.1:0")
    sink.open(RunInfo(SPEC, ()))
    server = sink._server
    assert server is not None
    for error, silent in ((BrokenPipeError(32, "Broken pipe"), True), (ValueError("ours"), False)):
        try:
            raise error
        except Exception:
            server.handle_error(None, ("127.0.0.1", 1))  # type: ignore[arg-type]
        assert ("Traceback" not in capsys.readouterr().err) == silent
    sink.close()


def test_a_rerun_recording_is_written(tmp_path: Path) -> None:
    pytest.importorskip("rerun", reason="rerun-sdk is not installed (pip install -e '.[rerun]')")
    play(RerunSink(tmp_path / "r.rrd"), [make_result(i, tracks=TRACKS) for i in range(3)])
    assert (tmp_path / "r.rrd").read_bytes()[:3] == b"RRF"
    assert (tmp_path / "r.rrd").stat().st_size > 3000


def test_a_rerun_recording_shows_the_road_from_above(tmp_path: Path) -> None:
    rerun = pytest.importorskip("rerun", reason="rerun-sdk is not installed (pip install -e '.[rerun]')")
    camera = PinholeCamera(np.array([[200.0, 0, 150, 0], [0, 200, 45, 0], [0, 0, 1, 0]]), 1.65)
    flat = Track(9, 1, TRACKS[0].box_xyxy, 0.5, position_m=(2.0, 20.0), position_std_m=(0.5, 1.0))
    results = [make_result(0, tracks=TRACKS), make_result(1, tracks=(*TRACKS, flat)), make_result(2)]
    sink = RerunSink(tmp_path / "r.rrd")
    logged: dict[str, list] = {}
    sink.open(RunInfo(SPEC, (SourceInfo("a", "a", "video", False, (91, 301), 25.0),)))
    log = sink._recording.log
    sink._recording.log = lambda path, what, **more: (
        logged.setdefault(path, []).append(what),
        log(path, what, **more),
    )
    sink.write(results[0])
    assert not any("plan" in path for path in logged)  # without a calibration there is no plan
    for result in results[1:]:
        sink.write(replace(result, frame=replace(result.frame, camera=camera)))
    sink.close()
    assert (tmp_path / "r.rrd").read_bytes()[:3] == b"RRF"
    assert len(logged["a/plan/rings"]) == 1 and len(logged["a/plan/rings"][0].strips) == 5
    outlines = logged["a/plan/objects"][0].strips.as_arrow_array().to_pylist()
    assert [len(outline) for outline in outlines] == [5, 17]  # a footprint, and an ellipse
    assert np.mean(outlines[0][:4], axis=0) == pytest.approx([1, -10], abs=1e-5)
    assert len(logged["a/plan/headings"][0].vectors) == 1 and len(logged["a/image/cuboids"][0].strips) == 13
    assert len(logged["a/plan/objects"][1].strips) == 0
    assert isinstance(logged["a/plan/velocities"][0], rerun.Arrows2D)


def test_a_picture_that_does_not_fit_leaves_no_half_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    sink = ImageSink(tmp_path)
    sink.open(RunInfo(SPEC, (SourceInfo("a", "a", "video", False),)))
    sink.write(make_result(0))
    monkeypatch.setattr("perception.files.os.replace", full)
    with pytest.raises(UserError, match="No space"):
        sink.write(make_result(1))
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["000000.jpg"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_a_clear_error_and_the_rest_goes_on(tmp_path: Path) -> None:
    from perception.backends.replay import ReplayBackend
    from perception.cli.run_summary import as_text, summarise
    from perception.runtime.pipeline import Pipeline
    from perception.sources import open_source

    cv2.imwrite(str(tmp_path / "a.png"), NOISE)
    cv2.imwrite(str(tmp_path / "b.png"), NOISE)
    video = VideoSink(tmp_path / "full")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "annotated.mp4").symlink_to("/dev/full")
    sinks = [
        JsonLinesSink(Path("/dev/full")),
        video,
        MotSink(tmp_path / "mot"),
        JsonLinesSink(tmp_path / "good.jsonl"),
    ]
    run = Pipeline([open_source(tmp_path)], (ReplayBackend(SPEC), SPEC), sinks)
    assert len(list(run)) == 2
    assert run.sinks[0].error == "No space left on device"
    assert "No space left" in run.sinks[1].error
    frames = [json.loads(line) for line in (tmp_path / "good.jsonl").read_text().splitlines()]
    assert [f["frame_id"] for f in frames if f["type"] == "frame"] == [0, 1]
    assert {f["source"] for f in frames if f["type"] == "event"} >= {"jsonl"}
    # the summary tells whole files from those that broke off
    summary = summarise(run, Path("model.onnx"), 1.0)
    assert str(tmp_path / "good.jsonl") in summary["outputs"] and "/dev/full" not in summary["outputs"]
    assert "/dev/full" in summary["incomplete"] and "partly    /dev/full" in as_text(summary)
