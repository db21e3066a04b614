"""Drives are found, processed and asked, without Ray: `run_here` is what each of its workers does."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="needs the extra 'fleet'")
pytest.importorskip("duckdb", reason="needs the extra 'fleet'")

import pyarrow as pa
import pyarrow.parquet as pq

from perception.cli.main import main
from perception.errors import UserError
from perception.fleet import worker as worker_module
from perception.fleet.ask import QUESTIONS, ask
from perception.fleet.drives import find_drives
from perception.fleet.run import Report, missing_drives, run_here
from perception.fleet.storage import Store
from perception.fleet.tables import SCHEMA, TABLES
from perception.fleet.worker import Job
from tests.runtime.conftest import write_video


@pytest.fixture(scope="module")
def drives_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos and one KITTI sequence."""
    root = tmp_path_factory.mktemp("drives")
    write_video(root / "a.mp4", frames=12)
    (root / "sub").mkdir()
    write_video(root / "sub" / "b.mp4", frames=15)
    images = root / "image_02" / "0001"
    images.mkdir(parents=True)
    noise = np.random.default_rng(0)
    for i in range(4):
        cv2.imwrite(str(images / f"{i:06d}.png"), noise.integers(0, 255, (96, 320, 3)).astype(np.uint8))
    (root / "calib").mkdir()
    P2 = "P2: 200 0 160 0 0 200 40 0 0 0 1 0\n"
    (root / "calib" / "0001.txt").write_text("".join(P2.replace("P2", f"P{n}") for n in range(4)))
    (root / "notes.txt").write_text("no drive")
    return root


def job(output: Path, model: Path, **more: Any) -> Job:
    return Job(str(output), "key", str(model), **more)


