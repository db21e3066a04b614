"""`perception data street`: make a drive through the synthetic street, with exact truth in KITTI's formats."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from perception.cli.options import CommandOptions, parse_options
from perception.errors import UserError
from perception.files import write_atomically
from perception.provenance import record

if TYPE_CHECKING:
    from perception.arrays import U8
    from perception.formats.kitti import TrackingRows


@dataclass(frozen=True)
class StreetOptions(CommandOptions):
    """Render a synthetic drive: images, labels, calibration and road masks in KITTI's formats."""

    out: Path = Path("street")
    """Folder for the data set."""
    frames: int = 200
    """Length of the drive, frames at 10 a second."""
    seed: int = 7
    """Another seed is another street, light, traffic and crowd."""
    layout: Literal["tracking", "object"] = "tracking"
    """KITTI's tracking layout (one sequence) or its object layout (single frames)."""
    sequence: str = "0000"
    """Name of the sequence in the tracking layout."""
    image: Literal["png", "jpg"] = "png"
    """File format of the images."""
    size: tuple[int, int] = (375, 1242)
    """Height and width, pixels."""
    weather: Literal["any", "sun", "overcast", "rain", "fog", "dusk"] = "any"
    """Light and haze."""
    setting: Literal["any", "city", "suburb", "country", "arterial"] = "any"
    """What stands beside the road."""
    traffic: float = 1.0
    """Moving vehicles, times the usual number."""
    parked: float = 1.0
    """Parked vehicles, times the usual number."""
    people: float = 1.0
    """Pedestrians and cyclists, times the usual number."""
    video: Path | None = None
    """Also write the drive as H.264 into this MP4 file."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the summary as JSON."""


def main(argv: list[str]) -> int:
    """Draw, write, and say where it is."""
    options = parse_options(StreetOptions, argv, "perception data street")
    from datasets.synthetic_street import StreetConfig, write_kitti_object, write_kitti_tracking
    from perception.progress import Progress
    from perception.sinks.video import H264Writer

    try:
        config = StreetConfig(
            seed=options.seed,
            frames=options.frames,
            size_hw=options.size,
            traffic=options.traffic,
            parked=options.parked,
            people=options.people,
            weather=None if options.weather == "any" else options.weather,
            setting=None if options.setting == "any" else options.setting,
        )
    except ValueError as error:
        found, _, expected = str(error).partition(", expected ")
        raise UserError(found, expected, "perception data street --help") from None
    if Path(options.sequence).name != options.sequence or options.sequence in ("", ".", ".."):
        raise UserError(f"--sequence {options.sequence!r}", "a plain name such as 0000", "--sequence 0000")
    if options.video is not None:
        options.video.parent.mkdir(parents=True, exist_ok=True)
    video = None if options.video is None else H264Writer(options.video, config.fps, crf=20)
    progress = Progress("drawing", config.frames)

    def after_frame(done: int, _total: int, image: U8) -> None:
        if video is not None:
            video.write(image, round((done - 1) * 1e9 / config.fps))
        progress.update(done)

    try:
        if options.layout == "tracking":
            rows = write_kitti_tracking(
                config, options.out, sequence=options.sequence, image_kind=options.image, progress=after_frame
            )
        else:
            rows = write_kitti_object(config, options.out, image_kind=options.image, progress=after_frame)
        if video is not None:
            video.close()
    except OSError as error:  # of the video; all else says what it could not write
        raise UserError(
            f"{options.video}: cannot be written ({error.strerror or error})", "room for the video", "--video FILE"
        ) from None
    finally:
        progress.close()
        if video is not None:
            video.abandon()
    summary = _summary(options, rows)
    text = json.dumps(record("perception data street", options, boxes=summary["boxes"]), indent=1, default=str)
    write_atomically(options.out / "street.json", text + "\n", do="--out FOLDER")
    print(json.dumps(summary) if options.json else _as_text(summary, options))
    return 0


def _summary(options: StreetOptions, rows: TrackingRows) -> dict[str, Any]:
    names = rows.objects.names
    return {
        "out": str(options.out),
        "layout": options.layout,
        "frames": options.frames,
        "seed": options.seed,
        "boxes": {name: names.count(name) for name in sorted(set(names))},
        "tracks": len(set(rows.track_ids[rows.track_ids >= 0].tolist())),
        "video": None if options.video is None else str(options.video),
    }


def _as_text(summary: dict[str, Any], options: StreetOptions) -> str:
    boxes = ", ".join(f"{name} {count}" for name, count in summary["boxes"].items())
    lines = [
        f"{options.frames} frames, seed {options.seed}: {options.out / 'training'}",
        f"boxes     {boxes}; {summary['tracks']} tracks",
    ]
    if options.video is not None:
        lines.append(f"video     {options.video}")
    return "\n".join([*lines, f"next      perception data check {options.out}"])
