"""Label formats: hand cases of pixel conventions, exact round trips, and everything that can be wrong."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from datasets.formats import find_format, formats, read, write
from datasets.formats.annotations import (
    AnnotatedImage,
    AnnotationSet,
    Box,
    Problems,
    RoadPart,
    as_mask_file,
    road_mask,
)
from perception.errors import UserError
from perception.files import inside

SIZE_HW = (60, 100)
PAINTED = "road as polygons or run-length masks (a PNG is written)"


def picture(path: Path, size_hw: tuple[int, int] = SIZE_HW, exif: int = 1) -> Path:
    """An image of noise; with an EXIF orientation where it is not 1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(len(path.name)).integers(0, 255, (*size_hw, 3), np.uint8)
    data = cv2.imencode(path.suffix, image)[1].tobytes()
    if exif != 1:
        body = b"Exif\0\0" + b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, exif, 0, 0)
        data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    path.write_bytes(data)
    return path


def text(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def boxes(found: AnnotationSet, name: str = "") -> list[tuple[str, tuple[float, ...]]]:
    return [(box.label, box.xyxy) for image in found.images for box in image.boxes if name in image.name]


# ---------------------------------------------------------------- the same box in every format


def coco(root: Path, **changes: Any) -> Path:
    picture(root / "images/a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 60}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 6, "bbox": [10, 20, 30, 10.5]}],
        "categories": [{"id": 6, "name": "bus"}],
    }
    text(root / "annotations/instances_train.json", {**content, **changes})
    return root


def yolo(root: Path, rows: str = "0 0.25 0.4208333333333333 0.3 0.175\n") -> Path:
    picture(root / "images/train/a.png")
    text(root / "labels/train/a.txt", rows)
    text(root / "data.yaml", "path: .\ntrain: images/train\nval: images/train\nnames:\n  0: bus\n")
    return root


def kitti(root: Path) -> Path:
    picture(root / "training/image_2/a.png")
    text(root / "training/label_2/a.txt", "bus 0 0 -10 10 20 40 30.5 -1 -1 -1 -1000 -1000 -1000 -10\n")
    return root


def voc(root: Path, body: str = "", box: str = "11 21 40 30.5") -> Path:
    picture(root / "JPEGImages/a.png")
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box.split(), strict=True))
    text(
        root / "Annotations/a.xml",
        "<annotation><filename>a.png</filename><size><width>100</width><height>60</height></size>"
        f"<object><name>bus</name>{body}<bndbox>{corners}</bndbox></object></annotation>",
    )
    return root


def bdd100k(root: Path) -> Path:
    picture(root / "images/100k/train/a.png")
    box = {"x1": 10, "y1": 20, "x2": 39, "y2": 29.5}
    area = {"vertices": [[0, 40], [99, 40], [99, 59], [0, 59]], "types": "LLLL", "closed": True}
    labels = [
        {"id": "0", "category": "bus", "box2d": box, "attributes": {"occluded": True, "truncated": False}},
        {"id": "1", "category": "area/drivable", "poly2d": [area]},
        {"id": "2", "category": "lane/single white", "poly2d": [area]},
    ]
    text(root / "labels/bdd100k_labels_images_train.json", [{"name": "a.png", "labels": labels}])
    return root


def nuimages(root: Path) -> Path:
    picture(root / "samples/CAM_FRONT/a.png")
    tables: dict[str, Any] = {
        "category": [{"token": "c", "name": "vehicle.bus.rigid"}, {"token": "f", "name": "flat.driveable_surface"}],
        "attribute": [{"token": "m", "name": "vehicle.moving"}],
        "sample_data": [
            {"token": "d", "filename": "samples/CAM_FRONT/a.png", "width": 100, "height": 60, "is_key_frame": True},
            {"token": "e", "filename": "sweeps/b.png", "width": 100, "height": 60, "is_key_frame": False},
        ],
        "object_ann": [
            {
                "sample_data_token": "d",
                "category_token": "c",
                "bbox": [10, 20, 40, 30.5],
                "attribute_tokens": ["m"],
                "mask": {"size": [60, 100], "counts": "x"},
            }
        ],
    }
    for name, rows in tables.items():
        text(root / f"v1.0-mini/{name}.json", rows)
    return root


