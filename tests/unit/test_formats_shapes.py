"""Outlines and run-length masks of all formats: hand cases, equality with pycocotools, and what is broken."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.formats import read, write
from datasets.formats.annotations import AnnotationSet, Box, Problems, RoadPart, envelope, road_mask
from datasets.formats.masks import BROKEN, Mask, as_coco, from_pixels, of_brush, of_coco, of_cvat, of_nuimages
from tests.unit.test_formats import cityscapes, coco, cvat, nuimages, picture, row, text, yolo

NAN, INFINITE = float("nan"), float("inf")
SQUARE = [10, 20, 40, 20, 40, 50, 10, 50]
NO_NUMBER = "outline with a corner that is no finite number: left out, its box kept"
NO_ROAD = "road outline with a corner that is no finite number: the image is taken as without road labels"


def counts_of(root: Path, name: str = "") -> tuple[AnnotationSet, dict[str, int]]:
    problems = Problems()
    return read(root, problems, name), dict(problems.counts)


def pairs(flat: list[Any]) -> list[list[Any]]:
    return [list(pair) for pair in zip(flat[0::2], flat[1::2], strict=True)]


# ---------------------------------------------------------------- outlines


def coco_shape(root: Path, flat: list[Any], label: str) -> Path:
    categories = [{"id": 6, "name": label}]
    return coco(root, annotations=[row(bbox=None, segmentation=[flat])], categories=categories)


def cvat_shape(root: Path, flat: list[Any], label: str) -> Path:
    cvat(root)
    points = ";".join(f"{x},{y}" for x, y in pairs(flat))
    shape = f'<polygon label="{label}" points="{points}"/>'
    names = f"<meta><task><labels><label><name>{label}</name></label></labels></task></meta>"
    image = f'<image name="a.png" width="100" height="60">{shape}</image>'
    text(root / "annotations.xml", f"<annotations>{names}{image}</annotations>")
    return root


def label_studio_shape(root: Path, flat: list[Any], label: str) -> Path:
    picture(root / "images/a.png")
    points = [[x * 100 / 100 if isinstance(x, (int, float)) else x, y / 60 * 100] for x, y in pairs(flat)]
    value = {"points": points, "polygonlabels": [label]}
    one = {"type": "polygonlabels", "original_width": 100, "original_height": 60, "value": value}
    text(root / "x.json", [{"id": 1, "data": {"image": "a.png"}, "annotations": [{"result": [one]}]}])
    return root


def cityscapes_shape(root: Path, flat: list[Any], label: str) -> Path:
    cityscapes(root)
    content = {"imgHeight": 60, "imgWidth": 100, "objects": [{"label": label, "polygon": pairs(flat)}]}
    text(root / "gtFine/train/ulm/ulm_0_0_gtFine_polygons.json", content)
    return root


def bdd100k_shape(root: Path, flat: list[Any], label: str) -> Path:
    picture(root / "images/100k/train/a.png")
    area = {"vertices": pairs(flat), "types": "L" * (len(flat) // 2), "closed": True}
    labels = [{"id": "1", "category": "area/drivable", "poly2d": [area]}]
    text(root / "labels/bdd100k_labels_images_train.json", [{"name": "a.png", "labels": labels}])
    return root


SHAPES: dict[str, Callable[[Path, list[Any], str], Path]] = {
    "coco": coco_shape,
    "cvat": cvat_shape,
    "label_studio": label_studio_shape,
    "cityscapes": cityscapes_shape,
    "bdd100k": bdd100k_shape,
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("bad", [NAN, INFINITE, "x"], ids=["nan", "infinite", "text"])
def test_a_road_with_a_corner_that_is_no_number_is_no_road_label(name: str, bad: Any, tmp_path: Path) -> None:
    """Painting the rest would teach that the missing part is no road."""
    found, counts = counts_of(SHAPES[name](tmp_path, [bad, *SQUARE[1:]], "road"), name)
    assert found.images[0].road is None and counts == {NO_ROAD: 1}


@pytest.mark.parametrize("name", SHAPES)
def test_a_road_of_two_points_is_nothing_and_is_counted(name: str, tmp_path: Path) -> None:
    found, counts = counts_of(SHAPES[name](tmp_path, SQUARE[:4], "road"), name)
    assert sum(counts.values()) == 1 and "fewer than three points" in next(iter(counts))
    road = road_mask(found.images[0].road, (60, 100))
    assert road is None or not road.any()  # Label Studio has no list that says whether road is labelled


@pytest.mark.parametrize("name", ["coco", "cvat", "label_studio", "cityscapes"])
def test_an_object_whose_only_outline_is_broken_is_left_out(name: str, tmp_path: Path) -> None:
    found, counts = counts_of(SHAPES[name](tmp_path, [NAN, *SQUARE[1:]], "bus"), name)
    boxes = [box for image in found.images for box in image.boxes]
    assert not boxes and "box with a corner that is no finite number: left out" in counts


@pytest.mark.parametrize("name", ["coco", "cvat", "label_studio", "cityscapes"])
def test_a_whole_outline_gives_its_box(name: str, tmp_path: Path) -> None:
    found, _ = counts_of(SHAPES[name](tmp_path, SQUARE, "bus"), name)
    edge = 1 if name == "cityscapes" else 0  # its corners are pixels of the object
    assert found.images[0].boxes[0].xyxy == pytest.approx((10, 20, 40 + edge, 50 + edge))
    assert len(found.images[0].boxes[0].polygons) == 1


def test_a_broken_outline_beside_a_box_leaves_the_box(tmp_path: Path) -> None:
    shapes = [SQUARE, [NAN, *SQUARE[1:]], SQUARE[:4], ["x", 1]]
    found, counts = counts_of(coco(tmp_path, annotations=[row(segmentation=shapes)]))
    assert found.images[0].boxes[0].polygons == (tuple(map(float, SQUARE)),)
    assert counts == {NO_NUMBER: 2, "outline of fewer than three points: left out, its box kept": 1}


def test_yolo_rows_of_broken_polygons(tmp_path: Path) -> None:
    _, counts = counts_of(yolo(tmp_path, "0 0.1 0.5 0.4 nan 0.4 1\n0 0.1 0.5 0.4 inf 0.4 1\n"))
    assert counts == {"row that is not `class x y width height`: left out": 2}


def test_the_envelope_counts_whole_outlines_only() -> None:
    assert envelope([(0, 0, 4, 0, 4, 2), (NAN, 9, 9, 9, 9, 9), (50, 50, 60, 60)]) == (0, 0, 4, 2)
    assert all(value != value for value in envelope([(NAN, 0, 1, 1, 2, 2)]))


def test_a_polygon_of_nan_is_never_painted() -> None:
    with pytest.raises(ValueError, match="no finite number"):
        road_mask((RoadPart((NAN, 0.0, 5.0, 0.0, 5.0, 5.0)),), (10, 10))


# ---------------------------------------------------------------- run-length masks

HAND = np.zeros((3, 4), bool)
HAND[2, 0] = HAND[0, 1] = True
"""Down the columns: two outside, two inside, eight outside."""


def test_coco_masks_by_hand() -> None:
    """Compressed: 2, 2, 8 are one group of five bits each, from 48: '2', '2', '8'."""
    for counts in ([2, 2, 8], "228"):
        mask = of_coco({"size": [3, 4], "counts": counts})
        np.testing.assert_array_equal(mask.pixels(), HAND)
        assert mask.box() == (0, 0, 2, 3) and mask.area == 2
    assert from_pixels(HAND) == mask and as_coco(mask) == {"size": [3, 4], "counts": "228"}
    assert from_pixels(np.ones((2, 2), bool)).counts == [0, 4]
    assert from_pixels(np.zeros((2, 2), bool)).box() is None


@pytest.mark.parametrize(
    "value",
    [
        None, {}, {"size": [3, 4]}, {"size": [3, 4], "counts": [2, 2, 9]}, {"size": [3, 4], "counts": [2, -2, 12]},
        {"size": [3, 4], "counts": [2.0, 2, 8]}, {"size": [3, 4], "counts": [True, 3, 8]},
        {"size": [4], "counts": [4]}, {"size": [0, 0], "counts": []}, {"size": [3, 4], "counts": "22"},
        {"size": [3, 4], "counts": "22 "}, {"size": [3, 4], "counts": "o" * 99}, {"size": [3, 4], "counts": "22ã"},
        {"size": [10**6, 10**6], "counts": [10**12]}, {"size": ["3", 4], "counts": [12]},
    ],
)  # fmt: skip
def test_broken_coco_masks(value: Any) -> None:
    assert of_coco(value) == BROKEN and BROKEN.box() is None


def test_masks_equal_pycocotools() -> None:
    coder = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for i in range(60):
        height, width = (int(side) for side in rng.integers(1, 90, 2))
        pixels = rng.random((height, width)) < (0.5, 0.02, 0.98, 0, 1)[i % 5]
        if i % 2:  # long runs, whose counts take several groups
            pixels = np.repeat(np.repeat(pixels, 11, axis=0), 7, axis=1)
        theirs = coder.encode(np.asfortranarray(pixels.astype(np.uint8)))
        ours = of_coco({"size": theirs["size"], "counts": theirs["counts"].decode()})
        np.testing.assert_array_equal(ours.pixels(), pixels)
        assert ours == from_pixels(pixels) and as_coco(ours)["counts"] == theirs["counts"].decode()
        assert ours.area == int(coder.area(theirs))
        plain = coder.frPyObjects({"size": theirs["size"], "counts": ours.counts}, *theirs["size"])
        np.testing.assert_array_equal(of_coco({"size": theirs["size"], "counts": ours.counts}).pixels(), pixels)
        assert plain["counts"] == theirs["counts"]
        if pixels.any():
            left, top, right, bottom = ours.box() or (0, 0, 0, 0)
            assert [left, top, right - left, bottom - top] == coder.toBbox(theirs).tolist()
        packed = {"size": theirs["size"], "counts": base64.b64encode(theirs["counts"]).decode()}
        assert of_nuimages(packed) == ours


def test_cvat_masks_by_hand() -> None:
    """A window of 3 x 2 at (1, 2): along its rows one outside, three inside, two outside."""
    mask = of_cvat("1, 3, 2", (1, 2, 3, 2), (5, 6))
    expected = np.zeros((5, 6), bool)
    expected[2, 2:4] = expected[3, 1] = True
    np.testing.assert_array_equal(mask.pixels(), expected)
    for rle, window in (
        ("1, 3, 3", (1, 2, 3, 2)), ("1, x", (1, 2, 3, 2)), ("-1, 7", (1, 2, 3, 2)), ("1, 3, 2", (4, 2, 3, 2)),
        ("1, 3, 2", None), ("", (1, 2, 3, 2)), ("1, 3, 2", (NAN, 2, 3, 2)), ("1, 3, 2", (1, -1, 3, 2)),
    ):  # fmt: skip
        assert of_cvat(rle, window, (5, 6)) == BROKEN


BRUSH = [
    int(value)
    for value in (
        "0 0 0 96 57 27 252 64 224 0 68 14 0 4 64 224 0 68 14 0 4 64 224 0 68 14 0 4 64 224 0 68 14 "
        "0 4 64 224 127 196 14 7 252 64 224 127 196 14 0 4 64 224 0 68 14 0 4 64 224 127 196 14 7 "
        "252 64 224 127 196 14 0 4 64 224 0 68 14 0 4 64 224 0 68 14 0 4 64 224 0 68 14 0 0 "
    ).split()
]


def test_brushes_that_label_studio_wrote() -> None:
    """Recorded from `label_studio_sdk.converter.brush.encode_rle`: rows 1 and 2, columns 2 to 4 of 4 x 6."""
    expected = np.zeros((4, 6), bool)
    expected[1:3, 2:5] = True
    np.testing.assert_array_equal(of_brush(BRUSH, (4, 6)).pixels(), expected)
    broken: tuple[Any, ...] = (BRUSH[:-3], BRUSH[:4], [], None, [300], ["1"], "x")
    assert all(of_brush(value, (4, 6)) == BROKEN for value in broken)
    assert of_brush(BRUSH, (4, 7)) == BROKEN and of_brush(BRUSH, (10**6, 10**6)) == BROKEN


def test_a_brush_by_hand() -> None:
    """One pixel: a run of three zeros, then one value of 255."""
    fields = ((4, 32), (7, 5), (2, 4), (3, 4), (7, 4), (15, 4))  # values of 8 bits; lengths of 3, 4, 8 or 16
    run, single = ((1, 1), (0, 2), (2, 3), (0, 8)), ((0, 1), (0, 2), (0, 3), (255, 8))
    bits = "".join(f"{value:0{width}b}" for value, width in (*fields, *run, *single))
    data = [int(bits[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(bits), 8)]
    np.testing.assert_array_equal(of_brush(data, (1, 1)).pixels(), [[True]])


# ---------------------------------------------------------------- in the formats

WINDOW = np.zeros((60, 100), bool)
WINDOW[20:30, 10:40] = True
RLE = as_coco(from_pixels(WINDOW))


def categories(*names: str) -> list[dict[str, Any]]:
    return [{"id": 6 + i, "name": name} for i, name in enumerate(names)]


def test_masks_of_coco_are_objects_and_road(tmp_path: Path) -> None:
    rows = [row(bbox=None, segmentation=RLE), row(id=2, category_id=7, bbox=None, segmentation=RLE)]
    found, counts = counts_of(coco(tmp_path, annotations=rows, categories=categories("bus", "road")))
    image = found.images[0]
    assert image.boxes == (Box("bus", (10, 20, 40, 30), mask=from_pixels(WINDOW)),) and counts == {}
    np.testing.assert_array_equal(road_mask(image.road, (60, 100)), WINDOW)


def test_a_broken_mask_of_coco(tmp_path: Path) -> None:
    rows = [row(segmentation={**RLE, "size": [61, 100]}), row(id=2, category_id=7, segmentation={"size": [60, 100]})]
    found, counts = counts_of(coco(tmp_path, annotations=rows, categories=categories("bus", "road")))
    assert found.images[0].boxes == (Box("bus", (10, 20, 40, 30)),) and found.images[0].road is None
    assert counts == {
        "run-length mask that is broken or of another size: left out, its box kept": 1,
        "run-length mask that is broken or of another size: left out, and the image taken as without road labels": 1,
    }


def test_masks_and_areas_of_coco_come_back(tmp_path: Path) -> None:
    rows = [row(segmentation=RLE, area=300), row(id=2, bbox=[1, 1, 9, 9], segmentation=[SQUARE], area=77.5)]
    found, _ = counts_of(coco(tmp_path / "in", annotations=rows))
    assert write(found, tmp_path / "out", "coco") == {}
    again, counts = counts_of(tmp_path / "out")
    assert [replace(image, path=Path(), label_file=None) for image in again.images] == [
        replace(image, path=Path(), label_file=None) for image in found.images
    ]
    assert again.images[0].boxes[1].area == 77.5 and counts == {}
    assert write(found, tmp_path / "yolo", "yolo")["run-length masks"] == 1


def test_the_drivable_surface_of_nuimages_is_road(tmp_path: Path) -> None:
    def packed(pixels: np.ndarray) -> dict[str, Any]:
        coded = as_coco(from_pixels(pixels))
        return {**coded, "counts": base64.b64encode(coded["counts"].encode()).decode()}

    root = nuimages(tmp_path)
    ground, ego = np.zeros((60, 100), bool), np.zeros((60, 100), bool)
    ground[25:] = ego[50:] = True
    names = {"c": "vehicle.bus.rigid", "f": "flat.driveable_surface", "e": "vehicle.ego"}
    text(root / "v1.0-mini/category.json", [{"token": k, "name": v} for k, v in names.items()])
    bus = {"sample_data_token": "d", "category_token": "c", "bbox": [10, 20, 40, 30], "mask": packed(WINDOW)}
    text(root / "v1.0-mini/object_ann.json", [bus])
    surfaces = [("e", ego), ("f", ground)]
    rows = [{"sample_data_token": "d", "category_token": k, "mask": packed(pixels)} for k, pixels in surfaces]
    text(root / "v1.0-mini/surface_ann.json", rows)
    found, counts = counts_of(root)
    road = road_mask(found.images[0].road, (60, 100))
    assert road is not None and counts == {} and found.labels == ("vehicle.bus.rigid",)
    assert (road[40, 50], road[27, 20], road[27, 50], road[10, 5], road[55, 5]) == (1, 0, 1, 0, 255)
    assert found.images[0].boxes[0].mask == from_pixels(WINDOW)


def test_masks_of_cvat_are_objects_and_road(tmp_path: Path) -> None:
    root = cvat(tmp_path)
    masks = "".join(
        f'<mask label="{label}" rle="{rle}" left="10" top="20" width="30" height="10"/>'
        for label, rle in (("bus", "0, 300"), ("road", "0, 300"), ("bus", "0, 299"))
    )
    names = "".join(f"<label><name>{label}</name></label>" for label in ("bus", "road"))
    image = f'<image name="a.png" width="100" height="60">{masks}<polyline label="bus" points="1,1"/></image>'
    text(root / "annotations.xml", f"<annotations><meta><labels>{names}</labels></meta>{image}</annotations>")
    found, counts = counts_of(root)
    assert found.images[0].boxes == (Box("bus", (10, 20, 40, 30), mask=from_pixels(WINDOW)),)
    np.testing.assert_array_equal(road_mask(found.images[0].road, (60, 100)), WINDOW)
    assert counts == {
        "run-length mask that is broken or empty: left out": 1,
        "shape that is no box, polygon or mask: left out": 1,
    }


def test_images_of_cvats_subsets(tmp_path: Path) -> None:
    """A project's export: two subsets with an image of one name."""
    box = "<box label='bus' occluded='0' xtl='10' ytl='20' xbr='40' ybr='30.5'/>"
    entries = ""
    for subset in ("train", "val"):
        picture(tmp_path / f"images/{subset}/{subset[0]}.png")
        entries += f"<image name='{subset[0]}.png' subset='{subset}' width='100' height='60'>{box}</image>"
    picture(tmp_path / "images/val/t.png")  # of the same name as the other subset's
    text(tmp_path / "annotations.xml", f"<annotations><label><name>bus</name></label>{entries}</annotations>")
    found, counts = counts_of(tmp_path)
    assert [(image.name, image.split, image.path.parent.name) for image in found.images] == [
        ("t", "train", "train"),
        ("v", "val", "val"),
    ]
    assert counts == {}
    write(found, tmp_path / "out", "cvat")
    assert (tmp_path / "out/images/train/t.png").is_file() and (tmp_path / "out/images/val/v.png").is_file()
    assert [image.name for image in read(tmp_path / "out", Problems()).images] == ["t", "v"]


