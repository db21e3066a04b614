"""A network with the road head alone."""

from __future__ import annotations

import numpy as np

from perception.detector import Detector
from training.backend import torch_model
from training.models.config import ModelConfig
from training.models.network import Network


def test_a_network_without_boxes_finds_road_and_no_objects():
    network = Network(ModelConfig(heads=("segmentation",), channels=16)).eval()
    detector = Detector(torch_model(network, (64, 96)), batch=2)
    images = [np.full((64, 96, 3), grey, np.uint8) for grey in (40, 200)]
    for detections, road in detector.run(images):
        assert len(detections) == 0
        assert road is not None and road.at_frame_size().shape == (64, 96)
