"""Writes small data sets to disk, right ones, for tests to read and to damage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np

HEIGHT, WIDTH = 40, 120
CALIBRATION = "P2: 100 0 60 0 0 100 20 0 0 0 1 0\n"
CAR = "Car 0.00 0 -1.57 10.00 20.00 30.00 35.00 1.50 1.60 3.90 1.00 1.65 20.00 0.00"
PEDESTRIAN = "Pedestrian 0.00 1 0.20 50.00 15.00 56.00 33.00 1.80 0.60 0.80 2.00 1.65 12.50 0.00"
CYCLIST = "Cyclist 0.60 3 0.20 100.00 15.00 119.00 33.00 1.80 0.60 1.80 4.00 1.65 8.00 0.00"
VAN = "Van 0.00 0 0.00 60.00 10.00 80.00 30.00 2.00 1.90 5.00 3.00 1.65 25.00 0.00"
SITTING = "Person_sitting 0.00 0 0.00 1.00 20.00 8.00 30.00 1.20 0.60 0.80 -9.00 1.65 12.00 0.00"
TRUCK = "Truck 0.00 0 0.00 62.00 5.00 82.00 30.00 3.00 2.50 9.00 3.00 1.65 35.00 0.00"
DONT_CARE = "DontCare -1 -1 -10 90.00 10.00 110.00 20.00 -1 -1 -1 -1000 -1000 -1000 -10"


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_image(path: Path, seed: int = 0, size_hw: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    image = np.random.default_rng(seed).integers(0, 256, (*size_hw, 3)).astype(np.uint8)
    return write(path, cv2.imencode(path.suffix, image)[1].tobytes())


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def write_mask(path: Path, mask: np.ndarray) -> Path:
    return write(path, cv2.imencode(".png", mask.astype(np.uint8))[1].tobytes())


def kitti_object(root: Path) -> Path:
    """Four frames of two drives, one JPEG, with a split by drive; one test frame."""
    rows = {
        "000000": [CAR, PEDESTRIAN, CYCLIST, VAN, DONT_CARE],
        "000001": [],
        "000002": [CAR, TRUCK, SITTING],
        "000003": [CYCLIST],
    }
    for i, (name, lines) in enumerate(rows.items()):
        write_image(root / "training" / "image_2" / f"{name}{'.jpg' if i == 1 else '.png'}", seed=i)
        write(root / "training" / "label_2" / f"{name}.txt", "".join(line + "\n" for line in lines))
        write(root / "training" / "calib" / f"{name}.txt", CALIBRATION)
    write_image(root / "testing" / "image_2" / "000000.png", seed=9)
    write(root / "testing" / "calib" / "000000.txt", CALIBRATION)
    write(
        root / "drives.json",
        '{"000000": "day_drive_a", "000001": "day_drive_a", "000002": "day_drive_b", "000003": "day_drive_b"}',
    )
    write(root / "ImageSets" / "train.txt", "000000\n000001\n")
    write(root / "ImageSets" / "val.txt", "000002\n000003\n")
    return root


def as_tracking(line: str, frame: int, track: int) -> str:
    tokens = line.split()
    tokens[1] = str(round(float(tokens[1])))
    return " ".join([str(frame), str(track), *tokens]) + "\n"


def kitti_tracking(root: Path) -> Path:
    """Sequence 0000 with three images and labels for five frames, 0006 whole, 0013 with labels only."""
    labels = {
        "0000": "".join(
            [
                as_tracking(CAR, 0, 1),
                as_tracking(DONT_CARE, 0, -1),
                as_tracking(PEDESTRIAN.replace("Pedestrian", "Person"), 2, 2),
                as_tracking(CAR, 2, 1),
                as_tracking(CAR, 4, 1),
            ]
        ),
        "0006": as_tracking(VAN, 1, 5),
        "0013": as_tracking(CAR, 0, 0),
    }
    for sequence, text in labels.items():
        write(root / "training" / "label_02" / f"{sequence}.txt", text)
        write(root / "training" / "calib" / f"{sequence}.txt", CALIBRATION)
    for sequence, count in (("0000", 3), ("0006", 2)):
        for frame in range(count):
            write_image(root / "training" / "image_02" / sequence / f"{frame:06d}.png", seed=frame)
    return root


def road_truth() -> np.ndarray:
    """(H, W, 3) BGR: upper half valid and no road, lower half road, the last row not judged."""
    truth = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    truth[..., 2] = 255
    truth[HEIGHT // 2 :, :, 0] = 255
    truth[-1] = 0
    return truth


def kitti_road(root: Path) -> Path:
    for i, name in enumerate(("um_000000", "um_000001", "umm_000000", "uu_000000")):
        category, number = name.split("_")
        write_image(root / "training" / "image_2" / f"{name}.png", seed=i)
        truth = png(road_truth())
        write(root / "training" / "gt_image_2" / f"{category}_road_{number}.png", truth)
        write(root / "training" / "calib" / f"{name}.txt", CALIBRATION)
    write(root / "training" / "gt_image_2" / "um_lane_000000.png", truth)  # the benchmark's other task
    return root


def coco(root: Path) -> Path:
    """COCO's JSON, two recordings of one image each."""
    rows = []
    for i in range(2):
        write_image(root / f"images/{i}.png", seed=i)
        rows.append({"id": i + 1, "image_id": i + 1, "category_id": 1 + i, "bbox": [2, 3, 20, 15]})
    images = [
        {"id": i + 1, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT, "drive": f"d{i}"} for i in range(2)
    ]
    categories = [{"id": 1, "name": "car"}, {"id": 2, "name": "pedestrian"}, {"id": 3, "name": "cyclist"}]
    content = {"images": images, "annotations": rows, "categories": categories}
    write(root / "annotations/instances.json", json.dumps(content))
    return root


