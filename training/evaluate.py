"""Evaluate a network on the validation frames with the official metrics, through the code of the exported graph.

With n processes, each one predicts every n-th frame. The predictions are gathered in the order of the frames, so the
scores equal those of one process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from datasets.kitti_object import KittiObject
from datasets.kitti_road import ground_truth_name
from datasets.sample import Sample
from perception.classes import ClassInfo
from perception.detector import Detector
from perception.evaluation.detection import Matches, average_precision, f1_scores, pool
from perception.evaluation.object import ObjectEvaluator
from perception.evaluation.predictions import object_rows
from perception.evaluation.results import LEVELS, OBJECT_CLASSES_SCORED, RoadImage
from perception.evaluation.road import category_of, confidence_histograms, pr_curve
from perception.formats.kitti import ObjectRows
from perception.progress import Progress
from perception.types import Detections, RoadMask
from training.backend import torch_model
from training.config import TrainConfig
from training.distributed import gather, rank, world
from training.models.network import Network
from training.operating_point import ONE_TO_MANY, confirm_threshold_key, confirm_thresholds, match_sample
from training.sets import Subset, TrainingSets
from training.show import draw

SHOWN = 4
"""Frames of each task that TensorBoard shows with ground truth and predictions."""
Detect = Callable[[np.ndarray], tuple[Detections, RoadMask | None]]
"""Returns the detections and road of an image (H, W, 3) in its pixels, as `Detector` does."""
Show = Callable[[str, np.ndarray], None]


def evaluate(
    network: Network,
    sets: TrainingSets | None,
    config: TrainConfig,
    device: torch.device,
    show: Show | None = None,
) -> dict[str, float]:
    """Evaluate a network on the validation frames.

    Args:
        network: network to evaluate.
        sets: training and validation sets of the run.
        config: config of the run.
        device: device of the network.
        show: takes a frame's name and the frame with ground truth and predictions, for a few frames.

    Returns:
        Scores by name, the same on every process; empty without validation frames.

        - AP R40 of each class and level, per cent; for cars also precision, recall, F1 and threshold at the best F1.
          Classes that KITTI does not score, and sets in other formats, have AP at IoU 0.5 instead (`bus_ap50`).
        - The confirmation threshold of each class (`confirm_thresholds`).
        - Road MaxF, AP and threshold, in the image.
        - `score`, which selects the best checkpoint: the mean of MaxF and moderate AP for cars, or for the first
          class of a network without cars. Where KITTI does not score every class, the mean over all classes.

        With a one-to-one head, these are its scores. Those of the one-to-many head have the prefix `ONE_TO_MANY`.
    """
    if sets is None or (sets.objects is None and sets.road is None):
        return {}
    detect = Detector(torch_model(network, config.data.validation_hw, device))
    scores: dict[str, float] = {}
    parts = []
    if sets.objects is not None:
        classes = config.model.class_infos
        scores |= object_scores(detect, sets.objects, classes, config.data.workers, show)
        parts.append(_selecting(scores, classes))
        if any(head.replaces for head in network.heads.values()):
            one_to_many = Detector(torch_model(network, config.data.validation_hw, device, one_to_one=False))
            other = object_scores(one_to_many, sets.objects, classes, config.data.workers)
            reported = ("moderate", "ap50", "threshold", "car_f1", "confirm_threshold")
            scores |= {
                ONE_TO_MANY + name: value for name, value in other.items() if any(word in name for word in reported)
            }
    if sets.road is not None:
        scores |= road_scores(detect, sets.road, config.data.workers, show)
        parts.append(scores["road_max_f"])
    return {"score": float(np.mean(parts)), **scores}


def object_scores(
    detect: Detect, subset: Subset, classes: Sequence[ClassInfo], readers: int = 0, show: Show | None = None
) -> dict[str, float]:
    """Return AP by class (R40 and level, else at IoU 0.5), 0 without detections, and thresholds where known."""
    found: list[tuple[int, ObjectRows, list[Matches]]] = []
    class_names = tuple(info.name for info in classes)
    official = isinstance(subset.source, KittiObject)
    for k, sample in my_samples(subset, readers):
        detections, road = detect(sample.image_bgr)
        matches = [_matches(sample, detections, i, name) for i, name in enumerate(class_names)]
        found.append((k, object_rows(detections, [info.result_name for info in classes], sample.camera), matches))
        if show is not None and k < SHOWN * world():
            show(f"objects/{sample.name}", draw(sample, detections, road, class_names))
    evaluator = ObjectEvaluator()
    everything = sorted(gather(found), key=lambda frame: frame[0])
    by_class = [pool(frames) for frames in zip(*(matches for _, _, matches in everything), strict=True)]
    scores: dict[str, float] = {}
    car = None
    if official:
        for k, rows, _ in everything:
            name = str(subset.source.names[subset.indices[k]])
            evaluator.process(name, subset.source.rows(name), rows)  # type: ignore[attr-defined]
        evaluation = evaluator.evaluate()
        car = evaluation.scores.get(("Car", "moderate"))
        for info in classes:
            if info.result_name in OBJECT_CLASSES_SCORED:
                levels = {level: evaluation.scores.get((info.result_name, level)) for level in LEVELS}
                scores |= {
                    f"{info.name.lower()}_{level}": 0.0 if of_level is None else of_level.ap_r40
                    for level, of_level in levels.items()
                }
    for info, of_class in zip(classes, by_class, strict=True):
        if f"{info.name.lower()}_{LEVELS[0]}" not in scores:
            scores[f"{info.name.lower()}_ap50"] = 100 * average_precision(of_class)
    thresholds = confirm_thresholds(by_class)
    scores |= {confirm_threshold_key(name): score for name, score in zip(class_names, thresholds, strict=False)}
    if car is None and (together := pool(by_class)).is_true.any():
        scores["score_threshold"] = float(together.scores[int(np.argmax(f1_scores(together)))])
    if car is not None and len(car.thresholds):
        f1 = 2 * car.tp / np.maximum(2 * car.tp + car.fp + car.fn, 1)
        best = int(np.argmax(f1))
        scores["score_threshold"] = float(car.thresholds[best])
        scores["car_precision"] = float(100 * car.tp[best] / max(1, car.tp[best] + car.fp[best]))
        scores["car_recall"] = float(100 * car.tp[best] / max(1, car.tp[best] + car.fn[best]))
        scores["car_f1"] = float(100 * f1[best])
    return scores


def _matches(sample: Sample, detections: Detections, class_id: int, name: str) -> Matches:
    """Return the matches of a class; none where the sample does not label it."""
    truth_id = sample.class_names.index(name) if name in sample.class_names else -1
    if truth_id < 0 or not sample.labelled_classes[truth_id]:
        return Matches()
    return match_sample(sample, detections, class_id, truth_id=truth_id)


def _selecting(scores: dict[str, float], classes: Sequence[ClassInfo]) -> float:
    """Return the score of objects that selects the best checkpoint, see `evaluate`."""
    keys = {
        info.name: key
        for info in classes
        for key in (f"{info.name.lower()}_moderate", f"{info.name.lower()}_ap50")
        if key in scores
    }
    if all(key.endswith("_moderate") for key in keys.values()):
        return scores[keys["Car" if "Car" in keys else classes[0].name]]
    return float(np.mean([scores[key] for key in keys.values()]))


def check_held_out(sets: TrainingSets, readers: int = 0) -> None:
    """Read this process's validation frames once, to report an unreadable one before training starts.

    Raises:
        UserError: an image or a label cannot be read.
    """
    subsets = [subset for subset in (sets.objects, sets.road) if subset is not None]
    progress = Progress("validation frames read", sum(len(range(rank(), len(s.indices), world())) for s in subsets))
    frames = (frame for subset in subsets for frame in my_samples(subset, readers))
    for done, _ in enumerate(frames, 1):
        progress.update(done)
    progress.close()


def my_samples(subset: Subset, readers: int) -> Iterator[tuple[int, Sample]]:
    """Iterate over this process's frames and their places in the subset.

    Args:
        subset: frames of all processes.
        readers: threads that read ahead; 0 reads in this thread.
    """
    mine = range(rank(), len(subset.indices), world())

    def read(k: int) -> Sample:
        return subset.source[subset.indices[k]]

    if readers == 0:
        yield from ((k, read(k)) for k in mine)
        return
    with ThreadPoolExecutor(readers) as pool:
        ahead = 2 * readers
        waiting = [pool.submit(read, k) for k in mine[:ahead]]
        for n, k in enumerate(mine):
            sample = waiting.pop(0).result()
            if n + ahead < len(mine):
                waiting.append(pool.submit(read, mine[n + ahead]))
            yield k, sample


def road_scores(detect: Detect, subset: Subset, readers: int = 0, show: Show | None = None) -> dict[str, float]:
    """Return MaxF and AP over all validation road frames, in the image because many have no calibration."""
    images: list[RoadImage] = []
    for k, sample in my_samples(subset, readers):
        _, road = detect(sample.image_bgr)
        assert road is not None and sample.road is not None
        name = ground_truth_name(sample.name)
        histograms = confidence_histograms(sample.road != 255, sample.road == 1, road.at_frame_size())
        images.append(RoadImage(name, category_of(name), *histograms))
        if show is not None and k < SHOWN * world():
            show(f"road/{sample.name}", draw(sample, None, road, ()))
    pooled = pr_curve(sorted(gather(images), key=lambda image: image.name), "all")
    return {"road_max_f": 100 * pooled.max_f, "road_ap": 100 * pooled.ap, "road_threshold": float(pooled.threshold)}
