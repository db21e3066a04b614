"""Options of `perception evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from perception.cli.options import CommandOptions
from perception.devices import Device, Precision


@dataclass(frozen=True)
class SharedOptions(CommandOptions):
    """What the three tasks have in common."""

    gt: Path | None = None
    """Folder of labels, or KITTI's root; with --model, --data without it."""
    results: Path | None = None
    """Folder of results in KITTI's format."""
    model: Path | None = None
    """Model file to run over --data first, instead of --results, or the bare name of a shipped one."""
    ensemble: tuple[Path, ...] = ()
    """Further model files; what they find is fused with --model's by weighted boxes fusion."""
    flip: bool = False
    """With --model: run each image mirrored too, and fuse."""
    scales: tuple[float, ...] = ()
    """With --model: run each image at these scales too, and fuse; above 1 in overlapping crops."""
    data: Path | None = None
    """KITTI's root, with the images, for --model."""
    out: Path | None = None
    """Folder where --model keeps its results, in KITTI's format; by default one under runs/."""
    device: Device = "auto"
    """What runs the network."""
    precision: Precision = "fp32"
    """Arithmetic of OpenVINO. Lower ones change results a little, and are faster on processors that have them."""
    threads: int = 0
    """CPU threads for the network, 0 for one a core."""
    allow_missing: bool = False
    """Count frames without a result file as empty instead of refusing; the report says so."""
    report: Path | None = None
    """Folder for a page to look at, and the same as JSON and CSV."""
    images: Path | None = None
    """Folder of camera images for the report's gallery; by default the one beside the labels."""
    json: bool = False
    """Print everything as JSON."""


@dataclass(frozen=True)
class ObjectOptions(SharedOptions):
    """Score boxes by KITTI's object benchmark: 2D AP and AOS; BEV and 3D AP where results carry 3-D boxes."""

    split: Path | None = None
    """File with the frames to score, one name on a line, or a name in KITTI's ImageSets such as val."""
    minimum_score: float = 0.01
    """With --model: lowest score that is written."""
    calib: Path | None = None
    """With --model: folder of the images' calibrations, which place 3-D boxes; by default KITTI's 'calib'."""
    score_threshold: float | None = None
    """Operating point of the report; by default each class's highest F1 at moderate."""


@dataclass(frozen=True)
class RoadOptions(SharedOptions):
    """Score road confidence as KITTI's road benchmark does: MaxF and AP for um, umm, uu and URBAN."""

    calib: Path | None = None
    """Folder of calibration files; by default 'calib' beside the ground truth."""
    space: Literal["bev", "perspective"] = "bev"
    """Seen from above, as the server scores, or in the image."""
    split: Path | None = None
    """File with the ground truths to score, such as um_road_000012, one on a line."""
    render: Path | None = None
    """Folder for images in the space that is scored: confidence as the server wants it, and errors in colour."""


@dataclass(frozen=True)
class TrackingOptions(SharedOptions):
    """Score tracks as KITTI's tracking benchmark does: HOTA, CLEAR and Identity; by sequence, class, combined."""

    seqmap: Path | None = None
    """KITTI's sequence map; by default the one that lies with the labels."""
    tracker: str = "drivetrack"
    """With --model: tracker, by the name of its file in perception/trackers."""
    summary: bool = False
    """Print the combined rows only."""


@dataclass(frozen=True)
class DetectionOptions(CommandOptions):
    """Score boxes of any classes by COCO's protocol: mAP over IoU 0.50 to 0.95, by class and size (extra coco)."""

    gt: Path | None = None
    """COCO's JSON of labels; `perception data convert LABELS OUT --to coco` makes it of any format."""
    results: Path | None = None
    """JSON file of results: image_id, category_id, bbox, score."""
    model: Path | None = None
    """Model file to run over the images, instead of --results, or the bare name of a shipped one."""
    images: Path | None = None
    """Folder of the images for --model; default: `images` beside the labels."""
    out: Path | None = None
    """Folder where --model keeps its results; default: runs/evaluate-detection."""
    device: Literal["auto", "cpu", "cuda", "tensorrt"] = "auto"
    """What runs the network."""
    threads: int = 0
    """CPU threads for the network, 0 for one a core."""
    minimum_score: float = 0.001
    """With --model: lowest score that counts."""
    json: bool = False
    """Print everything as JSON."""


@dataclass(frozen=True)
class CompareOptions(CommandOptions):
    """Put two reports side by side and say which differences chance does not explain."""

    a: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="A")] = None
    """Folder that --report wrote."""
    b: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="B")] = None
    """Another, of the same task and frames."""
    resamples: int | None = None
    """Draws of the bootstrap; by default 2,000, more where more scores are compared."""
    seed: int = 0
    """Of the draws: the same seed gives the same intervals."""
    block: int | None = None
    """Consecutive frames that are drawn together; by default 1, in tracking 50."""
    groups: Path | None = None
    """JSON file with the group of every frame, such as its drive; frames of a group are drawn together."""
    fail_if_worse: bool = False
    """Exit with 1 where any number of B is really worse than A's, or missing, as of a class it never detects."""
    report: Path | None = None
    """Folder for a page to look at, and the same as JSON and CSV."""
    json: bool = False
    """Print everything as JSON."""