def yolo(root: Path) -> Path:
    """YOLO's layout, one image for each split."""
    for i, split in enumerate(("train", "val")):
        write_image(root / f"images/{split}/{i}.png", seed=i)
        write(root / f"labels/{split}/{i}.txt", f"{i} 0.5 0.5 0.5 0.5\n")
    write(root / "data.yaml", "train: images/train\nval: images/val\nnames: [Car, Pedestrian, Cyclist]\n")
    return root


def index_masks(root: Path, classes: list[int], names: dict[str, list[str]]) -> Path:
    """`names` per split; each mask holds one column block a class."""
    mask = np.repeat(np.array(classes, np.uint8), -(-WIDTH // len(classes)))[:WIDTH]
    for split, images in names.items():
        for i, name in enumerate(images):
            write_image(root / split / f"{name}.jpg", seed=i)
            write_mask(root / f"{split}annot" / f"{name}.png", np.tile(mask, (HEIGHT, 1)))
    return root


def camvid(root: Path) -> Path:
    return index_masks(root, list(range(12)), {"train": ["0001TP_1", "0006R0_2"], "val": ["0016E5_3"]})


def idd_lite(root: Path) -> Path:
    return index_masks(root, [0, 1, 2, 3, 4, 5, 6, 255], {"train": ["10_1", "11_2"], "val": ["12_1"]})


def partial_boxes(root: Path, rows: dict[str, list[str]]) -> Path:
    """Rows as `name: ['Class left top right bottom']`."""
    for i, (name, lines) in enumerate(rows.items()):
        write_image(root / "image_2" / f"{name}.jpg", seed=i)
        text = ""
        for line in lines:
            label, *box = line.split()
            text += f"{label} 0 0 -10 {' '.join(box)} -1 -1 -1 -1000 -1000 -1000 -10\n"
        write(root / "label_2" / f"{name}.txt", text)
    return root


def clips(root: Path) -> Path:
    """A small clip under a name that has labels, just long enough for them."""
    path = root / "udacity_test_small1.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 36, "yuv420p"
        for i in range(85):
            frame = av.VideoFrame.from_ndarray(np.full((36, 64, 3), 2 * i, np.uint8), format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return root


def taught(data_root: Path, name: str, stems: list[str]) -> None:
    """Teachers' rows of a set: a car that is sure and a pedestrian that is not."""
    folder = data_root / "teacher_labels" / name
    folder.mkdir(parents=True)
    unknown = "-1 -1 -1 -1000 -1000 -1000 -10"
    for stem in stems:
        rows = f"Car 0 -1 -10 2 2 22 20 {unknown} 0.6\nPedestrian 0 -1 -10 30 2 36 20 {unknown} 0.3\n"
        (folder / f"{stem}.txt").write_text(rows)


def cityscapes(root: Path) -> None:
    for i, name in enumerate(("berlin_1", "munich_2")):
        write_image(root / "image_2" / f"{name}.jpg", seed=i)
    taught(root.parents[1], "cityscapes", ["berlin_1", "munich_2"])


def nuscenes_front(root: Path) -> None:
    for i, name in enumerate(("a_1", "a_2")):
        write_image(root / "image" / f"{name}.jpg", seed=i)
    taught(root.parents[1], "nuscenes_front", ["a_1", "a_2"])


def camvid_test(root: Path) -> None:
    index_masks(root, list(range(12)), {"test": ["0001TP_7", "0001TP_8"]})
    taught(root.parent, "camvid_test", ["0001TP_7", "0001TP_8"])


def clip_frames(root: Path) -> None:
    clips(root)
    taught(root.parent, "videos", ["udacity_test_small1_00002", "udacity_test_small1_00004"])


MAKERS: dict[str, Callable[[Path], object]] = {
    "kitti/object": kitti_object,
    "kitti/tracking": kitti_tracking,
    "kitti/tracking_640x192": kitti_tracking,
    "kitti/road": kitti_road,
    "coco": coco,
    "yolo": yolo,
    "camvid": camvid,
    "idd_lite": idd_lite,
    "dawn_fog": lambda root: partial_boxes(root, {"a-1": ["Car 1 2 30 20", "Bus 40 2 60 20"], "a-2": []}),
    "citypersons_sample": lambda root: partial_boxes(root, {"ulm_1_2": ["Pedestrian 1 2 11 32"], "ulm_2_2": []}),
    "carla_danielhfnr": lambda root: partial_boxes(root, {"Town01_1": ["vehicle 1 2 30 20"], "Town02_1": []}),
    "videos": clips,
    "cityscapes": cityscapes,
    "nuscenes_front": nuscenes_front,
    "camvid_test": camvid_test,
    "clip_frames": clip_frames,
}
"""Name of a data set → what writes a small one into its folder. The contract tests ask for one of each."""
