"""`perception attack --patch`: find a printable patch on some frames, and count what it hides on others."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from perception.arrays import U8
from perception.boxes import iou
from perception.cameras.letterbox import letterbox
from perception.detector import Detector
from perception.errors import UserError
from perception.files import make_folder, write_atomically
from perception.formats.images import read_image
from perception.formats.kitti import read_objects
from perception.lock import alone_in
from perception.progress import Progress
from perception.trust.stress_frames import choose_frames, spread
from training.models.network import Network
from training.patch import Carriers, PatchConfig, carriers, dressed, find_patch

if TYPE_CHECKING:
    from training.attack_cli import AttackOptions

MIN_IOU = 0.5


@dataclass(frozen=True)
class Worn:
    """What a network finds of the objects that carry a patch."""

    patch: str
    """none, grey (of the same size, without an attack) or attack."""
    found: int
    """Carriers with a box of their class above the score threshold that overlaps by a half."""
    carriers: int
    mean_score: float
    """Mean of the best such box's score at any threshold, 0 without one."""


def run_patch(options: AttackOptions, network: Network) -> int:
    """Find the patch, save it, evaluate it, print the table."""
    names = network.config.class_names
    if options.patch_class not in names:
        raise UserError(
            f"--patch-class {options.patch_class}", "one of " + ", ".join(names), f"--patch-class {names[0]}"
        )
    config = PatchConfig(options.patch_m, options.patch_steps, options.seed)
    searched, evaluated = _frames(options)
    made = make_folder(options.out)
    with alone_in(options.out, "writing", made):
        with Progress("patch, steps", total=config.steps) as progress:
            patch = find_patch(network, searched, names.index(options.patch_class), config, progress.update)
        save_patch(options.out / "patch.png", patch, config.size_m)
        from training.backend import torch_model

        detector = Detector(torch_model(network, options.size_hw), 0.01)
        rows = evaluate_patch(detector, evaluated, patch, names.index(options.patch_class), config)
        result = {
            "class": options.patch_class,
            "config": asdict(config),
            "frames": {"searched": len(searched), "evaluated": len(evaluated)},
            "rows": [asdict(row) for row in rows],
        }
        write_atomically(options.out / "patch.json", json.dumps(result, indent=1) + "\n")
    side = f"{100 * config.size_m:g}"
    print(json.dumps(result, indent=1) if options.json else as_text(rows, options.patch_class))
    if not options.json:
        print(f"{options.out / 'patch.png'}: print it {side} cm wide; found on {len(searched)} other frames")
    return 0


def _frames(options: AttackOptions) -> tuple[list[Carriers], list[Carriers]]:
    """Frames to search on and frames to evaluate on, those with carriers; the split's frames are only evaluated."""
    assert options.data is not None
    every = choose_frames(options.data, None, None, "", 0)[0].objects
    if options.split is not None:
        held = choose_frames(options.data, options.split, None, "", 0)[0].objects
        names = {name for name, _, _ in held}
        other = [item for item in every if item[0] not in names]
    else:
        other, held = list(every[: len(every) // 2]), every[len(every) // 2 :]
    return _carriers_in(options, other, "search on"), _carriers_in(options, held, "evaluate on")


def _carriers_in(options: AttackOptions, items: Sequence[tuple[str, Path, Path]], what: str) -> list[Carriers]:
    found = []
    labelled = [(image, read_objects(label)) for _, image, label in items]
    having = [(image, rows) for image, rows in labelled if options.patch_class in rows.names]
    for image, rows in having:
        placed_image, placed = letterbox(read_image(image), options.size_hw)
        frame = carriers(placed_image, rows, placed.boxes_to_network, options.patch_class, options.patch_m)
        if len(frame.boxes_xyxy):
            found.append(frame)
    if not found:
        raise UserError(
            f"of {len(items)} frames to {what}, none has a {options.patch_class} to carry {options.patch_m:g} m",
            "objects of 40 pixels and more, hardly hidden, wider than the patch",
            "a smaller --patch, another --patch-class, or other frames",
        )
    return spread(found, options.patch_frames)


def evaluate_patch(
    detector: Detector, frames: Sequence[Carriers], patch: U8, class_id: int, config: PatchConfig
) -> list[Worn]:
    """Count the carriers that are found without a patch, with a grey one, and with this one, placed alike."""
    rows = []
    for name, shown in (("none", None), ("grey", np.full_like(patch, 128)), ("attack", patch)):
        rng = np.random.default_rng([config.seed, 1])  # other placements than those of the search
        best: list[float] = []
        for frame in frames:
            image = frame.image_bgr
            if shown is not None:
                tensor = torch.from_numpy(shown).float().permute(2, 0, 1)
                image = dressed(frame, tensor, rng, config).round().byte().numpy()
            found, _ = detector(image)
            found = found[found.class_ids == class_id]
            overlaps = iou(frame.boxes_xyxy, found.boxes_xyxy) >= MIN_IOU  # (N, M)
            best += [float((row * found.scores).max(initial=0)) for row in overlaps]
        count = sum(score >= detector.spec.score_threshold for score in best)
        rows.append(Worn(name, count, len(best), float(np.mean(best))))
    return rows


def save_patch(path: Path, patch: U8, size_m: float) -> None:
    """Write a PNG that knows its size on paper."""
    per_inch = patch.shape[1] / size_m * 0.0254
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(patch[..., ::-1])).save(buffer, "PNG", dpi=(per_inch, per_inch))
    write_atomically(path, buffer.getvalue())


def as_text(rows: Sequence[Worn], class_name: str) -> str:
    """The counts for a terminal."""
    lines = [f"{'patch':<10}{class_name + ' found':>20}{'mean score':>12}"]
    return "\n".join(
        lines + [f"{row.patch:<10}{f'{row.found} of {row.carriers}':>20}{row.mean_score:>12.2f}" for row in rows]
    )