def cityscapes(root: Path) -> Path:
    picture(root / "leftImg8bit/train/ulm/ulm_0_0_leftImg8bit.png")
    objects = [
        {"label": "road", "polygon": [[0, 30], [99, 30], [99, 59], [0, 59]]},
        {"label": "bus", "polygon": [[10, 20], [39, 20], [39, 29.5], [10, 29.5]]},
        {"label": "cargroup", "polygon": [[50, 40], [59, 40], [59, 49], [50, 49]]},
        {"label": "ego vehicle", "polygon": [[0, 55], [99, 55], [99, 59], [0, 59]]},
    ]
    content = {"imgHeight": 60, "imgWidth": 100, "objects": objects}
    text(root / "gtFine/train/ulm/ulm_0_0_gtFine_polygons.json", content)
    return root


def citypersons(root: Path) -> Path:
    picture(root / "leftImg8bit/val/ulm/ulm_0_0_leftImg8bit.png")
    objects = [
        {"label": "rider", "bbox": [10, 20, 30, 10.5], "bboxVis": [10, 20, 15, 10.5]},
        {"label": "person group", "bbox": [50, 20, 10, 10], "bboxVis": [50, 20, 10, 10]},
    ]
    content = {"imgHeight": 60, "imgWidth": 100, "objects": objects}
    text(root / "gtBboxCityPersons/val/ulm/ulm_0_0_gtBboxCityPersons.json", content)
    return root


def cvat(root: Path) -> Path:
    picture(root / "images/a.png")
    text(
        root / "annotations.xml",
        "<?xml version='1.0'?><annotations><version>1.1</version><meta><task><labels><label><name>bus</name></label>"
        "</labels></task></meta><image id='0' name='a.png' width='100' height='60'>"
        "<box label='bus' occluded='1' xtl='10' ytl='20' xbr='40' ybr='30.5'>"
        "<attribute name='line'>7</attribute></box></image></annotations>",
    )
    return root


def label_studio(root: Path, **changes: Any) -> Path:
    picture(root / "images/a.png")
    value = {"x": 10, "y": 100 / 3, "width": 30, "height": 17.5, "rotation": 0, "rectanglelabels": ["bus"]}
    one = {"type": "rectanglelabels", "original_width": 100, "original_height": 60, "value": {**value, **changes}}
    task = {"id": 1, "data": {"image": "/data/upload/1/0123abcd-a.png"}, "annotations": [{"result": [one]}]}
    text(root / "export.json", [task])
    return root


def mot(root: Path) -> Path:
    for i in (1, 2):
        picture(root / f"MOT-01/img1/{i:06d}.png")
    text(root / "MOT-01/gt/gt.txt", "1,7,11,21,30,10.5,1,3,0.6\n2,7,11,21,30,10.5,0,3,1\n")
    text(root / "MOT-01/seqinfo.ini", "[Sequence]\nimDir=img1\nimWidth=100\nimHeight=60\n")
    return root


MAKERS: dict[str, Callable[[Path], Path]] = {
    "bdd100k": bdd100k,
    "citypersons": citypersons,
    "cityscapes": cityscapes,
    "coco": coco,
    "cvat": cvat,
    "kitti": kitti,
    "label_studio": label_studio,
    "mot": mot,
    "nuimages": nuimages,
    "voc": voc,
    "yolo": yolo,
}


@pytest.mark.parametrize("form", formats(), ids=lambda form: form.name)
def test_the_same_box_in_every_format(form: Any, tmp_path: Path) -> None:
    """30 x 10.5 pixels from (10, 20), whatever the format counts from and whichever corner it names."""
    root = MAKERS[form.name](tmp_path)
    assert find_format(root) is form
    problems = Problems()
    found = read(root, problems)
    box = found.images[0].boxes[0]
    assert box.xyxy == pytest.approx((10, 20, 40, 30.5), abs=1e-9)
    assert box.label in found.labels and found.images[0].size_hw == SIZE_HW
    expected = {
        "bdd100k": {"label without a box (lanes, poses): not read": 1},
        "citypersons": {"crowd or ignore region: neither trained nor judged": 1},
        "cityscapes": {"crowd or ignore region: neither trained nor judged": 1},
        "mot": {"crowd or ignore region: neither trained nor judged": 1},
        "nuimages": {"run-length mask that is broken or of another size: left out, its box kept": 1},
    }
    assert dict(problems.counts) == expected.get(form.name, {})


