"""Training images: labels stay on what they label."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from training_runs import changed

from datasets.sample import Sample
from training.augment import weather
from training.augment.copy_paste import (
    OTHER_BUILD,
    CutoutBank,
    _cloth,
    _dyed,
    cut_out,
    frames_in_turn,
    horizon_of,
    paste,
)
from training.augment.geometry import mirror, rotate
from training.augment.pipeline import _with_margin, mosaic_image, place, training_image, without_strong
from training.config import AugmentConfig, TrainConfig

PLAIN = AugmentConfig(
    exposure=0.0,
    colour=0.0,
    blur=0.0,
    noise=0.0,
    haze=0.0,
    rain=0.0,
    night=0.0,
    rotation=0.0,
    copy_paste=0.0,
    mosaic=0.0,
)


def marked_sample(box: tuple[int, int, int, int] = (500, 150, 620, 240)) -> Sample:
    """A black frame with one white box, labelled and also marked as road."""
    image = np.zeros((375, 1242, 3), np.uint8)
    road = np.zeros((375, 1242), np.uint8)
    left, top, right, bottom = box
    image[top:bottom, left:right] = 255
    road[top:bottom, left:right] = 1
    return Sample(
        image_bgr=image,
        name="marked",
        boxes_xyxy=np.array([box], np.float32),
        class_ids=np.array([0]),
        ignore_boxes_xyxy=np.zeros((0, 4), np.float32),
        ignore_class_ids=np.zeros(0, np.int64),
        road=road,
    )


@pytest.mark.parametrize("seed", range(20))
def test_box_and_mask_follow_the_pixels(seed: int) -> None:
    example = training_image(marked_sample(), (256, 512), np.random.default_rng(seed), PLAIN)
    white = example.image_bgr[:, :, 0] > 200
    if not len(example.boxes_xyxy):
        return
    left, top, right, bottom = example.boxes_xyxy[0]
    rows, columns = np.flatnonzero(white.any(1)), np.flatnonzero(white.any(0))
    assert abs(columns[0] - left) <= 1.5 and abs(columns[-1] + 1 - right) <= 1.5
    assert abs(rows[0] - top) <= 1.5 and abs(rows[-1] + 1 - bottom) <= 1.5
    mask = example.masks[0] == 1
    assert abs(np.flatnonzero(mask.any(0))[0] * 4 - left) <= 4
    assert abs(np.flatnonzero(mask.any(1))[-1] * 4 + 4 - bottom) <= 4


def test_some_seeds_show_the_box() -> None:
    shown = [
        len(training_image(marked_sample(), (256, 512), np.random.default_rng(seed), PLAIN).boxes_xyxy)
        for seed in range(20)
    ]
    assert sum(shown) >= 10


def test_same_seed_same_picture() -> None:
    a, b = (training_image(marked_sample(), (256, 512), np.random.default_rng(5), AugmentConfig()) for _ in range(2))
    assert (a.image_bgr == b.image_bgr).all() and (a.boxes_xyxy == b.boxes_xyxy).all()


def test_place_uses_the_runtimes_own_fit() -> None:
    from perception.cameras.letterbox import letterbox

    sample = marked_sample()
    example = place(sample, (384, 1248))
    expected, placed = letterbox(sample.image_bgr, (384, 1248))
    assert (example.image_bgr == expected).all()
    assert sample.boxes_xyxy is not None
    assert np.allclose(example.boxes_xyxy, placed.boxes_to_network(sample.boxes_xyxy))


def test_a_tiny_object_becomes_an_ignore_region() -> None:
    example = place(marked_sample((500, 200, 506, 204)), (384, 1248))
    assert len(example.boxes_xyxy) == 0 and len(example.ignore_xyxy) == 1 and example.ignore_class_ids[0] == 0


def test_the_border_is_not_judged() -> None:
    example = place(marked_sample(), (384, 1248))
    assert (example.masks[0][95] == 255).all(), "the rows below the frame must not be taught as background"
    assert (example.masks[1:] == 255).all(), "a set without vehicle and person masks teaches nothing there"


def test_pictures_of_a_run_depend_on_seed_and_number_alone() -> None:
    from training.data import ImageStream

    config = changed(TrainConfig(), steps=10, batch=2)
    config = replace(config, data=replace(config.data, synthetic_share=1.0))
    a, b = ImageStream(None, config)[7], ImageStream(None, config)[7]
    other = ImageStream(None, changed(config, seed=2))[7]
    assert (a.image_bgr == b.image_bgr).all()
    assert (a.image_bgr != other.image_bgr).any()


def test_so_many_streets_are_drawn_and_each_but_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from training import data

    drawn: list[int] = []

    def draw(seed: int) -> Sample:
        drawn.append(seed)
        return marked_sample()

    monkeypatch.setattr(data, "_synthetic", draw)
    config = changed(TrainConfig(), steps=10, batch=2, augment=replace(TrainConfig().augment, copy_paste=0))
    config = replace(config, data=replace(config.data, synthetic_share=1.0, streets=3))
    stream = data.ImageStream(None, config)
    examples = [stream[n].image_bgr for n in range(20)]
    assert sorted(drawn) == [0, 1, 2], "three streets in twenty images"
    again = data.ImageStream(None, config)
    assert (again[13].image_bgr == examples[13]).all(), "whatever was shown before"
    drawn.clear()
    endless = data.ImageStream(None, replace(config, data=replace(config.data, streets=0)))
    assert [endless[n] for n in range(6)] and len(set(drawn)) == 6


# ---------------------------------------------------------------- geometry


def test_mirror_twice_is_the_picture_itself() -> None:
    example = place(marked_sample(), (256, 512))
    once, twice = mirror(example), mirror(mirror(example))
    assert (once.image_bgr != example.image_bgr).any()
    assert (twice.image_bgr == example.image_bgr).all() and (twice.masks == example.masks).all()
    assert np.allclose(twice.boxes_xyxy, example.boxes_xyxy)


@pytest.mark.parametrize("degrees", [-4.0, 3.0, 5.0])
def test_a_turned_box_is_expected_to_what_it_holds(degrees: float) -> None:
    """The pixels of a rounded object: its upright hull, not that of the box's corners."""
    import cv2

    sample = marked_sample()
    sample.image_bgr[:] = 0
    cv2.ellipse(sample.image_bgr, ((560.0, 195.0), (120.0, 90.0), 0.0), (255, 255, 255), -1)
    example = rotate(place(sample, (384, 1248)), degrees, (320, 1152))
    assert example.image_bgr.shape == (320, 1152, 3) and example.masks.shape == (3, 80, 288)
    white = example.image_bgr[:, :, 0] > 127
    rows, columns = np.flatnonzero(white.any(1)), np.flatnonzero(white.any(0))
    seen = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    assert np.abs(example.boxes_xyxy[0] - seen).max() <= 4  # between an ellipse and a rectangle
    # counter-clockwise: what is left of the centre sinks
    sinks = seen[1] - (150 - 32)
    assert sinks * degrees > 0


