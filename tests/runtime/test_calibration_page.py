"""The page that people draw on, in a browser: lane lines give a command, zones and lines TOML for events."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from perception.cameras.calibration_page import click_page
from perception.sinks.events.config import read_events
from tests.runtime.browser import Page, chromium


def click(page: Page, x: float, y: float) -> None:
    """Click at a pixel of the image, which is 400×200."""
    page.run(
        f"(() => {{ const stage = document.getElementById('stage'), box = stage.getBoundingClientRect();"
        f"stage.dispatchEvent(new MouseEvent('click', {{clientX: box.left + {x} / 400 * box.width,"
        f"clientY: box.top + {y} / 200 * box.height}})) }})()"
    )


def test_lane_lines_zones_and_lines(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(click_page(np.full((200, 400, 3), 90, np.uint8), "perception calibrate"))
    with chromium(tmp_path / "profile") as page:
        page.open(f"file://{tmp_path / 'page.html'}")
        page.wait("document.querySelector('#stage img').complete && document.readyState === 'complete'")
        for x, y in ((50, 190), (150, 100), (350, 190), (250, 100)):
            click(page, x, y)
        words = page.text("#command").split()
        assert words[:3] == ["perception", "calibrate", "--lane-line"]
        assert np.allclose([float(n) for n in words[3].split(",")], [50, 190, 150, 100], atol=0.6)
        assert len(words) == 6
        page.run("document.querySelector('[value=zone]').click()")
        assert page.text("#command") == "…"
        for x, y in ((100, 120), (300, 120), (390, 195), (10, 195)):
            click(page, x, y)
        (tmp_path / "events.toml").write_text(page.text("#command"))
        zone = read_events(tmp_path / "events.toml").zones[0]
        assert np.allclose(zone.outline, [[100, 120], [300, 120], [390, 195], [10, 195]], atol=0.6)
        page.screenshot(tmp_path / "zone.png")
        page.run("document.querySelector('[value=line]').click()")
        for x, y in ((0, 0), (20, 150), (380, 150)):  # the last two count
            click(page, x, y)
        (tmp_path / "events.toml").write_text(page.text("#command"))
        assert np.allclose(read_events(tmp_path / "events.toml").lines[0].outline, [[20, 150], [380, 150]], atol=0.6)
        assert page.errors == []
