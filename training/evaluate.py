"""Score a network on held-out frames with the official metrics, through the exported graph's own code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from datasets.kitti_object import KittiObject
from datasets.kitti_road import ground_truth_name
from perception.camera import fit_frame
from perception.evaluation.object import ObjectEvaluator
from perception.evaluation.results import LEVELS
from perception.evaluation.road import RoadEvaluator
from perception.formats.kitti import ObjectRows, read_objects
from perception.model import read_outputs
from perception.types import Detections, RoadMask
from training.config import TrainConfig
from training.data import Subset, TrainingSets
from training.models.network import DeployedNetwork, Network

OUTPUTS = ("boxes_xyxy", "scores", "class_ids", "road")
Predict = Callable[[np.ndarray], tuple[Detections, RoadMask | None]]


def predictor(network: Network, size_hw: tuple[int, int], device: torch.device) -> Predict:
    """A function from a frame (H, W, 3) to detections and road, in frame pixels."""
    deployed = DeployedNetwork(network, size_hw).to(device).eval()

    def predict(image_bgr: np.ndarray) -> tuple[Detections, RoadMask | None]:
        fitted, fit = fit_frame(image_bgr, size_hw)
        with torch.inference_mode():
            outputs = deployed(torch.from_numpy(fitted)[None].to(device))
        named = {name: value.cpu().numpy() for name, value in zip(OUTPUTS, outputs, strict=True)}
        return read_outputs(named, 0, fit)

    return predict


def evaluate(
    network: Network, sets: TrainingSets | None, config: TrainConfig, device: torch.device
) -> dict[str, float]:
    """Official numbers on the held-out frames.

    Returns:
        AP R40 of each class and level in per cent, the score threshold at the best F1 for cars, road MaxF, AP and
        threshold (perspective), and `score`, the mean of car AP moderate and MaxF, which picks the best checkpoint.
        Empty where nothing is held out.
    """
    if sets is None or (sets.objects is None and sets.road is None):
        return {}
    predict = predictor(network, config.data.validation_hw, device)
    scores: dict[str, float] = {}
    parts = []
    if sets.objects is not None:
        scores |= object_scores(predict, sets.objects, config.model.class_names)
        parts.append(scores["car_moderate"])
    if sets.road is not None:
        scores |= road_scores(predict, sets.road)
        parts.append(scores["road_max_f"])
    return {"score": float(np.mean(parts)), **scores}


def object_scores(predict: Predict, subset: Subset, class_names: tuple[str, ...]) -> dict[str, float]:
    """AP R40 by class and level; a class that was never found scores 0."""
    evaluator = ObjectEvaluator()
    for i, label_path in _object_frames(subset):
        detections, _ = predict(subset.source[i].image_bgr)
        evaluator.process(subset.source.names[i], read_objects(label_path), result_rows(detections, class_names))
    evaluation = evaluator.evaluate()
    scores = {
        f"{name.lower()}_{level}": evaluation.scores[name, level].ap_r40
        if (name, level) in evaluation.scores
        else 0.0
        for name in class_names
        for level in LEVELS
    }
    car = evaluation.scores.get(("Car", "moderate"))
    if car is not None and len(car.thresholds):
        f1 = 2 * car.tp / np.maximum(2 * car.tp + car.fp + car.fn, 1)
        best = int(np.argmax(f1))
        scores["score_threshold"] = float(car.thresholds[best])
        scores["car_precision"] = float(100 * car.tp[best] / max(1, car.tp[best] + car.fp[best]))
        scores["car_recall"] = float(100 * car.tp[best] / max(1, car.tp[best] + car.fn[best]))
        scores["car_f1"] = float(100 * f1[best])
    return scores


def _object_frames(subset: Subset) -> Iterator[tuple[int, Path]]:
    source = subset.source
    assert isinstance(source, KittiObject)
    for i in subset.indices:
        yield i, source.folder / "label_2" / f"{source.names[i]}.txt"


def result_rows(detections: Detections, class_names: tuple[str, ...]) -> ObjectRows:
    """Detections as KITTI result rows."""
    return ObjectRows.from_boxes(
        [class_names[i] for i in detections.class_ids], detections.boxes_xyxy, detections.scores
    )


def road_scores(predict: Predict, subset: Subset) -> dict[str, float]:
    """MaxF and AP over all held-out road frames, in the image (many of them have no calibration)."""
    evaluator = RoadEvaluator("perspective")
    for i in subset.indices:
        sample = subset.source[i]
        _, road = predict(sample.image_bgr)
        assert road is not None and sample.road is not None
        name = ground_truth_name(subset.source.names[i])
        evaluator.process(name, sample.road != 255, sample.road == 1, road.at_frame_size())
    scores = evaluator.evaluate().scores
    pooled = scores["URBAN"] if "URBAN" in scores else next(iter(scores.values()))
    return {"road_max_f": 100 * pooled.max_f, "road_ap": 100 * pooled.ap, "road_threshold": float(pooled.threshold)}