def test_corners_that_turn_in_are_not_judged() -> None:
    sample = marked_sample()
    assert sample.road is not None
    example = rotate(place(replace(sample, road=np.ones_like(sample.road)), (352, 1248)), 5.0, (352, 1248))
    assert (example.masks[0, [0, -1], [0, -1]] == 255).all()


@pytest.mark.parametrize("size_hw", [(256, 512), (96, 288), (128, 128)])
@pytest.mark.parametrize("degrees", [-4.0, 0.3, 4.0])
def test_the_margin_leaves_no_corner_in_the_picture(size_hw: tuple[int, int], degrees: float) -> None:
    big_hw = _with_margin(size_hw, degrees)
    sample = marked_sample()
    example = replace(
        place(sample, big_hw),
        image_bgr=np.full((*big_hw, 3), 200, np.uint8),
        masks=np.ones((3, big_hw[0] // 4, big_hw[1] // 4), np.uint8),
    )
    turned = rotate(example, degrees, size_hw)
    assert (turned.image_bgr >= 199).all() and (turned.masks == 1).all()


@pytest.mark.parametrize("degrees", [-4.0, 2.5])
def test_pixels_turn_as_torchvision_turns_them(degrees: float) -> None:
    import cv2
    import torch
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as transform

    noise = np.random.default_rng(0).integers(0, 256, (96, 160, 3)).astype(np.uint8)
    image = cv2.GaussianBlur(noise, (0, 0), 1.0)
    example = replace(place(marked_sample(), (96, 160)), image_bgr=image)
    theirs = transform.rotate(torch.from_numpy(image).permute(2, 0, 1), degrees, InterpolationMode.BILINEAR)
    theirs = transform.center_crop(theirs, [64, 128]).permute(1, 2, 0).numpy()
    ours = rotate(example, degrees, (64, 128)).image_bgr
    assert np.abs(ours.astype(int) - theirs).max() <= 3 and np.abs(ours.astype(int) - theirs).mean() < 0.5


def test_an_object_turned_out_of_the_picture_becomes_an_ignore_region() -> None:
    example = place(marked_sample((2, 2, 40, 30)), (384, 1248))
    turned = rotate(example, -4.0, (320, 1152))  # 48 columns and 32 rows are cut off on each side
    assert len(turned.boxes_xyxy) == 0 and turned.class_ids.shape == (0,)


# ---------------------------------------------------------------- copy-paste


def street(camera: bool = True, labelled: tuple[bool, ...] = (True, True, True)) -> Sample:
    """A grey road under a grey sky, one near car, KITTI's camera."""
    from perception.cameras.pinhole import PinholeCamera

    P_cam2 = np.array([[720.0, 0, 621, 0], [0, 720, 172, 0], [0, 0, 1, 0]])
    return Sample(
        image_bgr=np.full((375, 1242, 3), 90, np.uint8),
        name="street",
        boxes_xyxy=np.array([[100, 180, 300, 300]], np.float32),
        class_ids=np.array([0]),
        ignore_boxes_xyxy=np.zeros((0, 4), np.float32),
        ignore_class_ids=np.zeros(0, np.int64),
        labelled_classes=labelled,
        road=np.ones((375, 1242), np.uint8),
        camera=PinholeCamera(P_cam2) if camera else None,
    )


def people(count: int = 1, drive: str = "walk") -> Sample:
    """Bright persons with dark stripes on grey, far apart."""
    image = np.full((375, 1242, 3), 60, np.uint8)
    boxes = np.array([[100 + 100 * i, 150, 140 + 100 * i, 250] for i in range(count)], np.float32)
    for x0, y0, x1, y1 in boxes.astype(int):
        image[y0:y1, x0 + 6 : x1 - 6] = 240
        image[y0:y1:4, x0 + 6 : x1 - 6] = 120
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    return Sample(image, "people", drive, boxes, np.ones(count, np.int64), *nothing)


def test_only_whole_plain_objects_are_cut_out() -> None:
    sample = people(3)
    assert sample.boxes_xyxy is not None
    assert len(list(cut_out(sample))) == 3
    boxes = sample.boxes_xyxy.copy()
    boxes[1] = boxes[0] + 10  # two that overlap
    boxes[2] = (300, 150, 300 + 100, 250)  # one as wide as tall: no person
    assert not list(cut_out(replace(sample, boxes_xyxy=boxes)))
    assert not list(cut_out(replace(sample, boxes_xyxy=boxes - (boxes[0, 0], 0, boxes[0, 0], 0)[:4]))), (
        "cut by the side"
    )
    assert not list(cut_out(replace(sample, image_bgr=np.full_like(sample.image_bgr, 60)))), "hidden by fog"
    assert not list(cut_out(replace(sample, boxes_xyxy=None)))


def test_an_outline_is_opaque_inside_and_clear_outside() -> None:
    cutout = next(cut_out(people()))
    alpha = cutout.alpha()
    x0, y0, x1, y1 = cutout.box_xyxy.astype(int)
    assert alpha.shape == cutout.image_bgr.shape[:2]
    assert alpha[(y0 + y1) // 2, (x0 + x1) // 2] > 0.95 and alpha[0].max() < 0.05 and alpha[:, 0].max() < 0.05
    assert (alpha == cutout.alpha()).all(), "GrabCut starts at random"


def masked_people(count: int, shade: int = 240) -> Sample:
    """The same with masks: a head of eight columns on a body of twenty-four."""
    sample = people(count)
    assert sample.boxes_xyxy is not None
    semantic = np.zeros(sample.image_bgr.shape[:2], np.uint8)
    for x0, y0, x1, y1 in sample.boxes_xyxy.astype(int):
        semantic[y0 : y0 + 20, x0 + 16 : x1 - 16] = 2
        semantic[y0 + 20 : y1, x0 + 8 : x1 - 8] = 2
    sample.image_bgr[semantic == 2] = shade
    sample.image_bgr[::4][semantic[::4] == 2] = shade // 2
    return replace(sample, semantic=semantic)


def test_a_mask_is_the_outline_where_there_is_one() -> None:
    sample = masked_people(2)
    assert sample.semantic is not None
    cutout = next(cut_out(sample))
    alpha = cutout.alpha()
    x0, y0, x1, _ = cutout.box_xyxy.astype(int)
    middle = (x0 + x1) // 2
    assert alpha[y0 + 10, middle] > 0.95 and alpha[y0 + 60, middle] > 0.95
    assert alpha[y0 + 10, middle - 8] < 0.05 < 0.95 < alpha[y0 + 60, middle - 8], "narrow head, wide body"


def test_without_a_mask_the_outline_starts_from_what_masks_look_like() -> None:
    flat = people(1)  # nothing that GrabCut could tell from the ground
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, flat.image_bgr.shape, np.uint8)
    bank = CutoutBank(
        iter([masked_people(11), replace(masked_people(11), drive="b"), replace(flat, image_bgr=image)])
    )
    average = bank._average(1)
    assert average is not None and bank._average(0) is None, "no car has a mask"
    assert average[5, 16] > 0.9 and average[5, 8] < 0.1 and average[40, 8] > 0.9
    (unmasked,) = [cutout for cutout in bank.cutouts[1] if cutout.mask is None]
    alpha = unmasked.alpha(average)
    x0, y0, x1, _ = unmasked.box_xyxy.astype(int)
    middle = (x0 + x1) // 2
    assert alpha[y0 + 60, middle] > 0.9 and alpha[y0 + 8, middle] > 0.7 and alpha[y0 + 8, middle - 13] < 0.3


def test_other_clothes_keep_folds_and_leave_the_rest_alone() -> None:
    colour = np.full((100, 40, 3), 100, np.float32)
    colour[::4] = 50
    opacity = np.zeros((100, 40), np.float32)
    opacity[:, 8:-8] = 1
    rows = np.zeros(100, np.float32)
    rows[50:92] = 1
    rngs = [np.random.default_rng(seed) for seed in range(6)]
    dyed = [_dyed(colour, opacity, rows, _cloth(rng), rng) for rng in rngs]
    for one in dyed:
        assert (one[:50] == colour[:50]).all() and (one[92:] == colour[92:]).all()
        assert (one[52] < one[53]).all(), "the dark stripe is still there"
        assert one.min() >= 0 and one.max() <= 255
    assert np.std([one[61].mean() for one in dyed]) > 15, "not always the same colour"


def test_pasted_people_stand_on_the_road_at_their_size() -> None:
    bank = CutoutBank(iter([people(3)]))
    sample, stood = street(), 0
    for seed in range(10):
        more = paste(sample, bank, 172.0, 621.0, 1.0, np.random.default_rng(seed))
        assert more.boxes_xyxy is not None and more.class_ids is not None and more.road is not None
        for x0, y0, x1, y1 in more.boxes_xyxy[more.class_ids == 1]:
            stood += 1
            implied_m = (y1 - y0) / (y1 - 172) * 1.65
            assert 0.84 * 2.0 < implied_m < 1.26 * 2.0, "as tall as people appear on KITTI's streets"
            assert 0.4 * OTHER_BUILD[0] - 0.01 < (x1 - x0) / (y1 - y0) < 0.4 * OTHER_BUILD[1] + 0.01
            middle = int((y0 + y1) / 2), int((x0 + x1) / 2)
            there = more.image_bgr[int(y0) : int(y1), int(x0) : int(x1)]
            assert (there != 90).any(2).mean() > 0.4, "the person is in the image where the box says"
            assert more.road[middle] == 0, "a person is no road"
            nearer = y1 < 300  # the car's foot
            covers = min(x1, 300) - max(x0, 100) > 0.1 * (x1 - x0) and y1 > 190
            assert not (nearer and covers and min(y1, 300) - max(y0, 180) > 0.5 * (y1 - y0)), "before a nearer car"
    assert stood >= 10
    assert (sample.image_bgr == 90).all() and np.all(sample.road == 1), "the cached sample was changed"


def test_what_is_covered_entirely_becomes_an_ignore_region() -> None:
    far = street()
    assert far.boxes_xyxy is not None
    boxes = np.concatenate(
        [far.boxes_xyxy] + [np.array([[x, 176, x + 6, 184]], np.float32) for x in range(400, 900, 8)]
    )
    far = replace(far, boxes_xyxy=boxes, class_ids=np.zeros(len(boxes), np.int64))
    more = paste(far, CutoutBank(iter([people()])), 172.0, 621.0, 1.0, np.random.default_rng(0))
    assert more.boxes_xyxy is not None and more.ignore_boxes_xyxy is not None and more.class_ids is not None
    people_now = int((more.class_ids == 1).sum())
    assert people_now >= 1 and len(more.ignore_boxes_xyxy) >= 1
    assert len(more.boxes_xyxy) - people_now + len(more.ignore_boxes_xyxy) == len(boxes)


def test_a_set_that_does_not_label_people_gets_none() -> None:
    bank = CutoutBank(iter([people()]))
    sample = street(labelled=(True, False, True))
    assert paste(sample, bank, 172.0, 621.0, 1.0, np.random.default_rng(0)) is sample
    assert bank.choose(np.random.default_rng(0), (True, False, True)) is None


def test_the_bank_takes_few_of_one_recording_and_stops_reading_when_full() -> None:
    from training.augment.copy_paste import MOST_OF_A_DRIVE

    bank = CutoutBank(iter([people(8)] * 10 + [people(2, "other")]))
    assert [len(found) for found in bank.cutouts] == [0, MOST_OF_A_DRIVE + 2, 0]
    read: list[tuple[int, int]] = []

    def reading(s: int, i: int) -> Sample:
        read.append((s, i))
        return people()

    frames = frames_in_turn((3, 100), reading, seed=4, limit=8)
    assert len(list(frames)) == 8 and {s for s, _ in read[:2]} == {0, 1} and len(set(read)) == 8


def test_pasted_people_look_different_each_time() -> None:
    bank = CutoutBank(iter([masked_people(1)]))
    looks = []
    for seed in range(12):
        more = paste(street(), bank, 172.0, 621.0, 1.0, np.random.default_rng(seed))
        assert more.boxes_xyxy is not None
        for x0, y0, x1, y1 in more.boxes_xyxy[more.class_ids == 1].astype(int):
            looks.append(more.image_bgr[(y0 + y1) // 2 : y1, x0:x1].reshape(-1, 3).mean(0))
    assert len(looks) >= 8 and np.std(looks, axis=0).min() > 8


def test_horizon_from_the_camera_or_from_objects_that_agree() -> None:
    assert horizon_of(street()) == 172.0
    assert horizon_of(street(camera=False)) is None, "one object alone says little"
    feet = np.array([200.0, 240, 300])
    heights = (feet - 172) * 2.0 / 1.65
    boxes = np.stack([feet, feet - heights, feet + 20, feet], 1).astype(np.float32)
    sample = replace(street(camera=False), boxes_xyxy=boxes, class_ids=np.ones(3, np.int64))
    assert horizon_of(sample) == pytest.approx(172, abs=0.01)
    boxes[:, 1] = boxes[:, 3] - (20, 90, 30)
    assert horizon_of(replace(sample, boxes_xyxy=boxes)) is None


def test_copy_paste_brings_rare_classes_into_pictures() -> None:
    config = replace(PLAIN, copy_paste=1.0)
    bank = CutoutBank(iter([people(3)]))
    shown = [
        int((training_image(street(), (256, 512), np.random.default_rng(seed), config, bank).class_ids == 1).sum())
        for seed in range(10)
    ]
    assert sum(shown) >= 6


# ---------------------------------------------------------------- mosaic


def test_quarters_that_label_different_classes_do_not_teach_each_other() -> None:
    first = street(labelled=(True, False, False))
    second = replace(people(8), labelled_classes=(False, True, False))
    example = mosaic_image([first, second, first, second], (256, 512), np.random.default_rng(0), PLAIN)
    assert example.labelled == (True, True, False) and example.image_bgr.shape == (256, 512, 3)
    corner = {
        tuple(box): ids for box, ids in zip(example.ignore_xyxy.tolist(), example.ignore_class_ids, strict=True)
    }
    x, y = next((box[2], box[3]) for box in corner if box[0] == 0 and box[1] == 0)
    assert corner[0, 0, x, y] == 1 and corner[x, 0, 512, y] == 0
    assert corner[x, y, 512, 256] == 1 and corner[0, y, x, 256] == 0
    for box, class_id in zip(example.boxes_xyxy, example.class_ids, strict=True):
        left = (box[0] + box[2]) / 2 < x
        upper = (box[1] + box[3]) / 2 < y
        assert class_id == (0 if left == upper else 1), "every object lies in the quarter of its own set"


def test_masks_of_a_mosaic_are_judged_only_where_a_quarter_has_one() -> None:
    example = mosaic_image([street(), people(), street(), people()], (256, 512), np.random.default_rng(1), PLAIN)
    judged = example.masks[0] != 255
    assert judged[0, 0] and judged[-1, -1] and not judged[0, -1] and not judged[-1, 0]
    assert (example.masks[1:] == 255).all()


def test_mosaic_needs_four() -> None:
    with pytest.raises(ValueError, match="expected 4"):
        mosaic_image([street()], (256, 512), np.random.default_rng(0), PLAIN)


def test_boxes_of_a_mosaic_lie_on_their_pixels() -> None:
    for seed in range(6):
        example = mosaic_image([marked_sample()] * 4, (256, 512), np.random.default_rng(seed), PLAIN)
        for x0, y0, x1, y1 in example.boxes_xyxy.round().astype(int):
            assert (example.image_bgr[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2] > 200).all()


# ---------------------------------------------------------------- weather


@pytest.mark.parametrize(
    "change", [weather.rain, weather.night, weather.haze, weather.soften, weather.recolour, weather.expose]
)
def test_weather_changes_pixels_and_keeps_their_form(change: object) -> None:
    image = np.random.default_rng(0).integers(60, 200, (64, 128, 3), np.uint8)
    a, b = (change(image, np.random.default_rng(3)) for _ in range(2))  # type: ignore[operator]
    assert a.shape == image.shape and a.dtype == np.uint8 and (a == b).all() and (a != image).any()


def test_exposure_brings_dusk_and_fog_to_daylight_and_takes_a_cast_away() -> None:
    scene = np.random.default_rng(0).integers(0, 256, (60, 90, 3))
    dusk, fog = (scene * 0.12 + 4).astype(np.uint8), (scene * 0.15 + 170).astype(np.uint8)
    green = (scene * (0.4, 0.7, 0.45)).astype(np.uint8)
    rngs = [np.random.default_rng(seed) for seed in range(20)]
    for dull in (dusk, fog):
        bright = [weather.expose(dull, rng) for rng in rngs]
        assert min(image.std() for image in bright) > 1.5 * dull.std()
        assert all(45 < image.mean() < 150 for image in bright)
    casts = [image[..., 1].mean() / image[..., 0].mean() for image in (weather.expose(green, rng) for rng in rngs)]
    assert min(casts) < 1.2 and np.median(casts) < 1.7, "balanced in part, by chance"
    assert weather.expose(np.full((9, 9, 3), 80, np.uint8), rngs[0]).shape == (9, 9, 3), "one colour alone"


def test_night_is_dark_and_rain_brightens_some_pixels() -> None:
    image = np.full((64, 128, 3), 100, np.uint8)
    assert weather.night(image, np.random.default_rng(0)).mean() < 90
    wet = weather.rain(image, np.random.default_rng(0))
    assert wet.max() > 130 and np.median(wet) < 110


def test_the_end_of_a_run_sees_true_pictures() -> None:
    plain = without_strong(AugmentConfig())
    assert plain.mosaic == plain.copy_paste == plain.rotation == plain.noise == plain.rain == plain.night == 0
    assert plain.flip == AugmentConfig().flip and plain.colour == AugmentConfig().colour / 2