def test_road_in_a_video_of_cvat(tmp_path: Path) -> None:
    picture(tmp_path / "images/frame_000000.png")
    points = ";".join(f"{x},{y}" for x, y in pairs(SQUARE))
    shapes = f'<polygon frame="0" outside="0" points="{points}"/><polyline frame="0" points="1,1"/>'
    size = "<original_size><width>100</width><height>60</height></original_size>"
    meta = f"<meta><label><name>road</name></label>{size}</meta>"
    track = f"<track id='0' label='road'>{shapes}</track>"
    text(tmp_path / "annotations.xml", f"<annotations>{meta}{track}</annotations>")
    found, counts = counts_of(tmp_path)
    road = road_mask(found.images[0].road, (60, 100))
    assert road is not None and road[20:50, 10:40].all() and road.sum() <= 31 * 31
    assert not found.labels and not found.images[0].boxes
    assert counts == {"shape that is no box, polygon or mask: left out": 1}


def test_brushes_of_label_studio_are_objects_and_road(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png", (4, 6))

    def brush(label: str, rle: list[int]) -> dict[str, Any]:
        value = {"format": "rle", "rle": rle, "brushlabels": [label]}
        return {"type": "brushlabels", "original_width": 6, "original_height": 4, "value": value}

    results = [brush("bus", BRUSH), brush("Road", BRUSH), brush("bus", BRUSH[:9])]
    text(tmp_path / "x.json", [{"id": 1, "data": {"image": "a.png"}, "annotations": [{"result": results}]}])
    found, counts = counts_of(tmp_path)
    assert [(box.label, box.xyxy) for box in found.images[0].boxes] == [("bus", (2, 1, 5, 3))]
    road = road_mask(found.images[0].road, (4, 6))
    assert road is not None and road.sum() == 6 and counts == {"run-length mask that is broken or empty: left out": 1}


def test_a_mask_of_another_size_is_no_mask_of_the_image() -> None:
    assert Mask((3, 4), from_pixels(HAND).runs) == from_pixels(HAND)
    assert of_cvat("0, 4", (0, 0, 2, 2), (0, 0)) == BROKEN
