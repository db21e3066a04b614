"""`perception calibrate …`: make the camera file that distances need, and see whether it is right."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from perception.cli.options import CommandOptions, parse_options
from perception.errors import UserError
from perception.files import write_atomically
from perception.provenance import record

if TYPE_CHECKING:
    from perception.arrays import U8
    from perception.cameras.files import CameraFile
    from perception.cameras.yaml_files import Intrinsics


@dataclass(frozen=True)
class CalibrateOptions(CommandOptions):
    """Describe your camera in a small file, so that tracks carry metres and seconds.

    1. How strong is the lens?      --fov-deg or --focal-px, or --intrinsics
    2. How large are the images?    --video, --frame, or --width and --height
    3. How high is the lens?        --height-m, with a tape
    4. Where does it look?          --horizon-y, two or more --lane-line (--page to click them), or --tracks
    5. Is it right?                 --frame draws the horizon and rings at 10, 20, 30 and 50 m
    """

    fov_deg: float | None = None
    """Horizontal field of view in degrees, from the camera's data sheet (not the diagonal one)."""
    focal_px: float | None = None
    """Or the focal length in pixels."""
    intrinsics: Path | None = None
    """Or a calibration of ROS (camera_info) or OpenCV, as YAML: focal lengths, centre, size and distortion."""
    width: int | None = None
    """Width of the images in pixels."""
    height: int | None = None
    """Height of the images in pixels."""
    video: Path | None = None
    """Or a video of this camera, to read the size from."""
    frame: Path | None = None
    """An image of this camera on a flat, straight road: gives the size, and the check image is drawn into it."""
    height_m: float | None = None
    """Height of the lens above the road in metres."""
    horizon_y: float | None = None
    """Row of the horizon in pixels from the top."""
    lane_line: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Two points x1,y1,x2,y2 on a lane line or kerb; give two or more that run along the road."""
    tracks: Path | None = None
    """tracks.jsonl of a run over a straight drive."""
    page: bool = False
    """Only write a page, beside --out, to click the lane lines of --frame in; it shows what to type next."""
    centre: str | None = None
    """Optical centre x,y in pixels; by default the middle of the image."""
    name: str = "camera"
    """What to call it."""
    out: Path = Path("camera.toml")
    """File to write."""
    check: Path | None = None
    """Where the check image goes; by default beside the camera file."""
    json: bool = False
    """Print the result as JSON."""


def main(argv: list[str]) -> int:
    """Write the camera file; 0, or a `UserError`."""
    options = parse_options(CalibrateOptions, argv, "perception calibrate")
    image = _read_frame(options.frame)
    intrinsics = _read_intrinsics(options)
    if image is not None and intrinsics is not None:
        image = _straightened(image, intrinsics)
    if options.page:
        return _write_page(options, image)
    file, findings = calibrate(options, image, intrinsics)

    from perception.cameras.files import write_camera_file

    write_camera_file(options.out, file)
    read = tuple(path for path in (options.intrinsics, options.frame, options.tracks) if path is not None)
    made = record("perception calibrate", options, read, file=options.out.name)
    write_atomically(
        options.out.with_name(f"{options.out.name}.json"), json.dumps(made, indent=1, default=str) + "\n"
    )
    check = None
    if image is not None:
        check = options.check or options.out.with_name(options.out.stem + "_check.png")
        _write_check(check, image, file)
    report = _report(file, findings, options, check)
    print(json.dumps(report) if options.json else _as_text(report))
    return 0


def calibrate(
    options: CalibrateOptions, image: U8 | None, intrinsics: Intrinsics | None = None
) -> tuple[CameraFile, list[str]]:
    """The camera file, and how its pitch and yaw were found."""
    from perception.cameras.calibration import focal_from_fov, pitch_yaw_deg
    from perception.cameras.files import CameraFile
    from perception.cameras.sized import wide_lens

    height, width = _size_hw(options, image, intrinsics)
    ways = [way is not None for way in (options.fov_deg, options.focal_px, intrinsics)]
    if sum(ways) != 1:
        given = "more than one" if any(ways) else "none"
        raise UserError(
            f"{given} of --fov-deg, --focal-px and --intrinsics", "one of them", "--fov-deg 90 (see the data sheet)"
        )
    if options.height_m is None:
        raise UserError("no --height-m", "the height of the lens above the road in metres", "--height-m 1.4")
    focal = focal_from_fov(width, options.fov_deg) if options.fov_deg is not None else float(options.focal_px or 0)
    if intrinsics is not None:
        focal = float(intrinsics.K[1, 1])
    if not 10 <= focal <= 1e6:
        raise UserError(
            f"--focal-px {focal:g}", "the focal length in pixels, about the width of the image", "--fov-deg 90"
        )
    centre = (width / 2, height / 2)
    if intrinsics is not None:
        centre = (float(intrinsics.K[0, 2]), float(intrinsics.K[1, 2]))
    if options.centre is not None:
        x, y = _numbers(options.centre, 2, "--centre")
        centre = (x, y)
    point, findings = _vanishing_point(options, (height, width), centre)
    pitch_deg, yaw_deg = pitch_yaw_deg(point, focal, centre) if point else (0.0, 0.0)
    try:
        file = CameraFile(
            width=width,
            height=height,
            height_m=options.height_m,
            fx=focal if intrinsics is None else float(intrinsics.K[0, 0]),
            fy=focal,
            cx=centre[0],
            cy=centre[1],
            pitch_deg=round(pitch_deg, 4),
            yaw_deg=round(yaw_deg, 4),
            distortion=() if intrinsics is None else intrinsics.distortion,
            distortion_model="" if intrinsics is None else intrinsics.distortion_model,
            name=options.name,
        )
    except ValueError as error:
        found, _, expected = str(error).partition(", expected ")
        do = "check --height-m, and that --horizon-y or the lines are those of the road"
        raise UserError(found, expected, do) from None
    if file.distortion:
        findings.append(
            f"lens distortion ({file.distortion_model}): images are straightened with it, and so is the check image; "
            "horizon and lane lines are those of the straightened image"
        )
    elif warning := wide_lens(file.sized()):
        findings.append(f"warning: {warning}")
    return file, findings


def _vanishing_point(
    options: CalibrateOptions, size_hw: tuple[int, int], centre: tuple[float, float]
) -> tuple[tuple[float, float] | None, list[str]]:
    """Where straight ahead is in the image, None where nothing was said about it; and how it was found."""
    import numpy as np

    from perception.cameras.calibration import focus_of_expansion, foot_trails, meeting_point

    ways = [options.horizon_y is not None, bool(options.lane_line), options.tracks is not None]
    if sum(ways) > 1:
        raise UserError("more than one of --horizon-y, --lane-line, --tracks", "one of them", "leave the others out")
    if options.horizon_y is not None:
        return (centre[0], options.horizon_y), ["pitch from the horizon; yaw unknown, taken as 0"]
    if options.lane_line:
        lines = np.array([_numbers(text, 4, "--lane-line") for text in options.lane_line])
        if len(lines) < 2:
            raise UserError(
                "one --lane-line", "two or more: lines meet only in pairs", "--frame IMAGE --page to click them"
            )
        x, y = point = meeting_point(lines)
        return point, [f"{len(lines)} lane lines meet at ({x:.1f}, {y:.1f})"]
    if options.tracks is not None:
        try:
            with options.tracks.open(encoding="utf-8-sig", errors="replace") as stream:
                trails = foot_trails(stream, options.tracks)
        except OSError as error:
            do = "perception run VIDEO writes one"
            raise UserError(f"{options.tracks}: {error.strerror}", "tracks.jsonl of a run", do) from None
        found = focus_of_expansion(trails, size_hw)
        x, y = found.point
        text = f"{found.agreeing} of {found.trails} trails come from ({x:.1f}, {y:.1f}), to {found.error_px:.1f} px"
        return found.point, [text]
    return None, ["nothing was said about where it looks: pitch and yaw are taken as 0 (try --horizon-y)"]


# ---------------------------------------------------------------- reading


def _numbers(text: str, count: int, option: str) -> list[float]:
    """`count` finite numbers with commas between."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count or not all(abs(value) < 1e6 for value in values):
        example = "100,700,600,400"[: 4 * count - 1]
        raise UserError(f"{option} {text}", f"{count} numbers with commas", f"{option} {example}")
    return values


