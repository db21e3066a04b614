"""`perception track`: run a tracker over stored detections, without images or a network."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from perception.cli.options import CommandOptions, parse_options
from perception.errors import UserError
from perception.files import write_atomically
from perception.provenance import record

if TYPE_CHECKING:
    from perception.formats.detections import DetectionFolder, DetectionSequence, ScoreScale
    from perception.ranging.ranger import Ranger
    from perception.trackers import Tracker
    from perception.types import Detections

MOST_EMPTY_FRAMES = 300
"""Of a run of frames without detections so many are played; no track outlives them."""


@dataclass(frozen=True)
class TrackOptions(CommandOptions):
    """Track objects through stored detections; writes one file of KITTI tracking rows per sequence."""

    detections: Path | None = None
    """Folder with one file per sequence, or with such folders named after classes."""
    format: Literal["kitti", "csv"] = "kitti"
    """Rows of the files: KITTI tracking rows, or frame,x1,y1,x2,y2,score."""
    classes: tuple[str, ...] = ()
    """Classes to track (default: all). Required for CSV, whose rows carry no class."""
    out: Path | None = None
    """Output directory."""
    tracker: str = "drivetrack"
    """Tracker, by the name of its file in perception/trackers."""
    set: tuple[str, ...] = ()
    """Set fields of the tracker's config: lost_s=1.5 or confirm_thresholds=0.7 (one for each class: 0.7,0.5)"""
    offline: bool = False
    """Track with hindsight: tracks begin earlier, gaps are filled, false tracks go. For labelling and evaluation."""
    fps: float = 10.0
    """Frames per second of the recording."""
    calib: Path | None = None
    """Folder of calibrations, one per sequence, or one file for all: adds each object's position in metres."""
    frame_size: tuple[int, int] = (375, 1242)
    """Height and width of the images, pixels; with --calib, to find boxes that the border truncates."""
    json: bool = False
    """Print the summary as JSON."""
    quiet: bool = False
    """Print no progress."""


def main(argv: list[str]) -> int:
    """Track every sequence of a folder; 0 where there was something to track, 1 where nothing was found."""
    options = parse_options(TrackOptions, argv, "perception track", names={"classes": "class"})
    if options.detections is None or options.out is None:
        missing = "--detections" if options.detections is None else "--out"
        raise UserError(f"no {missing} given", "two folders", "perception track --detections DIR --out DIR")
    if not 0 < options.fps < float("inf"):
        raise UserError(f"--fps {options.fps}", "a number above 0", "--fps 10, KITTI's rate")
    from perception.cli.settings import make_tracker, read_settings
    from perception.formats.detections import as_shares, find_detections, score_scale

    tracker = make_tracker(options.tracker, read_settings(options.set))
    folder = find_detections(options.detections, options.format, options.classes)
    _make_out(options.out, folder)

    stored = {sequence: folder.read(sequence) for sequence in folder.files}
    scale = score_scale(stored.values())
    _report_input(stored, scale, sorted(folder.wanted), options)

    summary: dict[str, Any] = {"out": str(options.out), "tracker": options.tracker, "sequences": {}}
    summary |= {"offline": options.offline, "scores": scale}
    for i, sequence in enumerate(folder.files):
        ranger = _ranger(options, sequence, folder.class_names)
        tracker.reset()
        frames = [
            (frame_id, as_shares(detections, scale))
            for frame_id, detections in stored[sequence].frames(MOST_EMPTY_FRAMES)
        ]
        text, counts = _track(frames, folder.class_names, tracker, ranger, options)
        write_atomically(options.out / f"{sequence}.txt", text, do="--out FOLDER")
        summary["sequences"][sequence] = counts
        if not options.quiet:
            print(
                f"{sequence} ({i + 1} of {len(folder.files)}): {counts['frames']} frames, "
                f"{counts['detections']} detections, {counts['tracks']} tracks, "
                f"{counts['ms_per_frame']:.3f} ms a frame",
                file=sys.stderr,
            )
    made = record(
        "perception track", options, (options.detections,), tracker=options.tracker, fps=options.fps,
        config=asdict(tracker.config),
    )  # fmt: skip
    write_atomically(options.out / "track.json", json.dumps(made, indent=2, default=str) + "\n", do="--out FOLDER")
    total = {key: sum(c[key] for c in summary["sequences"].values()) for key in ("detections", "tracks", "rows")}
    summary |= total
    if options.json:
        print(json.dumps(summary, indent=2))
    else:
        print(f"{len(folder.files)} sequences, {total['tracks']} tracks, {total['rows']} rows in {options.out}")
    return 0 if total["detections"] else 1