def digests(output: Path) -> dict[str, str]:
    found = sorted(output.rglob("*.parquet"))
    return {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def test_drives_of_a_folder_a_list_and_one_file(drives_folder: Path, tmp_path: Path) -> None:
    found = find_drives(str(drives_folder))
    assert sorted(drive.path for drive in found) == ["a.mp4", "image_02/0001", "sub/b.mp4"]
    kitti = next(drive for drive in found if drive.path == "image_02/0001")
    assert "calib/0001.txt" in kitti.files
    assert len(kitti.files) == 5
    lines = tmp_path / "list.txt"
    lines.write_text(f"# two\n{drives_folder / 'a.mp4'}\n{drives_folder / 'image_02'}\n\n")
    assert sorted(Path(drive.path).name for drive in find_drives(str(lines))) == ["0001", "a.mp4"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no such folder, or an empty one"):
        find_drives(str(tmp_path / "empty"))


def test_a_changed_file_is_another_drive_to_do(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "a.mp4", frames=5)
    (drive,) = find_drives(str(tmp_path / "in"))
    output = job(tmp_path / "out", tiny_model)
    list(run_here(output, [drive]))
    assert missing_drives([drive], output) == []
    write_video(tmp_path / "in" / "a.mp4", frames=6)
    (changed,) = find_drives(str(tmp_path / "in"))
    assert changed.drive_id == drive.drive_id
    assert missing_drives([changed], output) == [changed]
    assert missing_drives([drive], Job(str(tmp_path / "out"), "other options", str(tiny_model))) == [drive]


def test_tables_twice_the_same_and_with_a_schema(drives_folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    events = '[[zone]]\nname = "all"\npoints_px = [[0, 0], [320, 0], [320, 96], [0, 96]]\n'
    drives = find_drives(str(drives_folder))
    for name in ("one", "two"):
        outcomes = list(run_here(job(tmp_path / name, tiny_model, events=events), drives))
        assert [outcome.status for outcome in outcomes] == ["done"] * 3
    assert digests(tmp_path / "one") == digests(tmp_path / "two") != {}
    assert len(digests(tmp_path / "one")) == 12
    report = Report()
    for outcome in outcomes:
        report.add(outcome)
    assert report.frames == report.rows["frames"] == 12 + 15 + 4
    for table, schema in TABLES.items():
        for path in (tmp_path / "one" / table).iterdir():
            read = pq.read_schema(path)
            assert read.names == schema.names
            assert read.metadata[b"perception.schema"] == SCHEMA.encode()
    kitti = ask(str(tmp_path / "one"), "SELECT min(distance_m), count(*) FROM tracks WHERE drive LIKE 'image_02%'")
    assert kitti.rows[0][1] > 0
    assert kitti.rows[0][0] > 0  # its calibration came along
    kinds = dict(ask(str(tmp_path / "one"), "SELECT kind, count(*) FROM events GROUP BY kind").rows)
    assert kinds["enter"] == kinds["leave"] >= 3
    assert not list((tmp_path / "one").rglob("*.part"))


def test_a_broken_drive_costs_its_attempts_and_nothing_else(tmp_path: Path, tiny_model: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    write_video(source / "a.mp4", frames=5)
    (source / "broken.mp4").write_bytes(b"nothing of the kind" * 10)
    outcomes = {
        o.path.rpartition("/")[2]: o for o in run_here(job(tmp_path / "out", tiny_model), find_drives(str(source)))
    }
    assert outcomes["a.mp4"].status == "done"
    broken = outcomes["broken.mp4"]
    assert (broken.status, broken.attempts) == ("failed", 3)
    assert "Invalid data" in broken.error
    assert {name.partition(".mp4")[0] for name in digests(tmp_path / "out")} == {f"{t}/a" for t in TABLES}
    assert ask(str(tmp_path / "out"), "SELECT count(*) FROM drives").rows == [(1,)]


def test_a_drive_that_kills_its_workers_is_given_up(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "a.mp4", frames=5)
    (drive,) = find_drives(str(tmp_path / "in"))
    output = Store(str(tmp_path / "out"))
    output.write(f"attempts/{drive.drive_id}.json", b'{"attempt": 3}')  # left by three that were killed
    (outcome,) = run_here(job(tmp_path / "out", tiny_model), [drive])
    assert (outcome.status, outcome.error) == ("failed", "the worker was killed each time")
    output.write(f"attempts/{drive.drive_id}.json", b'{"attempt": 1}')
    (outcome,) = run_here(job(tmp_path / "out", tiny_model), [drive])
    assert (outcome.status, outcome.attempts) == ("done", 2)
    assert missing_drives([drive], job(tmp_path / "out", tiny_model)) == []
    assert not [path for path in output.sizes() if path.startswith("attempts/")]


def test_a_full_disk_leaves_no_half_of_a_drive(
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "a.mp4", frames=5)
    write = Store.write

    def full(self: Store, path: str, content: Any) -> None:
        if path.startswith("road/"):
            raise UserError(f"{path}: cannot be written (No space left on device)", "free space")
        write(self, path, content)

    monkeypatch.setattr(worker_module.Store, "write", full)
    (outcome,) = run_here(job(tmp_path / "out", tiny_model), find_drives(str(tmp_path / "in")))
    assert outcome.status == "failed"
    assert "No space left" in outcome.error
    with pytest.raises(UserError, match="no drive is done here"):
        ask(str(tmp_path / "out"), "SELECT 1 FROM drives")


# ---------------------------------------------------------------- questions


def tracks(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows of the tracks table, with what they leave out."""
    usual = {"drive": "d", "source": "front", "track_id": 1, "class": "Car", "state": "confirmed", "on_road": True}
    return pa.Table.from_pylist([usual | row for row in rows], TABLES["tracks"])


@pytest.fixture
def asked(tmp_path: Path) -> Any:
    """A function that answers a question about tracks at 10 Hz."""

    def answer(rows: list[dict[str, Any]], question: str, events: list[dict[str, Any]] = []) -> list[dict[str, Any]]:  # noqa: B006
        tables = {name: pa.Table.from_pylist([], schema) for name, schema in TABLES.items()}
        stamped = [{"frame_id": i, "timestamp_ns": i * 10**8} | row for i, row in enumerate(rows)]
        tables["tracks"] = tracks(stamped)
        tables["events"] = pa.Table.from_pylist(events, TABLES["events"])
        for name, table in tables.items():
            (tmp_path / name).mkdir(exist_ok=True)
            pq.write_table(table, tmp_path / name / "d.parquet")
        (tmp_path / "drives").mkdir(exist_ok=True)
        (tmp_path / "drives" / "d.json").write_text(json.dumps({"drive": "d", "path": "d.mp4", "status": "done"}))
        return ask(str(tmp_path), question).records()

    return answer


def test_close_approaches(asked: Any) -> None:
    rows = [{"ttc_s": t, "distance_m": 10.0 - i} for i, t in enumerate([3.0, 1.8, 1.5, 1.9])]
    noise = [{"track_id": 2, "ttc_s": 2.5}, {"track_id": 3, "ttc_s": 0.4}]  # too far away, and one frame alone
    (row,) = asked(rows + noise, "close-approaches")
    assert (row["frame_id"], row["timestamp_ns"], row["ttc_s"], row["distance_m"]) == (2, 2 * 10**8, 1.5, 8.0)


def test_cut_ins(asked: Any) -> None:
    from_the_side = [{"x_m": x, "z_m": 15.0} for x in (3.0, 2.5, 1.8, 1.3, 1.0, 0.5)]
    (row,) = asked(from_the_side, "cut-ins")
    assert (row["frame_id"], row["distance_m"]) == (4, 15.0)
    assert asked([{"x_m": 0.5, "z_m": 15.0}] * 30, "cut-ins") == []  # was always there
    slowly = [{"x_m": 3.0 - 0.03 * i, "z_m": 15.0} for i in range(80)]  # 0.3 m/s
    assert asked(slowly, "cut-ins") == []


def test_people_on_the_road(asked: Any) -> None:
    walks = [{"class": "Pedestrian", "on_road": 3 <= i < 10, "distance_m": 9.0} for i in range(12)]
    (row,) = asked(walks, "people-on-road")
    assert (row["frame_id"], row["seconds"]) == (3, 0.6)
    assert asked(walks[:6], "people-on-road") == []


def test_hard_braking(asked: Any) -> None:
    speeds = [0.0] * 5 + [-0.5 * i for i in range(12)]  # 5 m/s² from frame 5 on
    (row,) = asked([{"x_m": 0.2, "z_m": 20.0, "vz_mps": v} for v in speeds], "hard-braking")
    assert row["change_mps"] == -5.0
    assert asked([{"x_m": 0.2, "z_m": 20.0, "vz_mps": -0.2 * i} for i in range(20)], "hard-braking") == []


def test_health(asked: Any) -> None:
    black = {"drive": "d", "source": "front", "kind": "black", "active": True, "timestamp_ns": 5}
    rows = asked([], "health", [black, black | {"active": False}, black | {"kind": "enter", "track_id": 1}])
    assert [(row["kind"], row["timestamp_ns"]) for row in rows] == [("black", 5)]


def test_where_two_networks_disagree(drives_folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    model = onnx.load(tiny_model)
    (boxes,) = (value for value in model.graph.initializer if value.name == "boxes_xyxy_one")
    moved = numpy_helper.to_array(boxes).copy()
    moved[0, 0] = (200, 30, 250, 70)  # the first network has it at (40, 30, 90, 70)
    boxes.CopyFrom(numpy_helper.from_array(moved, boxes.name))
    onnx.save(model, tmp_path / "second.onnx")
    for second, count in (("second.onnx", 1), (tiny_model, 0)):
        output = tmp_path / f"out{count}"
        drives = [drive for drive in find_drives(str(drives_folder)) if drive.path.endswith(".mp4")]
        list(run_here(job(output, tiny_model, second=str(tmp_path / second)), drives))
        rows = ask(str(output), "disagreements").rows
        assert len(rows) == count * len(drives)


def test_a_query_reads_the_tables_and_nothing_else(asked: Any, tmp_path: Path) -> None:
    asked([{"ttc_s": 1.0}], "close-approaches")
    (tmp_path / "secret.csv").write_text("a\n1\n")
    for sql in (
        f"SELECT * FROM '{tmp_path / 'secret.csv'}'",
        f"COPY tracks TO '{tmp_path / 'out.csv'}'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "SELEC 1",
    ):
        with pytest.raises(UserError, match="SQL: "):
            ask(str(tmp_path), sql)
    assert not (tmp_path / "out.csv").exists()
    with pytest.raises(UserError, match="unknown question 'cut-in'"):
        ask(str(tmp_path), "cut-in")


def test_the_command_asks_and_cuts(
    drives_folder: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import av

    drives = find_drives(str(drives_folder))
    list(run_here(job(tmp_path / "out", tiny_model), drives))
    sql = "SELECT drive, source, timestamp_ns FROM frames WHERE frame_id = 5 AND drive LIKE 'a.mp4%'"
    more = ["--clips", str(tmp_path / "clips"), "--frames", str(tmp_path / "frames"), "--input", str(drives_folder)]
    assert main(["fleet", "ask", str(tmp_path / "out"), sql, "--json", *more]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["timestamp_ns"] == 5 * 10**8
    (image,) = (tmp_path / "frames").iterdir()
    assert cv2.imread(str(image)).shape == (96, 320, 3)
    (clip,) = (tmp_path / "clips").iterdir()
    with av.open(str(clip)) as video:
        assert sum(1 for _ in video.decode(video=0)) == 12  # three seconds before and after are more than all
    assert main(["fleet", "ask", str(tmp_path / "out")]) == 0
    assert all(name in capsys.readouterr().out for name in list(QUESTIONS)[:1])
    assert (
        main(["fleet", "ask", str(tmp_path / "out"), "SELECT 1 AS a FROM drives", "--clips", "x", "--input", "y"])
        == 2
    )
    assert "columns drive, source and timestamp_ns" in capsys.readouterr().err
    assert (
        main(["fleet", "ask", str(tmp_path / "out"), "SELECT class FROM tracks", "--csv", str(tmp_path / "a.csv")])
        == 0
    )
    assert (tmp_path / "a.csv").read_text().startswith("class\n")