def _read_frame(path: Path | None) -> U8 | None:
    if path is None:
        return None
    from perception.formats.images import read_image

    return read_image(path)


def _read_intrinsics(options: CalibrateOptions) -> Intrinsics | None:
    if options.intrinsics is None:
        return None
    from perception.cameras.yaml_files import MOST_TEXT, parse_intrinsics
    from perception.files import read_text

    return parse_intrinsics(read_text(options.intrinsics, most=MOST_TEXT), options.intrinsics)


def _straightened(image: U8, intrinsics: Intrinsics) -> U8:
    """The image without the lens's distortion, where the file says that there is one."""
    from perception.cameras.files import CameraFile

    height, width = intrinsics.size_hw
    (fx, _, cx), (_, fy, cy), _ = intrinsics.K.tolist()
    file = CameraFile(
        width, height, 1.0, fx, fy, cx, cy,
        distortion=intrinsics.distortion, distortion_model=intrinsics.distortion_model,
    )  # fmt: skip
    camera = file.sized()
    maps = camera.straightening_maps((image.shape[0], image.shape[1]))
    return image if maps is None else camera.straightened(image, maps)


def _size_hw(options: CalibrateOptions, image: U8 | None, intrinsics: Intrinsics | None) -> tuple[int, int]:
    """Size of the images from the options, an image, a video or the calibration; they must agree."""
    sizes: dict[str, tuple[int, int]] = {}
    if intrinsics is not None:
        sizes["--intrinsics"] = intrinsics.size_hw
    if image is not None:
        sizes["--frame"] = (image.shape[0], image.shape[1])
    if options.video is not None:
        from perception.source_options import SourceOptions
        from perception.sources import open_source

        source = open_source(str(options.video), SourceOptions())
        if source.size_hw is not None:
            sizes["--video"] = source.size_hw
        source.close()
    if options.width is not None and options.height is not None:
        sizes["--width and --height"] = (options.height, options.width)
    if not sizes:
        raise UserError("no size of the images", "--video, --frame, or --width and --height", "--video VIDEO")
    (first, size), *others = sizes.items()
    for other, value in others:
        if value != size:
            found = f"{first} is {size[1]}×{size[0]}, {other} is {value[1]}×{value[0]}"
            raise UserError(found, "images of the same camera and size", f"leave one of {first} and {other} out")
    return size


