"""Every file in sources/, sinks/ and backends/ is found here and held to its promise."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import perception.backends
import perception.sinks
import perception.sources
from perception.backends import Backend
from perception.cameras.letterbox import plan_letterbox
from perception.errors import MissingDependencyError, UserError
from perception.model import ModelSpec, default_model
from perception.sinks import RunInfo, Sink, SourceInfo, create_sink
from perception.source_options import SourceOptions
from perception.sources import Source
from perception.types import CLASS_NAMES, Detections, Frame, HealthEvent, Result, RoadMask, Track, Tracks

SPEC = ModelSpec(CLASS_NAMES, (96, 320))


def modules_of(package: ModuleType) -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def classes_of(module: ModuleType, kind: type = object) -> list[type]:
    """Classes that the module (or package) itself defines."""
    found = [v for v in vars(module).values() if inspect.isclass(v) and issubclass(v, kind)]
    return [v for v in found if v.__module__.startswith(module.__name__)]


def load(package: ModuleType, name: str) -> ModuleType:
    try:
        return importlib.import_module(f"{package.__name__}.{name}")
    except (ImportError, MissingDependencyError) as error:
        pytest.skip(f"{name}: {error}")


# ---------------------------------------------------------------- sources


@pytest.mark.parametrize("name", modules_of(perception.sources))
def test_a_source_claims_and_opens(name: str, tmp_path: Path) -> None:
    module = load(perception.sources, name)
    for nonsense in ("", "no/such/thing", "gopher://x", "\0"):
        assert module.claim(nonsense) in (0, 0.0), f"{name} claims {nonsense!r}"
    assert list(inspect.signature(module.open_source).parameters) == ["location", "name", "options"]
    own = classes_of(module, Source)
    assert len(own) == 1
    assert own[0].kind


def picture_folder(folder: Path, layout: str) -> Path:
    import cv2

    inside = {"images": folder / "x", "tracking": folder / "image_02" / "0001", "object": folder / "image_2"}[layout]
    inside.mkdir(parents=True)
    (folder / "calib").mkdir()
    for i in range(3):
        cv2.imwrite(str(inside / f"{i:06d}.png"), np.full((20, 30, 3), 40 * i, np.uint8))
    return inside


@pytest.mark.parametrize("layout", ["images", "tracking", "object"])
def test_reading_twice_gives_the_same(layout: str, tmp_path: Path) -> None:
    folder = picture_folder(tmp_path, layout)
    runs = []
    for _ in range(2):
        source = perception.sources.open_source(folder, SourceOptions())
        frames = list(source)
        source.close()
        source.close()
        runs.append([(f.frame_id, f.timestamp_ns, f.image_bgr.sum()) for f in frames])
        assert source.size_hw == frames[0].size_hw
        assert source.frame_count == len(frames) == 3
        assert all(f.source == source.name for f in frames)
        stamps = [f.timestamp_ns for f in frames]
        assert stamps == sorted(set(stamps))
    assert runs[0] == runs[1]


# ---------------------------------------------------------------- sinks

RESULTS: dict[str, Callable[[int], Result]] = {
    "nothing found": lambda i: Result(frame(i), Detections.empty(), Tracks.empty(), None),
    "road and tracks": lambda i: Result(
        frame(i),
        Detections(np.array([[10, 10, 30, 40]], np.float32), np.array([0.9], np.float32), np.array([0])),
        Tracks.from_rows([Track(1, 0, np.array([10, 10, 30, 40], np.float32), 0.9, age_frames=i + 1)]),
        RoadMask(np.full((24, 80), 200, np.uint8), plan_letterbox((61, 99), (96, 320))),
        {"network": 1.0},
        5.0,
    ),
}


def frame(i: int) -> Frame:
    return Frame(np.full((61, 99, 3), 90, np.uint8), i * 10**8, i, "cam")


def sink_class(name: str) -> type[Sink]:
    module = load(perception.sinks, name)
    own = classes_of(module, Sink)
    assert len(own) == 1, f"{name}: one sink a file"
    return own[0]


@pytest.mark.parametrize("name", modules_of(perception.sinks))
@pytest.mark.parametrize("what", RESULTS)
def test_a_sink_takes_results_and_events_and_closes_twice(name: str, what: str, tmp_path: Path) -> None:
    info = RunInfo(SPEC, (SourceInfo("cam", "cam.mp4", "video", False, (61, 99), 10.0),))
    first, second = (sink_class(name).in_folder(tmp_path / str(i)) for i in range(2))
    assert first.name == name
    try:
        first.open(info)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    second.open(info)  # two at once share nothing
    given = [RESULTS[what](i) for i in range(3)]
    before = [r.frame.image_bgr.copy() for r in given]
    for result in given:
        first.write(result)
        second.write(result)
    first.event(HealthEvent("black", "cam", True, 1, "dark"))
    for sink in (first, second):
        sink.close()
        sink.close()
    assert all(np.array_equal(b, r.frame.image_bgr) for b, r in zip(before, given, strict=True)), "frames are shared"
    for path in first.outputs():
        assert "://" in path or Path(path).exists()


@pytest.mark.parametrize("name", modules_of(perception.sinks))
def test_a_sink_follows_sources_that_come_and_go(name: str, tmp_path: Path) -> None:
    def info(*names: str) -> RunInfo:
        return RunInfo(SPEC, tuple(SourceInfo(n, f"{n}.mp4", "video", False, (61, 99), 10.0) for n in names))

    def of(source: str) -> Result:
        given = RESULTS["road and tracks"](0)
        return replace(given, frame=replace(given.frame, source=source))

    sink = sink_class(name).in_folder(tmp_path)
    try:
        sink.open(info("cam"))
    except MissingDependencyError as error:
        pytest.skip(str(error))
    sink.write(of("cam"))
    sink.sources_changed(info("cam", "new"))
    sink.write(of("new"))
    sink.write(of("cam"))
    sink.sources_changed(info("new"))
    sink.event(HealthEvent("ended", "cam", True, None, "removed"))
    sink.write(of("new"))
    sink.sources_changed(info())
    sink.close()
    for path in sink.outputs():
        assert "://" in path or Path(path).exists()


@pytest.mark.parametrize("name", modules_of(perception.sinks))
def test_a_sink_is_found_by_its_file_and_its_options_are_checked(name: str, tmp_path: Path) -> None:
    made = create_sink(name, tmp_path)
    assert type(made) is sink_class(name)
    made.close()
    with pytest.raises(UserError, match=f"sink '{name}' has no option 'no_such'"):
        create_sink(name, tmp_path, no_such=1)
    options = [p for p in inspect.signature(type(made).in_folder).parameters.values() if p.name != "folder"]
    for option in options:
        assert option.default is not inspect.Parameter.empty, f"{name}.{option.name}: an option has a default"
        with pytest.raises(UserError, match=f"{name}.{option.name}"):
            create_sink(name, tmp_path, **{option.name: object()})


@pytest.mark.parametrize("name", modules_of(perception.sinks))
def test_a_sink_that_never_opened_can_be_closed(name: str, tmp_path: Path) -> None:
    sink_class(name).in_folder(tmp_path).close()


# ---------------------------------------------------------------- backends


SHIPPED = default_model((375, 1242))


def make_backend(name: str) -> Backend:
    """The backend of one file, ready to run. A new file needs a line here."""
    module = load(perception.backends, name)
    if name == "replay":
        found = Detections(
            np.array([[1, 1, 9, 9], [2, 2, 8, 8]], np.float32), np.array([0.3, 0.8], np.float32), np.array([1, 0])
        )
        return module.ReplayBackend(SPEC, [found, Detections.empty()])
    if name == "onnxruntime":
        return module.OnnxRuntimeBackend(SHIPPED, "cpu", 1)
    if name == "openvino":
        pytest.importorskip("openvino")
        return module.OpenVinoBackend(SHIPPED, "openvino", 1)
    if name == "tensorrt":
        pytest.skip("needs a GPU and an engine built on it; tests/unit/test_tensorrt_engine.py has a stand-in")
    raise AssertionError(f"{name}: say here how it is made")


@pytest.mark.parametrize("name", modules_of(perception.backends))
def test_a_backend_is_arrays_in_arrays_out(name: str) -> None:
    module = load(perception.backends, name)
    own = [kind for kind in classes_of(module) if kind.__name__.endswith("Backend")]
    assert len(own) == 1, f"{name}: one class …Backend a file"
    assert list(inspect.signature(own[0].run).parameters) == ["self", "inputs"]


@pytest.mark.parametrize("name", modules_of(perception.backends))
def test_a_backend_says_what_it_is_and_what_it_takes(name: str) -> None:
    backend = make_backend(name)
    assert isinstance(backend.provider, str) and backend.provider
    assert backend.max_batch is None or backend.max_batch >= 1
    assert list(backend.inputs) == ["images"] and len(backend.inputs["images"]) == 4
    assert {"boxes_xyxy", "scores", "class_ids"} <= set(backend.outputs)
    spec = ModelSpec.from_metadata(backend.metadata, name)
    assert backend.inputs["images"][1:] == (*spec.size_hw, 3)


@pytest.mark.parametrize("name", modules_of(perception.backends))
def test_a_backend_keeps_the_model_contract(name: str) -> None:
    first, second = make_backend(name), make_backend(name)
    height, width = ModelSpec.from_metadata(first.metadata, name).size_hw
    images = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    before = images.copy()
    outputs = first.run({"images": images})
    kept = {name: value.copy() for name, value in outputs.items()}
    assert set(outputs) == set(first.outputs)
    most = outputs["scores"].shape[1]
    assert {k: (v.shape[:2], v.dtype.name) for k, v in outputs.items() if k != "road"} == {
        "boxes_xyxy": ((2, most), "float32"),
        "scores": ((2, most), "float32"),
        "class_ids": ((2, most), "int64"),
        **{name: ((2, most), "float32") for name in ("distances", "cuboids") if name in outputs},
    }
    assert outputs["road"].shape == (2, height // 4, width // 4) and outputs["road"].dtype == np.uint8
    assert (np.diff(outputs["scores"], axis=1) <= 0).all()
    assert np.array_equal(images, before), "the input is the caller's"
    again = second.run({"images": images})
    assert all(np.array_equal(kept[k], again[k]) for k in kept), "two instances agree and share nothing"
    first.run({"images": 255 - images})
    assert all(np.array_equal(kept[k], outputs[k]) for k in kept), "a later run leaves earlier outputs alone"
