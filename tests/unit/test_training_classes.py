"""Training, validation, checkpoint and export with a class that KITTI does not have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tensorboard")

from training_runs import changed, kitti, tiny  # noqa: E402

from perception.classes import ClassInfo, classes_named  # noqa: E402
from perception.errors import UserError  # noqa: E402
from perception.types import CLASS_NAMES  # noqa: E402
from training import cli  # noqa: E402
from training.checkpoint import load_network, model_config_from_json, model_config_to_json  # noqa: E402
from training.config import TrainConfig  # noqa: E402
from training.data import ImageStream  # noqa: E402
from training.loop import train  # noqa: E402
from training.models.config import ModelConfig  # noqa: E402
from training.models.network import Network  # noqa: E402
from training.sets import find_sets  # noqa: E402

BUS = ClassInfo("Bus", labels=("bus", "coach"), colour="#ff8c00")
NAMES = ("Car", "Bus")


def with_buses(root: Path) -> Path:
    """KITTI's layout with every third object a bus, and nobody walking."""
    base = kitti(root) / "kitti/object"
    for path in (base / "training/label_2").glob("*.txt"):
        path.write_text(path.read_text().replace("Pedestrian", "coach").replace("Cyclist", "tree"))
    (base / "classes.txt").write_text("Car\ncoach\ntree\n")
    return root


def bus_config(root: Path) -> TrainConfig:
    return changed(tiny(root), model=replace(tiny().model, class_names=NAMES, classes=(BUS,)))


def test_images_have_the_classes_of_the_network(tmp_path: Path) -> None:
    config = bus_config(with_buses(tmp_path))
    sets = find_sets(config.data, classes=config.model.class_infos)
    stream = ImageStream(sets, config)
    found = {int(class_id) for n in range(12) for class_id in stream[n].class_ids}
    assert found == {0, 1} and stream[0].labelled == (True, True)
    assert sets.objects is not None and sets.objects.source[1].class_names == (*CLASS_NAMES, "Bus")


def test_a_street_without_bus_labels_is_masked_for_buses(tmp_path: Path) -> None:
    config = bus_config(with_buses(tmp_path))
    config = replace(config, data=replace(config.data, synthetic_share=1.0, streets=1))
    assert ImageStream(None, config)[0].labelled == (True, False)


def test_a_class_that_nothing_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no training set labels the class Bus(.|\n)*classes.txt"):
        config = bus_config(kitti(tmp_path))
        find_sets(config.data, classes=config.model.class_infos)


def test_from_training_to_checkpoint(tmp_path: Path) -> None:
    config = bus_config(with_buses(tmp_path / "data"))
    best = train(config, tmp_path / "run")
    network, state = load_network(best)
    assert network.config.class_infos == (classes_named(("Car",))[0], BUS)
    scores = state["scores"]
    assert {"car_moderate", "bus_ap50", "score"} <= set(scores) and "bus_moderate" not in scores
    assert scores["score"] == pytest.approx((scores["car_moderate"] + scores["bus_ap50"]) / 2)
    resumed, _, _ = cli.stored_run(tmp_path / "run")
    assert resumed.model.classes == (BUS,)
    # a run from those weights keeps what is known of a class by its name
    other = changed(config, model=replace(config.model, class_names=("Bus", "Tram", "Car"), classes=(BUS,)))
    from training.loop import _start_from

    fresh = Network(other.model)
    _start_from(fresh, best)
    theirs, ours = (n.heads["detection"].class_out.bias.detach() for n in (network, fresh))
    assert ours[0] == theirs[1] and ours[2] == theirs[0] and ours[1] == pytest.approx(-4.595, abs=1e-3)


def test_architectures_of_old_checkpoints() -> None:
    assert model_config_from_json('{"channels": 48}').class_infos == classes_named(CLASS_NAMES)
    config = ModelConfig(class_names=NAMES, classes=(BUS,))
    assert model_config_from_json(model_config_to_json(config)) == config
    with pytest.raises(UserError, match="class Bus"):
        ModelConfig(class_names=("Car",), classes=(BUS,))


def test_classes_of_a_file_or_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[TrainConfig] = []
    monkeypatch.setattr(cli, "train", lambda config, run, **_: seen.append(config) or run)
    (tmp_path / "classes.toml").write_text('[Car]\n[Bus]\nlabels = ["bus", "coach"]\ncolour = "#ff8c00"\n')
    text = '[model]\nclass-names = ["Car", "Bus"]\n[[model.classes]]\nname = "Bus"\nlabels = ["bus", "coach"]\n'
    (tmp_path / "run.toml").write_text(text)
    words = ["--data.root", str(tmp_path), "--out", str(tmp_path / "run")]
    cli.main([*words, "--classes", str(tmp_path / "classes.toml")])
    cli.main([*words, "--config", str(tmp_path / "run.toml")])
    assert seen[0].model.class_names == NAMES and seen[0].model.class_infos[1] == BUS
    assert seen[1].model.class_infos[1] == replace(BUS, colour="")
