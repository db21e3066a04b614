"""People drawn limb by limb."""

from __future__ import annotations

import cv2
import numpy as np

from datasets.synthetic_street import people
from datasets.synthetic_street.brush import SHADE, SHIFT, Brush, fixed
from datasets.synthetic_street.people import Person, Silhouette

LIT_FROM_PX = 28.0
"""Height from which limbs have a light and a dark side."""
SPOKES_FROM_PX = 70.0
LIMBS_FROM_PX = 45.0
"""Height from which limbs are told apart in the id plane and drawn smooth."""


def draw_person(
    brush: Brush, look: Person, figure: Silhouette, Z: float, number: int, height_px: float, shaded: bool
) -> None:
    """A figure from its farthest limb to its nearest: shadow side first, lit side over it."""
    light = brush.light
    sun = light.sun * (SHADE if shaded else 1.0)
    dark = brush.hazed(look.palette * (light.sky * 0.55 + light.bounce * 0.4 + sun * 0.12), Z).tolist()
    bright = brush.hazed(look.palette * (light.sky * 0.65 + light.bounce * 0.3 + sun * 0.62), Z).tolist()
    for rim, thickness in figure.wheels:
        width, outline = max(1, round(thickness)), fixed(rim)
        cv2.polylines(brush.image, [outline], True, dark[people.RUBBER], width, cv2.LINE_AA, SHIFT)
        cv2.polylines(brush.ids, [outline], True, number, max(width, 2), cv2.LINE_8, SHIFT)
        if height_px > SPOKES_FROM_PX:
            hub = tuple(fixed(rim.mean(0)).tolist())
            for k in range(0, len(outline), 3):
                cv2.line(brush.image, hub, tuple(outline[k].tolist()), (90, 90, 90), 1, cv2.LINE_AA, SHIFT)
    outlines, materials = fixed(figure.capsules), figure.materials.tolist()
    side = float(np.clip(light.sun_in_camera(brush.view.heading)[0] * 1.5, -1, 1))
    lit = fixed(figure.lit(side)) if height_px > LIT_FROM_PX else None
    single = height_px > LIMBS_FROM_PX
    if not single:  # far away the hull is the silhouette
        hull = cv2.convexHull(figure.capsules.reshape(-1, 2).astype(np.float32)).reshape(-1, 2)
        cv2.fillConvexPoly(brush.ids, fixed(hull), number, cv2.LINE_8, SHIFT)
    image, ids, fill, line = brush.image, brush.ids, cv2.fillConvexPoly, cv2.LINE_AA if single else cv2.LINE_8
    for i in np.argsort(-figure.depth, kind="stable").tolist():
        fill(image, outlines[i], dark[materials[i]], line, SHIFT)
        if single:
            fill(ids, outlines[i], number, cv2.LINE_8, SHIFT)
        if lit is not None:
            fill(image, lit[i], bright[materials[i]], line, SHIFT)
