"""The synthetic street: a seeded, procedural drive seen through KITTI's camera, with exact truth for everything."""

from datasets.synthetic_street.config import DEMO_CONFIG, SETTINGS, WEATHERS, StreetConfig
from datasets.synthetic_street.drive import StreetFrame, SyntheticStreet, drive_truth
from datasets.synthetic_street.export import write_kitti_object, write_kitti_tracking
from datasets.synthetic_street.sample import street_sample

__all__ = [
    "DEMO_CONFIG",
    "SETTINGS",
    "WEATHERS",
    "StreetConfig",
    "StreetFrame",
    "SyntheticStreet",
    "drive_truth",
    "street_sample",
    "write_kitti_object",
    "write_kitti_tracking",
]
