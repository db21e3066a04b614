"""Camera perception for driving: frames in, tracked objects and road out.

import perception

for result in perception.run("drive.mp4"):
    for track in result.tracks:
        print(result.frame.timestamp_ns, track.track_id, track.class_id, track.box_xyxy, track.distance_m)
    road = result.road.at_frame_size() >= 128
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from perception.backends import Model as Model
    from perception.backends import load_model as load_model
    from perception.errors import UserError as UserError
    from perception.runtime.pipeline import Pipeline as Pipeline
    from perception.runtime.pipeline import PipelineConfig as PipelineConfig
    from perception.runtime.pipeline import run as run
    from perception.source_options import SourceOptions as SourceOptions
    from perception.sources import open_source as open_source

_PLACES = {
    "Model": "perception.backends",
    "Pipeline": "perception.runtime.pipeline",
    "PipelineConfig": "perception.runtime.pipeline",
    "SourceOptions": "perception.source_options",
    "UserError": "perception.errors",
    "load_model": "perception.backends",
    "open_source": "perception.sources",
    "run": "perception.runtime.pipeline",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import perception` alone costs nothing."""
    if name in _PLACES:
        import importlib

        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'perception' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
