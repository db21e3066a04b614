"""Networks and cameras that say otherwise, as `perception run` sets them up: ensembles and pairs of cameras."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from perception.errors import UserError

if TYPE_CHECKING:
    from perception.backends import Model
    from perception.cli.run import RunOptions
    from perception.runtime.second_camera import CameraPair
    from perception.trust.ensemble import Ensemble


def check_redundancy(options: RunOptions) -> None:
    """Refuse what does not go together."""
    if options.second is not None and options.second_camera:
        raise UserError("--second with --second-camera", "one of the two", "leave one out")
    if options.offline and (options.ensemble or options.flip or options.scales):
        raise UserError("--offline with --ensemble, --flip or --scales", "one of the two", "leave --offline out")


def fused(options: RunOptions, model: Model, model_path: Path) -> Model | Ensemble:
    """The network alone, or with others and other views of each frame as `perception evaluate` fuses them."""
    if not (options.ensemble or options.flip or options.scales):
        return model
    from perception.backends import load_model
    from perception.detector import Detector
    from perception.model import shipped_or
    from perception.trust.ensemble import Ensemble, make_views

    size_hw = model.spec.size_hw
    paths = [shipped_or(path, size_hw) for path in options.ensemble]
    models = [
        model,
        *(load_model(path, options.device, options.threads, precision=options.precision) for path in paths),
    ]
    least = model.spec.track_threshold
    if model.spec.doubt or model.spec.familiar:
        print(f"note: {model_path.name}: margins and familiarity are of one network, and not used", file=sys.stderr)
    return Ensemble([Detector(one, least) for one in models], make_views(options.flip, options.scales), least)


def pair_of(options: RunOptions, names: list[str]) -> CameraPair | None:
    """The two sources to compare, the first one and that of --second-camera."""
    from perception.runtime.second_camera import CameraPair

    if not options.second_camera:
        if options.baseline_m:
            raise UserError("--baseline without --second-camera", "the source to compare", "--second-camera NAME")
        return None
    if options.second_camera not in names[1:]:
        raise UserError(
            f"--second-camera {options.second_camera}",
            f"a source after the first one ({', '.join(names[1:]) or 'there is none'})",
            "perception run left=A right=B --second-camera right --baseline 0.5",
        )
    if not 0 <= options.baseline_m <= 10:
        raise UserError(f"--baseline {options.baseline_m:g}", "metres from 0 to 10", "--baseline 0.5")
    return CameraPair(names[0], options.second_camera, options.baseline_m)