def test_what_else_the_formats_say(tmp_path: Path) -> None:
    def first(name: str) -> tuple[AnnotatedImage, Box]:
        image = read(MAKERS[name](tmp_path / name), Problems()).images[0]
        return image, image.boxes[0]

    assert first("mot")[1] == Box("car", (10, 20, 40, 30.5), track_id=7, occlusion=1)
    assert first("mot")[0].drive == "MOT-01"
    assert first("cvat")[1].attributes == (("line", "7"),) and first("cvat")[1].occlusion == 1
    assert first("citypersons")[1].occlusion == 2 and first("citypersons")[0].split == "val"
    assert first("nuimages")[1].attributes == (("vehicle", "moving"),)
    assert first("coco")[0].split == "train" and first("yolo")[0].name == "a"
    image, _ = first("bdd100k")
    road = road_mask(image.road, SIZE_HW)
    assert road is not None and road[45:58, :97].all() and not road[:38].any() and image.split == "train"
    image, box = first("cityscapes")
    road = road_mask(image.road, SIZE_HW)
    assert road is not None and image.drive == "ulm" and len(box.polygons) == 1
    assert (road[50, 50], road[45, 55], road[57, 50], road[25, 20], road[32, 50]) == (1, 0, 255, 0, 1)


def test_turned_rectangles_of_label_studio(tmp_path: Path) -> None:
    """A quarter turn clockwise around the upper left corner: 30 x 10.5 becomes 10.5 x 30, left of the corner."""
    problems = Problems()
    found = read(label_studio(tmp_path, x=50, y=0, rotation=90), problems)
    assert boxes(found)[0][1] == pytest.approx((39.5, 0, 50, 30))
    assert problems.counts == {"rotated box: the box around it is read": 1}


# ---------------------------------------------------------------- round trips


def everything(root: Path, fractions: bool = True) -> AnnotationSet:
    """A set that uses every field."""
    rng = np.random.default_rng(5)
    images = []
    for i in range(6):
        path = picture(root / f"seq{i % 2}/{i:03d}.{'png' if i % 2 else 'jpg'}")
        found = []
        for k in range(3):
            left, top = (float(v) for v in np.round(rng.uniform(0, 40, 2), 3 if fractions else 0))
            width, height = (float(v) for v in np.round(rng.uniform(1, 19, 2), 3 if fractions else 0))
            outline = (left, top, round(left + width, 6), top, left, round(top + height, 6))
            found.append(
                Box(
                    ("bus", "traffic light", "car")[k],
                    (left, top, round(left + width, 6), round(top + height, 6)),
                    score=0.75 if k == 1 else None,
                    track_id=k if k else None,
                    ignore=k == 2 and i == 0,
                    truncation=0.25 if k == 0 else None,
                    occlusion=k,
                    polygons=(outline,) if k == 2 else (),
                    attributes=(("colour", "red"),) if k == 0 else (),
                    pose3d=(0.1, 1.5, 1.6, 3.9, 1.25, 1.6, 20.5, -1.5) if k == 0 else None,
                )
            )
        road = (RoadPart((0.0, 30.0, 100.0, 30.0, 100.0, 60.0, 0.0, 60.0)),) if i == 3 else None
        split = ("train", "train", "val")[i % 3]
        images.append(
            AnnotatedImage(f"seq{i % 2}/{i:03d}", path, SIZE_HW, tuple(found), f"drive-{i % 2}", split, road)
        )
    return AnnotationSet(root, ("bus", "traffic light", "car"), tuple(images))


def alike(a: AnnotationSet, b: AnnotationSet) -> None:
    """The same images, by name, with the same pixels, boxes to a billionth of a pixel, and road."""
    assert a.labels == b.labels
    ours, theirs = ({image.name: image for image in found.images} for found in (a, b))
    assert set(ours) == set(theirs)
    for name, image in ours.items():
        other = theirs[name]
        assert image.path.read_bytes() == other.path.read_bytes()
        assert (image.size_hw, image.drive, image.split) == (other.size_hw, other.drive, other.split)
        assert len(image.boxes) == len(other.boxes)
        for x, y in zip(image.boxes, other.boxes, strict=True):
            assert x.xyxy == pytest.approx(y.xyxy, abs=1e-9)
            assert replace(x, xyxy=y.xyxy) == y
        roads = [road_mask(one.road, one.size_hw) for one in (image, other)]
        assert (roads[0] is None) == (roads[1] is None)
        if roads[0] is not None:
            np.testing.assert_array_equal(*roads)


