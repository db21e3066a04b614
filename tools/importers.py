"""Open sets that `perception data convert` wrote with importers of other projects, and compare every box.

    for to in coco voc yolo cvat kitti label_studio; do perception data convert LABELS sets/$to --to $to; done
    pip install datumaro        # in an environment of its own; then label-studio-sdk
    python tools/importers.py sets

Runs without this project: it compares with the plain JSON in `sets/coco`. What is not installed is left out.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

Boxes = Counter[tuple[str, str, tuple[int, ...]]]
"""Image, label, and corners in hundredths of a pixel, how often."""


def key(image: str, label: str, xywh: list[float]) -> tuple[str, str, tuple[int, ...]]:
    """Return one box as it is compared."""
    x, y, w, h = xywh
    return Path(image).stem, label, tuple(round(100 * value) for value in (x, y, x + w, y + h))


def coco_boxes(folder: Path) -> Boxes:
    """Return the boxes of COCO's files, read as JSON."""
    found: Boxes = Counter()
    for file in sorted((folder / "annotations").glob("*.json")):
        content = json.loads(file.read_text())
        images = {image["id"]: image["file_name"] for image in content["images"]}
        names = {one["id"]: one["name"] for one in content["categories"]}
        found.update(key(images[a["image_id"]], names[a["category_id"]], a["bbox"]) for a in content["annotations"])
    return found


def with_datumaro(folder: Path, form: str) -> Boxes:
    """Return the boxes that datumaro finds."""
    from datumaro import AnnotationType, Dataset

    found: Boxes = Counter()
    for split in ("train", "val") if form == "cvat" else (None,):  # it opens one subset of a CVAT file at a time
        dataset = Dataset.import_from(str(folder), form, **({"subset": split} if split else {}))
        labels = dataset.categories()[AnnotationType.label]
        first = int(form == "voc_detection")  # VOC's pixels count from 1, which datumaro leaves as it is
        found.update(
            key(item.id, labels[a.label].name, [a.x - first, a.y - first, a.w + first, a.h + first])
            for item in dataset
            for a in item.annotations
            if a.type == AnnotationType.bbox
        )
    return found


def with_label_studio(folder: Path) -> Boxes:
    """Return the boxes of the COCO file that Label Studio's converter makes of the tasks."""
    from label_studio_sdk.converter import Converter

    labels = sorted({label for _, label, _ in coco_boxes(folder.parent / "coco")})
    tags = "".join(f'<Label value="{label}"/>' for label in labels)
    config = (
        '<View><Image name="image" value="$image"/>'
        f'<RectangleLabels name="label" toName="image">{tags}</RectangleLabels></View>'
    )
    with tempfile.TemporaryDirectory() as out:
        converter = Converter(config, str(folder), download_resources=False)
        converter.convert_to_coco(str(folder / "tasks.json"), out, is_dir=False)
        content = json.loads((Path(out) / "result.json").read_text())
    images = {image["id"]: image["file_name"] for image in content["images"]}
    names = {one["id"]: one["name"] for one in content["categories"]}
    return Counter(key(images[a["image_id"]], names[a["category_id"]], a["bbox"]) for a in content["annotations"])


def importers(root: Path) -> Iterator[tuple[str, str, Callable[[], Boxes]]]:
    """Iterate over set, importer and what opens it."""
    for form, name in (("coco", "coco_instances"), ("voc", "voc_detection"), ("yolo", "yolo"), ("cvat", "cvat"),
                       ("kitti", "kitti_detection")):  # fmt: skip
        yield form, f"datumaro {name}", partial(with_datumaro, root / form, name)
    yield "label_studio", "label-studio-sdk", partial(with_label_studio, root / "label_studio")


def main() -> int:
    """Print a line for each importer that is installed."""
    root = Path(sys.argv[1])
    truth = coco_boxes(root / "coco")
    for form, name, opened in importers(root):
        try:
            found = opened()
        except ImportError:
            continue
        except Exception as error:  # whatever a foreign importer raises is the result
            print(f"| {form} | {name} | not opened: {type(error).__name__}: {str(error)[:120]} |")
            continue
        near = sum(1 for box in found for _ in range(found[box]) if is_near(box, truth))
        print(
            f"| {form} | {name} | {sum(found.values())} of {sum(truth.values())} boxes, {near} within 0.02 pixels |"
        )
        if near < sum(found.values()):
            print("   ", next(box for box in found if not is_near(box, truth)), file=sys.stderr)
    return 0


def is_near(box: tuple[str, str, tuple[int, ...]], truth: Boxes) -> bool:
    """Whether the truth has this box, to two hundredths of a pixel."""
    image, label, corners = box
    if box in truth:
        return True
    return any(
        one[0] == image and one[1] == label and all(abs(a - b) <= 2 for a, b in zip(one[2], corners, strict=True))
        for one in truth
    )


if __name__ == "__main__":
    sys.exit(main())