# ---------------------------------------------------------------- telling


def _write_page(options: CalibrateOptions, image: U8 | None) -> int:
    from perception.cameras.calibration_page import click_page

    if image is None:
        raise UserError("--page without --frame", "an image to click in", "--frame road.png --page")
    lens = f"--fov-deg {options.fov_deg:g}" if options.fov_deg is not None else "--fov-deg DEGREES"
    if options.focal_px is not None:
        lens = f"--focal-px {options.focal_px:g}"
    if options.intrinsics is not None:
        lens = f"--intrinsics {shlex.quote(str(options.intrinsics))}"
    tall = f"{options.height_m:g}" if options.height_m is not None else "METRES"
    files = f"--frame {shlex.quote(str(options.frame))} --out {shlex.quote(str(options.out))}"
    path = options.out.with_suffix(".html")
    page = click_page(image, f"perception calibrate {lens} --height-m {tall} {files}")
    write_atomically(path, page, do="--out FILE")
    print(json.dumps({"page": str(path)}) if options.json else f"wrote {path}\nopen it in a browser, and click")
    return 0


def _write_check(path: Path, image: U8, file: CameraFile) -> None:
    import cv2

    from perception.cameras.calibration import draw_check

    write_atomically(path, cv2.imencode(".png", draw_check(image, file.camera()))[1].tobytes(), do="--check FILE")


def _report(
    file: CameraFile, findings: list[str], options: CalibrateOptions, check: Path | None
) -> dict[str, object]:
    import numpy as np

    from perception.cameras.calibration import ground_to_pixel

    camera = file.camera()
    focal = float(file.fy or 0)
    feet = ground_to_pixel(camera, np.array([[0.0, 20.0], [0.0, 50.0], [0.0, 1e7]]))
    return {
        "file": str(options.out),
        "check_image": None if check is None else str(check),
        "focal_px": round(focal, 2),
        "fov_deg": round(float(np.degrees(2 * np.arctan(file.width / 2 / focal))), 2),
        "horizon_y": round(float(feet[2, 1]), 1),
        "pitch_deg": file.pitch_deg,
        "yaw_deg": file.yaw_deg,
        "height_m": file.height_m,
        "found": findings,
        "car_at_20_m_px": round(1.5 * focal / 20, 1),
        "foot_at_20_m_y": round(float(feet[0, 1]), 1),
        "foot_at_50_m_y": round(float(feet[1, 1]), 1),
    }


def _as_text(report: dict[str, object]) -> str:
    lines = [
        f"wrote {report['file']}",
        *(f"  {finding}" for finding in report["found"]),  # type: ignore[attr-defined]
        f"  focal length {report['focal_px']} px: {report['fov_deg']}° across the image",
        f"  looks {_side(report['pitch_deg'], 'down', 'up')} and {_side(report['yaw_deg'], 'right', 'left')};"
        f" the horizon is at row {report['horizon_y']}",
        "what that means, on a flat road:",
        f"  a car 1.5 m high at 20 m is {report['car_at_20_m_px']} px high",
        f"  a foot at 20 m is at row {report['foot_at_20_m_y']}, one at 50 m at row {report['foot_at_50_m_y']}",
    ]
    if report["check_image"]:
        lines.append(f"look at {report['check_image']}: does the horizon lie on the horizon?")
    else:
        lines.append("to see whether it is right: --frame IMAGE draws the horizon and rings of distance")
    lines.append(f"then: perception run VIDEO --camera {report['file']}")
    return "\n".join(lines)


def _side(degrees: object, positive: str, negative: str) -> str:
    assert isinstance(degrees, float)
    return f"{abs(degrees):.2f}° {positive if degrees >= 0 else negative}"