WRITTEN = [form.name for form in formats() if form.write]


@pytest.mark.parametrize("name", WRITTEN)
def test_round_trips_are_exact(name: str, tmp_path: Path) -> None:
    """What the format carries comes back; a second trip changes no byte of the labels."""
    missing = write(everything(tmp_path / "set"), tmp_path / "once", name)
    problems = Problems()
    once = read(tmp_path / "once", problems, name)
    write(once, tmp_path / "twice", name)
    twice = read(tmp_path / "twice", Problems(), name)
    alike(once, twice)
    files = sorted(p.relative_to(tmp_path / "once") for p in (tmp_path / "once").rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(tmp_path / "twice") for p in (tmp_path / "twice").rglob("*") if p.is_file())
    for file in files:
        assert (tmp_path / "once" / file).read_bytes() == (tmp_path / "twice" / file).read_bytes(), file
    first = {image.name.replace("/", "__"): image for image in everything(tmp_path / "set").images}
    for image in once.images:
        kept = name not in ("yolo", "label_studio")
        theirs = [box for box in first[image.name.replace("/", "__")].boxes if kept or not box.ignore]
        for ours, other in zip(image.boxes, theirs, strict=True):
            assert ours.xyxy == pytest.approx(other.xyxy, abs=1e-9)
    losses = {
        "coco": {"3-D poses": 6, PAINTED: 1},
        "kitti": {
            "scores": 6, "track ids": 12, "classes of ignore regions": 1, "outlines (polygons)": 6,
            "attributes": 6, PAINTED: 1, "labels with spaces (written with _)": 6,
        },
        "yolo": {
            "track ids": 12, "ignore regions": 1, "classes of ignore regions": 1, "truncation": 6, "occlusion": 18,
            "outlines (polygons)": 6, "attributes": 6, "3-D poses": 6, "recordings (drives)": 6,
            PAINTED: 1,
        },
        "cvat": {
            "track ids": 12, "truncation": 6, "occlusion": 18, "outlines (polygons)": 6, "3-D poses": 6,
            "recordings (drives)": 6, PAINTED: 1,
        },
        "voc": {
            "scores": 6, "track ids": 12, "truncation": 6, "occlusion": 18, "outlines (polygons)": 6,
            "attributes": 6, "3-D poses": 6, "recordings (drives)": 6, PAINTED: 1,
        },
        "label_studio": {
            "track ids": 12, "ignore regions": 1, "classes of ignore regions": 1, "truncation": 6, "occlusion": 18,
            "outlines (polygons)": 6, "attributes": 6, "3-D poses": 6, "recordings (drives)": 6,
            PAINTED: 1, "splits": 6,
        },
    }  # fmt: skip
    assert dict(missing) == losses[name]


def test_coco_carries_everything_else(tmp_path: Path) -> None:
    original = everything(tmp_path / "set")
    write(original, tmp_path / "out", "coco")
    found = read(tmp_path / "out", Problems())
    stripped = [
        replace(image, boxes=tuple(replace(box, pose3d=None) for box in image.boxes)) for image in original.images
    ]
    alike(replace(original, images=tuple(stripped)), found)


@pytest.mark.parametrize("through", [name for name in WRITTEN if name != "label_studio"])
def test_boxes_survive_a_trip_through_another_format(through: str, tmp_path: Path) -> None:
    """COCO of whole pixels → another format → COCO: the same numbers, character for character."""
    original = everything(tmp_path / "set", fractions=False)
    plain = [
        replace(
            image,
            name=image.name.replace("/", "__"),
            boxes=tuple(Box(box.label.split()[0], box.xyxy) for box in image.boxes),
        )
        for image in original.images
    ]
    original = replace(original, labels=("bus", "traffic", "car"), images=tuple(plain))
    write(original, tmp_path / "a", "coco")
    write(read(tmp_path / "a", Problems()), tmp_path / "b", through)
    write(read(tmp_path / "b", Problems()), tmp_path / "c", "coco")
    for split in ("train", "val"):
        rows = []
        for folder in ("a", "c"):
            content = json.loads((tmp_path / folder / f"annotations/instances_{split}.json").read_text())
            names = {one["id"]: one["name"] for one in content["categories"]}
            files = {one["id"]: one["file_name"] for one in content["images"]}
            rows.append(
                sorted(
                    (files[r["image_id"]], names[r["category_id"]], str(r["bbox"])) for r in content["annotations"]
                )
            )
        assert rows[0] == rows[1]


