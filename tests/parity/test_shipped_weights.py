"""All shipped files of a network hold the weights of its checkpoint, and a run can start from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from perception.backends import load_model  # noqa: E402
from perception.model import WEIGHTS_FOLDER  # noqa: E402
from training.checkpoint import load_network  # noqa: E402
from training.models.network import DeployedNetwork  # noqa: E402

FILES = sorted(WEIGHTS_FOLDER.glob("*.onnx"))


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_a_model_file_is_the_shipped_checkpoint(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets.synthetic_street import street_sample
    from perception.cameras.letterbox import letterbox

    monkeypatch.chdir(tmp_path)  # by its bare name, from anywhere
    network, state = load_network(Path(f"{file.stem.rpartition('-')[0]}.pt"))
    assert '": "/' not in state["description"], "no folder of the machine it was made on"
    model = load_model(file.name, "cpu", 1)
    picture, _ = letterbox(street_sample(5).image_bgr, model.spec.size_hw)
    found = model.backend.run({"images": picture[None]})
    with torch.inference_mode():
        wanted = DeployedNetwork(network, model.spec.size_hw).eval()(torch.from_numpy(picture)[None])
    scores = wanted[1].numpy()[0]
    assert scores[0] > 0.3, "something is seen"
    np.testing.assert_allclose(found["scores"][0], scores, atol=1e-4)
    sure = scores > 0.05
    np.testing.assert_allclose(found["boxes_xyxy"][0][sure], wanted[0].numpy()[0][sure], atol=0.02)


def test_there_are_model_files() -> None:
    assert len(FILES) >= 3