def _make_out(out: Path, folder: DetectionFolder) -> None:
    """The folder of the results, which is never the one that the detections are read from."""
    if out.resolve() in {path.parent.resolve() for parts in folder.files.values() for path, _ in parts}:
        raise UserError(
            f"--out {out}: the detections lie there", "another folder: results have the same file names", "--out DIR"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: {error.strerror}", "a folder that can be written", "--out DIR") from None


def _report_input(
    stored: dict[str, DetectionSequence], scale: ScoreScale, wanted: list[str], options: TrackOptions
) -> None:
    """Say on stderr what is not tracked and why, and how scores are read.

    Raises:
        UserError: rows there are, and none can be used.
    """
    from perception.formats.detections import SCALES

    skipped: dict[str, int] = {}
    for sequence in stored.values():
        for name, count in sequence.skipped.items():
            skipped[name] = skipped.get(name, 0) + count
    skipped.pop("DontCare", None)
    boxes = sum(len(sequence.frame_ids) for sequence in stored.values())
    inverted = sum(sequence.inverted for sequence in stored.values())
    rows = ", ".join(f"{count} rows of class '{name}'" for name, count in sorted(skipped.items()))
    if skipped and not boxes:
        raise UserError(
            f"{rows}, none of a class to track", ", ".join(wanted), f"--class {' '.join(sorted(skipped))}"
        )
    if inverted > boxes / 2:
        raise UserError(
            f"{inverted} of {boxes} boxes have their right edge left of the left one, or their feet above their head",
            "corners x1,y1,x2,y2",
            "x2 = x + w and y2 = y + h, where the rows are x,y,w,h",
        )
    if skipped and not options.classes:
        print(f"not tracked: {rows} (--class {' '.join(sorted(skipped))})", file=sys.stderr)
    if inverted:
        print(f"dropped: {inverted} of {boxes} boxes, inverted", file=sys.stderr)
    if scale != "share":
        print(f"scores of {boxes} detections are {SCALES[scale]}", file=sys.stderr)


def _track(
    frames: list[tuple[int, Detections]],
    class_names: tuple[str, ...],
    tracker: Tracker,
    ranger: Ranger | None,
    options: TrackOptions,
) -> tuple[str, dict[str, Any]]:
    """Play one sequence; the text of its result file, and what there was to count."""
    from perception.formats.kitti import format_tracking
    from perception.sinks.kitti import tracking_rows

    text: list[str] = []
    ids: set[int] = set()
    rows = 0
    stamped = [(round(frame_id * 1e9 / options.fps), detections) for frame_id, detections in frames]
    begin = time.perf_counter()
    if options.offline:
        from perception.trackers.offline import track_offline

        tracked = track_offline(tracker, stamped)
    else:
        tracked = [tracker.update(detections, timestamp_ns) for timestamp_ns, detections in stamped]
    seconds = time.perf_counter() - begin
    for (frame_id, _), (timestamp_ns, _), tracks in zip(frames, stamped, tracked, strict=True):
        if ranger is not None:
            tracks = ranger.update(tracks, timestamp_ns, options.frame_size)
        rows += len(tracks)
        ids.update(tracks.track_ids.tolist())
        if len(tracks):
            camera = ranger.camera if ranger is not None else None
            text.append(format_tracking(tracking_rows(frame_id, tracks, class_names, camera)))
    counts = {
        "frames": len(frames),
        "detections": sum(len(detections) for _, detections in frames),
        "tracks": len(ids),
        "rows": rows,
        "ms_per_frame": round(1e3 * seconds / max(len(frames), 1), 4),
    }
    return "".join(text), counts


def _ranger(options: TrackOptions, sequence: str, class_names: tuple[str, ...]) -> Ranger | None:
    """What fills in metres for one sequence, where a calibration is given."""
    if options.calib is None:
        return None
    from perception.cameras.files import read_camera
    from perception.ranging.ranger import Ranger

    path = options.calib
    if path.is_dir():
        named = [path / f"{sequence}{suffix}" for suffix in (".txt", ".toml")]
        path = next((file for file in named if file.is_file()), named[0])
    return Ranger(read_camera(path).at(options.frame_size), class_names)
