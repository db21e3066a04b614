"""The live page in a real browser: headless Chromium before a run with two cameras and a replayed network."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np
import pytest
from browser import Page, chromium

from perception.backends.replay import ReplayBackend
from perception.cameras.pinhole import PinholeCamera
from perception.model import ModelSpec
from perception.runtime.pipeline import Pipeline
from perception.sinks import RunInfo, SourceInfo
from perception.sinks.web import WebSink
from perception.source_options import SourceOptions
from perception.sources import Source
from perception.types import CLASS_NAMES, Detections, Frame, HealthEvent, Result, Tracks

for package in ("starlette", "uvicorn", "websockets"):
    pytest.importorskip(package, reason="the extra 'web' is not installed (pip install -e '.[web]')")

SIZE_HW = (96, 320)
SPEC = ModelSpec(CLASS_NAMES, SIZE_HW, name="replay")
CAMERA = PinholeCamera(np.array([[200, 0, 160, 0], [0, 200, 40, 0], [0, 0, 1, 0]], np.float64), 1.5)
NOISE = np.random.default_rng(0).integers(40, 200, (*SIZE_HW, 3)).astype(np.uint8)
HOSTILE = "rtsp://me:secret@cam/<img src=x onerror=alert(1)>?token=secret"
FINGERPRINT = """(() => {
    const c = document.querySelector("#frame"), d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
    let h = 0; for (let i = 0; i < d.length; i += 97) h = (h * 31 + d[i]) | 0; return String(h);
})()"""


class FakeCamera(Source):
    """Live, 10 Hz, until it is stopped; silent while it is cut off."""

    kind = "camera"
    live = True

    def __init__(self, name: str, location: str) -> None:
        super().__init__(location, name, SourceOptions())
        self.size_hw, self.rate_hz = SIZE_HW, 10.0
        self.cut = threading.Event()

    def read(self) -> Iterator[Frame]:
        i = 0
        while not self.stopped.wait(0.1):
            if self.cut.is_set():
                self.emit("lost", True, f"{self.location}: connection refused; trying again")
                while self.cut.is_set() and not self.stopped.wait(0.02):
                    pass
                self.emit("lost", False, "back")
                continue
            image = np.roll(NOISE, 3 * i, 1)
            yield Frame(image, time.monotonic_ns(), i, self.name, CAMERA, int(i % 20 == 7), time.monotonic_ns())
            i += 1


def approaching(step: int) -> Detections:
    """One car that comes nearer, one pedestrian that stands."""
    bottom = 50 + step * 0.4
    boxes = np.array([[100, bottom - 20, 150, bottom], [200, 40, 212, 70]], np.float32)
    sizes = [[125, bottom - 10, 4, 1.6, 1.5, 1.6, 0.1, 0.1], [206, 55, 0.8, 0.6, 1.8, 0, 0.1, 0.3]]
    scores, class_ids = np.array([0.9, 0.8], np.float32), np.array([0, 1])
    return Detections(boxes, scores, class_ids, None, np.array(sizes, np.float32))


@dataclass
class Show:
    """A run, its page, and the browser before it."""

    page: Page
    url: str
    cameras: dict[str, FakeCamera]

    def visit(self, tab: str = "", width: int = 1280) -> Page:
        self.page.resize(width, 860)
        self.page.open("about:blank")
        self.page.open(f"{self.url}#{tab}" if tab else self.url)
        self.page.wait("document.querySelector('#link.on')")
        return self.page


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def show(browser: Page) -> Iterator[Show]:
    cameras = {"front": FakeCamera("front", "camera:0"), "rear": FakeCamera("rear", HOSTILE)}
    sink = WebSink("127.0.0.1:0")
    url = sink.listen().url
    backend = ReplayBackend(SPEC, [approaching(i) for i in range(60)], np.full((24, 80), 220, np.uint8))
    pipeline = Pipeline(list(cameras.values()), (backend, SPEC), [sink])
    thread = threading.Thread(target=lambda: list(pipeline), daemon=True)
    thread.start()
    yield Show(browser, url, cameras)
    pipeline.stop()
    thread.join(10)


@pytest.fixture(autouse=True)
def clean(browser: Page) -> Iterator[None]:
    """After every test: no error on the console, nothing asked of anyone but loopback."""
    browser.errors.clear()
    browser.requests.clear()
    yield
    browser.run("0")  # hear what is still on its way
    hosts = {urlsplit(url).hostname for url in browser.requests if not url.startswith(("about:", "data:", "blob:"))}
    assert hosts <= {"127.0.0.1"}
    assert browser.errors == []


def number(text: str) -> float:
    return float("".join(c for c in text if c in "0123456789."))


def test_the_page_loads_the_picture_moves_and_the_numbers_follow(show: Show) -> None:
    page = show.visit("front")
    first = page.wait("document.querySelector('#frames').innerText")
    before = page.wait(f"{FINGERPRINT} !== '0' && {FINGERPRINT}")
    page.wait(f"{FINGERPRINT} !== {json.dumps(before)}")
    page.wait(f"document.querySelector('#frames').innerText !== {json.dumps(first)}")
    for name in ("Car", "Pedestrian"):
        page.wait(f"document.querySelector('#objects').innerText.includes('{name}')")
    page.wait("/^[\\d.]+.m\\n/.test(document.querySelector('#objects td:nth-child(2)').innerText + '\\n')")
    assert page.text("#state") == "running"
    page.wait("parseFloat(document.querySelector('#rate').innerText) > 0")
    assert number(page.text("#delay")) >= 0
    page.wait("parseInt(document.querySelector('#dropped').innerText) > 0")
    page.wait("document.querySelector('#stages').innerText.includes('network')")
    assert page.run(
        "document.querySelector('#rate-chart').getContext('2d').getImageData(0,0,999,99).data.some(v => v)"
    )


def test_the_plan_view_shows_objects_where_they_are(show: Show) -> None:
    page = show.visit("front")
    page.wait("now.view && now.objects.length === 2 && now.objects.every(o => o.size_m && o.heading_rad !== null)")
    car = page.run("now.objects.find(o => o.class === 'Car')")
    assert abs(car["heading_rad"]) > 1  # along the road
    colour = page.run("""(() => {
        const canvas = document.querySelector("#plan"), car = now.objects.find(o => o.class === "Car");
        const perM = (canvas.clientHeight - 24) / planRangeM, scale = canvas.width / canvas.clientWidth;
        const u = canvas.clientWidth / 2 + car.position_m[0] * perM;
        const v = canvas.clientHeight - 12 - car.position_m[1] * perM;
        return [[car], []].map(objects => {
            drawPlan(canvas, objects, now.view);
            return [...canvas.getContext("2d").getImageData(u * scale, v * scale, 1, 1).data];
        });
    })()""")
    assert colour[0][3] == 255 and colour[0] != colour[1]


def test_a_lost_camera_shows_as_lost_and_comes_back(show: Show) -> None:
    page = show.visit("rear")
    page.wait("document.querySelector('#state').innerText === 'running'")
    show.cameras["rear"].cut.set()
    page.wait("document.querySelector('#state').innerText.includes('lost')")
    page.wait("document.querySelector('#veil').innerText.includes('last frame')")
    page.wait("document.querySelector('#objects').children.length === 0")
    page.wait("document.querySelector('#events').innerText.includes('lost')")
    assert page.run("document.querySelectorAll('#tabs button')[2].className") == "lost"
    still = page.run(FINGERPRINT)
    show.cameras["rear"].cut.clear()
    page.wait("document.querySelector('#state').innerText === 'running'")
    page.wait("document.querySelector('#veil').hidden")
    page.wait(f"{FINGERPRINT} !== {json.dumps(still)}")


def test_what_a_source_is_called_is_text_and_holds_no_password(show: Show) -> None:
    page = show.visit("rear")
    page.wait("document.querySelector('#location').innerText")
    assert "<img src=x" in page.text("#location")
    assert page.run("document.querySelectorAll('img[src=x]').length") == 0
    everything = page.run("document.documentElement.outerHTML")
    assert "secret" not in everything


def test_one_page_for_several_cameras(show: Show) -> None:
    page = show.visit()
    page.wait("document.querySelectorAll('#grid .card').length === 2")
    painted = "c => c.getContext('2d').getImageData(c.width / 2, c.height / 2, 1, 1).data[3] > 0"
    page.wait(f"[...document.querySelectorAll('#grid canvas')].every({painted})")
    page.wait("[...document.querySelectorAll('#grid .facts')].every(f => f.innerText.includes('2 objects'))")
    page.run("document.querySelectorAll('#tabs button')[1].click()")
    page.wait("document.querySelector('#name').innerText === 'front'")
    assert page.run("location.hash") == "#front"
    page.wait("document.querySelector('#objects').children.length === 2")
    assert not page.run("document.querySelector('#all').offsetHeight")


@pytest.mark.parametrize("tab", ["", "front"])
def test_a_telephone_shows_all_of_it_without_scrolling_sideways(show: Show, tab: str) -> None:
    page = show.visit(tab, width=400)
    inside = "#detail" if tab else "#all"
    page.wait(f"document.querySelector('{inside}').offsetHeight > 300")
    page.wait("document.querySelector('#events-card').offsetHeight > 0")
    assert page.run("document.documentElement.scrollWidth") <= 400
    beyond = (
        f"[...document.querySelectorAll('{inside} .card')].filter(c => c.getBoundingClientRect().right > 400).length"
    )
    assert page.run(beyond) == 0


def test_a_wrong_token_is_refused_and_the_right_one_leaves_the_address(browser: Page) -> None:
    sink = WebSink("0.0.0.0:0")
    sink.open(RunInfo(SPEC, (SourceInfo("front", "camera:0", "camera", True),)))
    assert sink.door is not None
    url = f"http://127.0.0.1:{sink.door.port}/"
    try:
        browser.resize(1280, 860)
        for address, words in ((url, "needs the token"), (f"{url}?token=wrong", "not the right one")):
            browser.open(address)
            browser.wait(f"document.body.innerText.includes({json.dumps(words)})")
            assert "?token=" in browser.text("main")
            assert "front" not in browser.text("body")
        assert [error for error in browser.errors if "401" not in error] == []
        browser.errors.clear()
        browser.run(f"document.querySelector('#token').value = {json.dumps(sink.door.token)}")
        browser.run("document.querySelector('button').click()")
        browser.wait("document.querySelector('#link.on')")
        assert browser.run("location.href") == url
        assert browser.run("document.cookie") == ""  # no script can read it
    finally:
        browser.open("about:blank")
        sink.close()


def test_a_finished_file_beside_a_camera_has_ended_and_is_not_lost(browser: Page) -> None:
    sink = WebSink("127.0.0.1:0")
    names = ("clip", "camera")
    sink.open(RunInfo(SPEC, tuple(SourceInfo(n, n, "video", False, SIZE_HW) for n in names)))
    assert sink.door is not None
    url = sink.door.url
    try:
        for name in names:
            sink.write(Result(Frame(NOISE, 0, 0, name), approaching(0), Tracks.empty(), None))
        browser.resize(1280, 860)
        browser.open(url)
        tabs = "document.querySelectorAll('#tabs button')"
        browser.wait(f"{tabs}[1]?.className")  # running, or silent on a busy machine
        sink.event(HealthEvent("ended", "clip", True, None, "after 1 frames"))
        browser.wait(f"{tabs}[1].className === 'ended'")
        assert browser.text("#grid .card .badge") == "ended"
        assert browser.text("#grid .card .veil") == "ended after 1 frames"
        browser.run(f"{tabs}[1].click()")
        browser.wait("document.querySelector('#state').innerText === 'ended'")
        assert "lost" not in browser.text("body") and "silent" not in browser.text("#state")
        browser.wait("document.querySelector('#events').innerText.includes('after 1 frames')")
    finally:
        browser.open("about:blank")
        sink.close()


def test_the_end_of_the_run_is_said(browser: Page) -> None:
    sink = WebSink("127.0.0.1:0")
    sink.open(RunInfo(SPEC, (SourceInfo("front", "camera:0", "camera", True),)))
    assert sink.door is not None
    browser.open(sink.door.url)
    browser.wait("document.querySelector('#link.on')")
    browser.wait("document.querySelector('#veil').innerText.includes('waiting for the first frame')")
    sink.close()
    browser.wait("document.querySelector('#link').innerText === 'run ended'")
    assert browser.text("#veil") == "The run has ended."
    browser.wait("retryMs > 1500")  # two more tries have found nobody, which says nothing new
    assert browser.text("#link") == "run ended"
    assert browser.text("#veil") == "The run has ended."
    browser.open("about:blank")
    browser.errors.clear()  # it knocks at a closed door, and the browser writes that down
