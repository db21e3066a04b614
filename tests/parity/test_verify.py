"""The comparison of two models says yes to what is the same and no to every fault that is planted."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from onnx import numpy_helper  # noqa: E402

from export.cli import main  # noqa: E402
from export.frames import TestFrame, open_frames  # noqa: E402
from export.parity import Candidate, ParityReport, compare, open_candidate  # noqa: E402
from perception.backends import load_model  # noqa: E402
from perception.cameras.letterbox import Letterbox  # noqa: E402
from perception.detector import Detector  # noqa: E402
from perception.errors import UserError  # noqa: E402
from perception.formats.kitti import ObjectRows  # noqa: E402

SIZE = (96, 160)


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> Candidate:
    return open_candidate(checkpoint, SIZE, threads=1)


def _edited(source: Path, to: Path, edit) -> Candidate:
    """The file with one of its constants changed: `edit(name, values, model)` returns new values or None."""
    model = onnx.load(str(source))
    changed = 0
    for tensor in model.graph.initializer:
        new = edit(tensor.name, numpy_helper.to_array(tensor), model)
        if new is not None:
            tensor.CopyFrom(numpy_helper.from_array(new.astype(np.float32), tensor.name))
            changed += 1
    assert changed == 1
    onnx.save(model, str(to))
    return open_candidate(to, threads=1)


def _first_weights(model) -> str:
    return next(node for node in model.graph.node if node.op_type == "Conv").input[1]


def _is_mean(values: np.ndarray) -> bool:
    return values.size == 3 and abs(float(values.max()) - 123.675) < 1e-3


def test_the_exported_file_is_the_checkpoint(reference: Candidate, fp32_file: Path, frames: list) -> None:
    report = compare(reference, open_candidate(fp32_file, threads=1), frames)
    assert report.passed, report.text()
    assert report.precision == "fp32" and report.frames == 4 and report.boxes > 50
    assert report.same == report.boxes and report.box_px.largest < 1e-3 and report.score.largest < 1e-4
    assert "verdict: the same" in report.text() and report.to_json()["passed"] is True


def _no(report: ParityReport, word: str) -> None:
    assert not report.passed and any(word in reason for reason in report.failures), report.text()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_swapped_colours_are_caught(
    reference: Candidate, fp32_file: Path, frames: list, tmp_path: Path, precision: str
) -> None:
    """At every tolerance, the coarsest too."""

    def swap(name: str, values: np.ndarray, model) -> np.ndarray | None:
        return values[:, ::-1] if name == _first_weights(model) else None

    _no(compare(reference, _edited(fp32_file, tmp_path / "x.onnx", swap), frames, precision), "scores, mean")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_wrong_normalisation_constant_is_caught(
    reference: Candidate, fp32_file: Path, frames: list, tmp_path: Path, precision: str
) -> None:
    """The mean of another channel order: 103.5 and 123.7 change places."""

    def reverse(name: str, values: np.ndarray, model) -> np.ndarray | None:
        return values.reshape(-1)[::-1].reshape(values.shape) if _is_mean(values) else None

    _no(compare(reference, _edited(fp32_file, tmp_path / "x.onnx", reverse), frames, precision), "scores, mean")


def test_a_slightly_wrong_constant_is_caught(
    reference: Candidate, fp32_file: Path, frames: list, tmp_path: Path
) -> None:
    """123.675 written as 123.6."""

    def nudge(name: str, values: np.ndarray, model) -> np.ndarray | None:
        return np.where(values > 120, 123.6, values) if _is_mean(values) else None

    _no(compare(reference, _edited(fp32_file, tmp_path / "x.onnx", nudge), frames), "scores, largest")


class HalfPixel(Detector):
    """A resize that aligns pixel corners where ours aligns centres: the image lies half a pixel aside."""

    def letterbox(self, image_bgr: np.ndarray, out: np.ndarray) -> Letterbox:
        placed = super().letterbox(image_bgr, out)
        move = np.array([[1, 0, 0.5], [0, 1, 0.5]])
        out[:] = cv2.warpAffine(out, move, out.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
        return placed


class BackHalfPixel(Detector):
    """The image is right, its way back is half a pixel off."""

    def letterbox(self, image_bgr: np.ndarray, out: np.ndarray) -> Letterbox:
        placed = super().letterbox(image_bgr, out)
        x, y = placed.offset_xy
        return dataclasses.replace(placed, offset_xy=(x + 0.5, y + 0.5))  # type: ignore[arg-type]


class Shifted(Detector):
    """A letterbox in the middle where the contract has it at the top: twelve pixels down."""

    def letterbox(self, image_bgr: np.ndarray, out: np.ndarray) -> Letterbox:
        placed = super().letterbox(image_bgr, out)
        out[:] = np.roll(out, 12, axis=0)
        return placed


def _wrong(kind: type[Detector], path: Path) -> Candidate:
    model = load_model(path, "cpu", 1)
    return Candidate(kind.__name__, model.spec, kind(model))


@pytest.mark.parametrize("kind", [HalfPixel, BackHalfPixel, Shifted])
def test_a_wrong_letterbox_is_caught(reference: Candidate, fp32_file: Path, frames: list, kind: type) -> None:
    _no(compare(reference, _wrong(kind, fp32_file), frames), "boxes, largest")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_half_a_pixel_is_caught_where_single_boxes_may_differ(
    reference: Candidate, fp32_file: Path, frames: list, precision: str
) -> None:
    """Noise averages out, a shift does not."""
    _no(compare(reference, _wrong(BackHalfPixel, fp32_file), frames, precision), "mean shift")


def test_scores_of_both_sides_where_there_is_truth(reference: Candidate, fp32_file: Path, frames: list) -> None:
    """Truth made of what the reference finds: both sides get the same number, and it is not zero."""
    labelled = []
    for frame in frames:
        detections, _ = reference.detect(frame.image_bgr)
        best = detections[detections.scores > 0.3]
        names = [reference.spec.class_names[i] for i in best.class_ids]
        zeros = np.zeros(len(names))
        rows = ObjectRows.from_boxes(names, best.boxes_xyxy, truncation=zeros, occlusion=zeros.astype(np.int64))
        road = (np.arange(frame.image_bgr.shape[0])[:, None] > 60) * np.ones(frame.image_bgr.shape[:2])
        labelled.append(TestFrame(frame.name, frame.image_bgr, rows, road.astype(np.uint8)))
    report = compare(reference, open_candidate(fp32_file, threads=1), labelled)
    assert report.passed, report.text()
    assert report.ap and all(abs(a - b) < 1e-9 for a, b, _ in report.ap.values())
    assert max(a for a, _, _ in report.ap.values()) > 0
    assert report.road_max_f is not None and 1 < report.road_max_f[0] <= 100


def test_the_command_says_yes_and_no(
    checkpoint: Path, fp32_file: Path, frames: list, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for frame in frames:
        cv2.imwrite(str(folder / f"{frame.name}.png"), frame.image_bgr)
    assert main(["verify", str(checkpoint), str(fp32_file), "--data", str(folder), "--frames", "2"]) == 0
    assert "verdict: the same" in capsys.readouterr().out

    def louder(name: str, values: np.ndarray, model) -> np.ndarray | None:
        return values * 1.05 if name == _first_weights(model) else None

    _edited(fp32_file, tmp_path / "bad.onnx", louder)
    call = ["verify", str(fp32_file), str(tmp_path / "bad.onnx"), "--data", str(folder), "--frames", "2", "--json"]
    assert main(call) == 1
    assert '"passed": false' in capsys.readouterr().out


def test_mistakes_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        open_frames(tmp_path / "none", 3)
    with pytest.raises(UserError, match="no images"):
        open_frames(tmp_path, 3)
    with pytest.raises(UserError, match="at least one frame"):
        open_frames(None, 0)


def test_the_road_zip_gives_frames_as_it_unpacks(data_root: Path, tmp_path: Path) -> None:
    (tmp_path / "data_road").symlink_to((data_root / "kitti/road").resolve())
    assert [frame.road is not None for frame in open_frames(tmp_path, 3)] == [True] * 3


def test_kitti_folders_give_their_held_out_frames(data_root: Path) -> None:
    """Three each of objects, tracking and road; of the tracking set only sequences of held-out drives."""
    found = open_frames(data_root, 3)
    kinds = [(frame.objects is not None, frame.road is not None) for frame in found]
    assert kinds.count((True, False)) == 6 and kinds.count((False, True)) == 3
    held = set((data_root / "kitti/object/ImageSets/val.txt").read_text().split())
    labelled = [frame.name for frame in found if frame.objects is not None]
    assert {name for name in labelled if "/" not in name} <= held
    assert [name.split("/")[0] for name in labelled if "/" in name] == ["0005"] * 3, "the one of drive 0015"
    others = open_frames(data_root, 3, "seen")
    assert not {frame.name for frame in found} & {frame.name for frame in others}
    rest = open_frames(data_root, 1000, "all", others)
    assert not {frame.name for frame in others} & {frame.name for frame in rest}
    assert {frame.name for frame in found} <= {frame.name for frame in rest}