def test_pycocotools_reads_what_is_written(tmp_path: Path) -> None:
    coco_tools = pytest.importorskip("pycocotools.coco")
    write(everything(tmp_path / "set"), tmp_path / "out", "coco")
    labels = coco_tools.COCO(str(tmp_path / "out/annotations/instances_train.json"))
    assert len(labels.getImgIds()) == 4 and len(labels.getAnnIds()) == 12
    assert [one["name"] for one in labels.loadCats(labels.getCatIds())] == ["bus", "traffic light", "car"]
    assert len(labels.getAnnIds(iscrowd=True)) == 1
    outlined = next(row for row in labels.loadAnns(labels.getAnnIds()) if row["segmentation"] and not row["iscrowd"])
    assert labels.annToMask(outlined).any()


def test_category_numbers_of_coco_are_kept(tmp_path: Path) -> None:
    write(read(coco(tmp_path / "a"), Problems()), tmp_path / "b", "coco")
    content = json.loads((tmp_path / "b/annotations/instances_train.json").read_text())
    assert content["categories"] == [{"id": 6, "name": "bus"}]
    assert content["annotations"][0]["bbox"] == [10, 20, 30, 10.5]


@pytest.mark.parametrize("name", WRITTEN)
def test_ignore_regions_of_no_class(name: str, tmp_path: Path) -> None:
    """KITTI's DontCare and CityPersons' groups become crowds of a category of their own, which is no class."""
    root = kitti(tmp_path / "set")
    path = root / "training/label_2/a.txt"
    path.write_text(path.read_text() + "DontCare -1 -1 -10 50 20 60 30 -1 -1 -1 -1000 -1000 -1000 -10\n")
    for source in (root, citypersons(tmp_path / "people")):
        found = read(source, Problems())
        write(found, tmp_path / name / source.name, name)
        again = read(tmp_path / name / source.name, Problems())
        assert "DontCare" not in again.labels
        ignored = [(box.label, box.ignore) for image in again.images for box in image.boxes][1:]
        assert ignored == ([] if name in ("yolo", "label_studio") else [("DontCare", True)])


def test_hard_links_take_no_space(tmp_path: Path) -> None:
    found = read(coco(tmp_path / "a"), Problems())
    write(found, tmp_path / "b", "yolo", "link")
    assert (tmp_path / "b/images/train/a.png").samefile(tmp_path / "a/images/a.png")
    with pytest.raises(UserError, match="holds files"):
        write(found, tmp_path / "b", "yolo")
    with pytest.raises(UserError, match="only read"):
        write(found, tmp_path / "c", "mot")


def test_road_masks(tmp_path: Path) -> None:
    road = np.zeros(SIZE_HW, np.uint8)
    road[30:], road[50:] = 1, 255
    path = tmp_path / "road.png"
    path.write_bytes(as_mask_file(road))
    np.testing.assert_array_equal(road_mask(path, SIZE_HW), road)
    with pytest.raises(UserError, match="100x60"):
        road_mask(path, (60, 99))


# ---------------------------------------------------------------- bad input


def problems_of(root: Path, count: int | None = None) -> dict[str, int]:
    problems = Problems()
    found = read(root, problems)
    if count is not None:
        assert sum(len(image.boxes) for image in found.images) == count
    assert all(problems.places[kind] for kind in problems.counts), "each has a place"
    return dict(problems.counts)


