"""`perception demo`: draw a street that needs no download, run the shipped network on it, score the result."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perception.cli.options import CommandOptions, parse_options
from perception.errors import UserError
from perception.files import make_folder, write_atomically
from perception.lock import alone_in
from perception.progress import Progress
from perception.provenance import record

if TYPE_CHECKING:
    from perception.evaluation.road import RoadEvaluator
    from perception.evaluation.tracking import TrackingEvaluator
    from perception.formats.kitti import TrackingRows
    from perception.types import Result

SEQUENCE = "0000"


@dataclass(frozen=True)
class DemoOptions(CommandOptions):
    """Draw a synthetic street, find and track what moves on it, and score that against the street's own truth."""

    out: Path = Path("demo-out")
    """Folder for the clip, the annotated video, the tracks and the scores."""
    frames: int = 0
    """Length of the clip at 10 Hz; 0 takes the demo's own 18 seconds."""
    model: Path | None = None
    """ONNX file; by default the shipped one."""
    json: bool = False
    """Print the summary as JSON."""


def main(argv: Sequence[str]) -> int:
    """Clip, run, scores, summary."""
    options = parse_options(DemoOptions, list(argv), "perception demo")
    if options.frames < 0:
        raise UserError(f"--frames {options.frames}", "a number of frames, 0 for the demo's own", "--frames 60")
    made = make_folder(options.out)
    with alone_in(options.out, "writing", made):
        return _demo(options)


def _demo(options: DemoOptions) -> int:
    from perception.backends import load_model
    from perception.cli.run_summary import as_text, summarise
    from perception.evaluation.road import RoadEvaluator
    from perception.evaluation.tracking import TrackingEvaluator
    from perception.model import default_model
    from perception.runtime.pipeline import Pipeline
    from perception.sinks.jsonl import JsonLinesSink
    from perception.sinks.kitti import KittiSink
    from perception.sinks.video import VideoSink
    from perception.sources import open_source

    clip = options.out / "clip" / "training"
    truth = draw_clip(options.out / "clip", options.frames)
    begin = time.perf_counter()
    source = open_source(str(clip / "image_02" / SEQUENCE))
    model_path = options.model or default_model(source.size_hw)
    sinks = [sink.in_folder(options.out) for sink in (JsonLinesSink, VideoSink, KittiSink)]
    pipeline = Pipeline([source], load_model(model_path), sinks)
    found = Collected(pipeline.spec.class_names)
    with Progress("frames", source.frame_count or 0) as progress:
        for result in pipeline:
            found.add(result)
            progress.update(sum(pipeline.stats.frames.values()))
    summary = summarise(pipeline, model_path, time.perf_counter() - begin)
    road, tracking = RoadEvaluator("perspective"), TrackingEvaluator()
    scores = found.scores(truth, clip / "gt_road" / SEQUENCE, road, tracking)
    summary["scores"] = scores
    made = record("perception demo", options, (model_path, clip / "label_02"))
    for name, content in (("run.json", made), ("summary.json", summary)):
        write_atomically(options.out / name, json.dumps(content, indent=2, default=str) + "\n", do="--out FOLDER")
    if options.json:
        print(json.dumps(summary, default=str))
    else:
        print(as_text(summary))
        print("scores    " + ", ".join(f"{name} {value:.1f}" for name, value in scores.items()) + " (of 100)")
        print("          on a synthetic street, whose like the network has seen: for real drives see the README")
        print(f"next      perception run YOUR_VIDEO   (here: {Path(sys.executable).parent / 'perception'})")
    failed = pipeline.errors or any(sink.error for sink in pipeline.sinks)
    return 0 if summary["frames"] and not failed else 1


def draw_clip(folder: Path, frames: int) -> TrackingRows:
    """The clip as a KITTI sequence with its truth; drawn once, then taken from the folder."""
    from dataclasses import asdict, replace

    from datasets.synthetic_street import DEMO_CONFIG, write_kitti_tracking
    from perception.formats.kitti import read_tracking

    config = replace(DEMO_CONFIG, frames=frames) if frames else DEMO_CONFIG
    stamp, recipe = folder / "street.json", json.dumps(asdict(config))
    labels = folder / "training" / "label_02" / f"{SEQUENCE}.txt"
    if stamp.exists() and stamp.read_text() == recipe and labels.exists():
        return read_tracking(labels)
    print("drawing the street …", file=sys.stderr)
    with Progress("drawing the street", config.frames) as bar:
        rows = write_kitti_tracking(
            config, folder, sequence=SEQUENCE, image_kind="jpg", progress=lambda done, *_: bar.update(done)
        )
    write_atomically(stamp, recipe, do="--out FOLDER")
    return rows


class Collected:
    """What the pipeline said about the clip, in the form the evaluators take."""

    def __init__(self, class_names: tuple[str, ...]) -> None:
        self.class_names = class_names
        self.frame_ids: list[int] = []
        self.track_ids: list[int] = []
        self.names: list[str] = []
        self.boxes: list[np.ndarray] = []
        self.scores_: list[float] = []
        self.roads: list[tuple[int, np.ndarray]] = []

    def add(self, result: Result) -> None:
        """Take over one frame's tracks and, of every fifth, the road."""
        for track in result.tracks:
            if track.state == "confirmed":
                self.frame_ids.append(result.frame.frame_id)
                self.track_ids.append(track.track_id)
                self.names.append(self.class_names[track.class_id])
                self.boxes.append(track.box_xyxy)
                self.scores_.append(track.score)
        if result.road is not None and result.frame.frame_id % 5 == 0:
            self.roads.append((result.frame.frame_id, result.road.at_frame_size()))

    def rows(self) -> TrackingRows:
        """All tracks as tracking rows."""
        from perception.formats.kitti import ObjectRows, TrackingRows

        boxes = np.array(self.boxes, np.float64).reshape(-1, 4)
        return TrackingRows(
            np.array(self.frame_ids, np.int64),
            np.array(self.track_ids, np.int64),
            ObjectRows.from_boxes(self.names, boxes, np.array(self.scores_, np.float64)),
        )

    def scores(
        self, truth: TrackingRows, roads: Path, road: RoadEvaluator, tracking: TrackingEvaluator
    ) -> dict[str, Any]:
        """HOTA of cars and pedestrians and road MaxF, per cent, by the official rules."""
        from perception.evaluation.road import read_ground_truth

        tracking.process(SEQUENCE, truth, self.rows(), int(truth.frame_ids.max()) + 1)
        combined = tracking.evaluate().combined
        scores = {
            f"HOTA {name}": 100 * combined[name].values["HOTA"] for name in ("Car", "Pedestrian") if name in combined
        }
        for frame_id, confidence in self.roads:
            judged, is_road = read_ground_truth(roads / f"{frame_id:06d}.png")
            road.process(f"um_road_{frame_id:06d}", judged, is_road, confidence)
        if self.roads:
            scores["road MaxF"] = 100 * road.evaluate().scores["URBAN"].max_f
        return scores