def row(**changes: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": 1, "category_id": 6, "bbox": [10, 20, 30, 10], **changes}


@pytest.mark.parametrize(
    ("annotations", "kept", "kinds"),
    [
        ([row(category_id=99)], 1, {"category id without a name: kept as class_ID": 1,
                                    "class that is not in the set's list of classes: added": 1}),
        ([row(), row()], 1, {"box listed twice: the first counts": 1}),
        ([row(bbox=[200, 0, 10, 10])], 0, {"box outside its image: left out": 1}),
        ([row(bbox=[-5, 0, 20, 10])], 1, {"box reaches out of its image: kept; training clips it": 1}),
        ([row(bbox=[1, 1, 0, 10])], 0, {"box without area: left out": 1}),
        ([row(bbox=[1, 1, float("nan"), 10])], 0,
         {"box with a corner that is no finite number: left out": 1}),
        ([row(bbox=["x"])], 0, {"annotation without a box: left out": 1}),
        ([row(iscrowd=1, segmentation={"counts": [1], "size": [60, 100]})], 1,
         {"crowd or ignore region: neither trained nor judged": 1,
          "run-length mask that is broken or of another size: left out, its box kept": 1}),
        ([row(segmentation=[[1, 1, 5, 5]])], 1, {"outline of fewer than three points: left out, its box kept": 1}),
        ([row(image_id=7)], 0, {"annotation of an image that is not listed: left out": 1}),
    ],
)  # fmt: skip
def test_bad_annotations_are_counted(
    tmp_path: Path, annotations: list[Any], kept: int, kinds: dict[str, int]
) -> None:
    assert problems_of(coco(tmp_path, annotations=annotations), kept) == kinds


def entry(**changes: Any) -> dict[str, Any]:
    return {"id": 1, "file_name": "a.png", "width": 100, "height": 60, **changes}


@pytest.mark.parametrize(
    ("entries", "kept", "kinds"),
    [
        ([entry(file_name="gone.png")], 0, {"missing image: left out": 1}),
        ([entry(width=200)], 0, {"image of another size than its labels: left out": 1}),
        ([entry(), entry(id=2)], 1, {"image listed twice: the first counts": 1}),
        ([entry(), entry(file_name="b.png")], 1, {"image id listed twice: the first counts": 1}),
        ([entry(file_name="../../etc/passwd")], 0, {"image outside the set's folder: left out": 1}),
        ([entry(file_name="/etc/passwd")], 0, {"image outside the set's folder: left out": 1}),
        ([entry(file_name=3)], 0, {"image without file_name: left out": 1}),
        ([entry(file_name="broken.png")], 0, {"unreadable image: left out": 1}),
        ([entry(file_name="huge.png")], 0, {"image of more than 100 megapixels: left out": 1}),
    ],
)  # fmt: skip
def test_bad_images_are_counted(tmp_path: Path, entries: list[Any], kept: int, kinds: dict[str, int]) -> None:
    root = coco(tmp_path, images=entries)
    text(root / "images/broken.png", "no image")
    data = bytearray((root / "images/a.png").read_bytes())
    data[16:24] = struct.pack(">II", 50_000, 50_000)
    (root / "images/huge.png").write_bytes(data)
    assert problems_of(root, kept) == kinds


def test_a_number_with_two_names(tmp_path: Path) -> None:
    twice = [{"id": 6, "name": "bus"}, {"id": 6, "name": "coach"}]
    found = read(root := coco(tmp_path, categories=twice), Problems())
    assert found.labels == ("bus",)
    assert problems_of(root, 1) == {"category id with a second name: the first counts": 1}


@pytest.mark.parametrize(
    ("form", "lone", "kind"),
    [
        (yolo, "labels/train/b.txt", "label file without an image: left out"),
        (kitti, "training/label_2/b.txt", "label file without an image: left out"),
        (voc, "JPEGImages/b.png", "image without a label file: left out"),
    ],
)
def test_labels_without_images_and_images_without_labels(
    form: Callable[[Path], Path], lone: str, kind: str, tmp_path: Path
) -> None:
    root = form(tmp_path)
    text(root / lone, "") if lone.endswith("txt") else picture(root / lone)
    assert problems_of(root, 1) == {kind: 1}


def test_voc_lists_its_classes(tmp_path: Path) -> None:
    """As CVAT's export does; datumaro refuses classes that are not listed."""
    root = voc(tmp_path / "in")
    text(root / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\ntram:::\nbus:1,2,3::\n")
    found = read(root, Problems())
    assert found.labels == ("tram", "bus")
    write(found, tmp_path / "out", "voc")
    lines = (tmp_path / "out/labelmap.txt").read_text().splitlines()
    assert lines[1:] == ["background:::", "tram:::", "bus:::"]


def test_rotated_images(tmp_path: Path) -> None:
    """Stored 60x100, upright 100x60: labels of the upright image are good, labels of the stored one are not."""
    root = coco(tmp_path / "upright", images=[entry(file_name="r.jpg")])
    picture(root / "images/r.jpg", (100, 60), exif=6)
    assert problems_of(root, 1) == {"image rotated by EXIF: labels belong to the upright image": 1}
    root = coco(tmp_path / "stored", images=[entry(file_name="r.jpg", width=60, height=100)])
    picture(root / "images/r.jpg", (100, 60), exif=6)
    kind = "labels of an image before its EXIF rotation: left out; rotate the file itself"
    assert problems_of(root, 0) == {kind: 1}


@pytest.mark.parametrize(
    ("rows", "kept", "kinds"),
    [
        ("0 25 25.25 30 10.5\n", 1, {"label file in pixels instead of shares: read as pixels": 1}),
        ("3 0.5 0.5 0.1 0.1\n", 1, {"class number without a name: kept as class_NUMBER": 1}),
        ("0 0.5 0.5\nbus 0.5 0.5 0.1 0.1\n0 nan 0 0 0\n", 0,
         {"row that is not `class x y width height`: left out": 3}),
        ("0 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1 0.1\n", 1, {"box listed twice: the first counts": 1}),
        ("0 1.4 0.5 0.1 0.1\n", 0, {"box outside its image: left out": 1}),
        ("0 0.5 0.5 0 0.1\n", 0, {"box without area: left out": 1}),
        ("", 0, {}),
    ],
)  # fmt: skip
def test_bad_yolo_rows_are_counted(tmp_path: Path, rows: str, kept: int, kinds: dict[str, int]) -> None:
    assert problems_of(yolo(tmp_path, rows), kept) == kinds


def test_yolo_in_pixels_polygons_and_scores(tmp_path: Path) -> None:
    found = read(yolo(tmp_path / "pixels", "0 25 25.25 30 10.5\n"), Problems())
    assert boxes(found) == [("bus", (10, 20, 40, 30.5))]
    rows = "0 0.1 0.5 0.4 0.5 0.4 1\n0 0.5 0.5 0.2 0.2 0.8\n"
    found = read(yolo(tmp_path / "more", rows), Problems())
    outline, scored = found.images[0].boxes
    assert outline.xyxy == pytest.approx((10, 30, 40, 60)) and len(outline.polygons[0]) == 6
    assert scored.score == 0.8 and scored.xyxy == pytest.approx((40, 24, 60, 36))


def test_yolo_yaml_of_another_machine_and_of_a_stranger(tmp_path: Path) -> None:
    root = yolo(tmp_path / "a")
    text(
        root / "data.yaml",
        "path: /home/somebody/set\ntrain: images/train\nval: [images/gone, ../../..]\nnames: [bus]\n",
    )
    picture(root / "images/train/no_label.png")
    assert problems_of(root, 1) == {
        "path: of the YAML is not below it: the YAML's own folder is used": 1,
        "folder of a split is missing": 1,
        "image outside the set's folder: left out": 1,
        "image without a label file: taken as without objects": 1,
    }
    text(root / "data.yaml", "train: list.txt\nval: images/train\nnames: [bus]\n")
    text(root / "list.txt", "./images/train/a.png\n../../../etc/passwd\nimages/train/none.png\n")
    counts = problems_of(root)
    assert counts["image outside the set's folder: left out"] == 1 and counts["missing image: left out"] == 1
    for bad in ("names: !!python/object/apply:os.system ['x']\ntrain: x", "names: 3\ntrain: x", "- a"):
        text(root / "data.yaml", bad)
        with pytest.raises(UserError):
            read(root, Problems(), "yolo")


def test_xml_of_a_stranger(tmp_path: Path) -> None:
    root = voc(tmp_path / "voc")
    bomb = '<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx">]><annotation><filename>&x;</filename></annotation>'
    text(root / "Annotations/b.xml", bomb)
    text(root / "Annotations/c.xml", "<annotation>")
    text(root / "Annotations/d.xml", "<annotation><filename>../../x.png</filename></annotation>")
    assert problems_of(root, 1) == {
        "label file that cannot be read: its image is left out": 2,
        "image outside the set's folder: left out": 1,
    }
    text(cvat(tmp_path / "cvat") / "annotations.xml", "<!DOCTYPE a><annotations></annotations>")
    with pytest.raises(UserError, match="document type"):
        read(tmp_path / "cvat", Problems())


def test_difficult_and_broken_objects_of_voc(tmp_path: Path) -> None:
    hard = "<difficult>1</difficult><truncated>1</truncated>"
    found = read(voc(tmp_path / "hard", hard), Problems())
    assert found.images[0].boxes == (Box("bus", (10, 20, 40, 30.5), ignore=True, attributes=(("truncated", "1"),)),)
    assert problems_of(voc(tmp_path / "bad", box="1 2 x 4"), 0) == {"object without a box: left out": 1}


def test_videos_of_cvat(tmp_path: Path) -> None:
    for i in range(2):
        picture(tmp_path / f"images/frame_{i:06d}.PNG".lower())
    shape = "<box frame='{}' outside='{}' occluded='0' xtl='10' ytl='20' xbr='40' ybr='30.5'/>"
    text(
        tmp_path / "annotations.xml",
        "<annotations><meta><task><labels><label><name>bus</name></label></labels><original_size><width>100</width>"
        "<height>60</height></original_size></task></meta><track id='4' label='bus'>"
        + shape.format(0, 0)
        + shape.format(1, 1)
        + shape.format(9, 0)
        + "</track></annotations>",
    )
    problems = Problems()
    found = read(tmp_path, problems)
    assert [len(image.boxes) for image in found.images] == [1, 0]
    assert found.images[0].boxes[0] == Box("bus", (10, 20, 40, 30.5), track_id=4, occlusion=0)
    assert problems.counts == {"frame of a video without an image: left out": 1}


@pytest.mark.parametrize(
    "content",
    ["{", "[" * 100_000, '{"images": 3, "annotations": [], "categories": []}',
     '{"images": [3], "annotations": [], "categories": []}'],
)  # fmt: skip
def test_json_that_is_none(tmp_path: Path, content: str) -> None:
    with pytest.raises(UserError):
        read(text(tmp_path / "x.json", content), Problems(), "coco")


@pytest.mark.parametrize("name", ["", "..", "a/../../b", "/a", "c:\\a", "a\0b", "\\\\server\\a", "x" * 300])
def test_names_that_leave_the_folder(tmp_path: Path, name: str) -> None:
    assert inside(tmp_path, name) is None
    assert inside(tmp_path, "a/b c.png") == tmp_path / "a/b c.png"


def test_a_folder_of_no_known_format(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no labels of a known format(.|\n)*YOLO"):
        read(tmp_path, Problems())
    coco(tmp_path)
    voc(tmp_path)
    with pytest.raises(UserError, match="several formats: coco, voc"):
        read(tmp_path, Problems())
    assert len(read(tmp_path, Problems(), "voc").images) == 1
    with pytest.raises(UserError, match="unknown format 'pascal'"):
        read(tmp_path, Problems(), "pascal")


JUNK: tuple[Any, ...] = (
    None,
    -1,
    1e400,
    float("nan"),
    "",
    "x",
    "../x",
    "\0",
    [],
    {},
    [[]],
    [None],
    {"x": 1},
    True,
    10**30,
)


def damaged(value: Any, rng: np.random.Generator) -> Any:
    """The value with one part of it replaced by junk or taken away."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = list(value)[int(rng.integers(len(value)))]
        if rng.random() < 0.15:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: damaged(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        i = int(rng.integers(len(value)))
        return [*value[:i], damaged(value[i], rng), *value[i + 1 :]]
    return JUNK[int(rng.integers(len(JUNK)))]


@pytest.mark.parametrize("form", formats(), ids=lambda form: form.name)
def test_damaged_labels_are_read_or_refused_in_a_sentence(form: Any, tmp_path: Path) -> None:
    """Two hundred damaged copies of each format's label files: never a traceback."""
    root = MAKERS[form.name](tmp_path / "set")
    files = [p for p in sorted(root.rglob("*")) if p.suffix in (".json", ".xml", ".txt", ".yaml", ".ini")]
    rng = np.random.default_rng(0)
    for k in range(200):
        file = files[k % len(files)]
        whole = file.read_text()
        if file.suffix == ".json":
            file.write_text(json.dumps(damaged(json.loads(whole), rng)))
        else:
            words = whole.replace(">", "> ").replace("'", " ' ").replace(",", " , ").split(" ")
            words[int(rng.integers(len(words)))] = str(JUNK[int(rng.integers(len(JUNK)))])
            file.write_text(" ".join(words).replace(" ' ", "'").replace(" , ", ",").replace("> ", ">"))
        try:
            found = read(root, Problems(), form.name)
            write(found, tmp_path / f"out{k}", WRITTEN[k % len(WRITTEN)])
        except UserError:
            pass
        file.write_text(whole)
