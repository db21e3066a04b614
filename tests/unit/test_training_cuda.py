"""What a GPU asks of the training loop, without one: devices, scaled gradients, several processes, several nodes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tensorboard")

import torch.distributed as dist  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.fx.experimental.symbolic_shapes import ShapeEnv  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402
from training_runs import changed  # noqa: E402

from perception.errors import UserError  # noqa: E402
from training import loop  # noqa: E402
from training.config import DataConfig, TrainConfig  # noqa: E402
from training.data import Batch, ImageStream, collate  # noqa: E402
from training.models.heads.detection import DetectionConfig, DetectionTargets  # noqa: E402
from training.models.network import DeployedNetwork, ModelConfig, Network  # noqa: E402
from training.results import Progress  # noqa: E402
from training.run_log import RunLog  # noqa: E402

SMALL = DataConfig(real=False, synthetic_share=1.0, crop_hw=(64, 128), validation_hw=(64, 192), workers=0)
CONFIG = changed(TrainConfig(data=SMALL), steps=4, batch=4, warmup_steps=2, threads=1, device="cpu")


@pytest.fixture(scope="module")
def batch() -> Batch:
    stream = ImageStream(None, CONFIG)
    return collate([p for p in (stream[n] for n in range(24)) if len(p.boxes_xyxy)][:4])


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network(ModelConfig(one_to_one=True))


def targets(classes: int) -> DetectionTargets:
    """Two pictures with three objects and two ignore regions each."""
    return DetectionTargets(
        boxes_xyxy=torch.rand(2, 3, 4),
        class_ids=torch.zeros(2, 3, dtype=torch.int64),
        ignore_xyxy=torch.rand(2, 2, 4),
        ignore_class_ids=torch.zeros(2, 2, dtype=torch.int64),
        confidences=torch.ones(2, 3),
        labelled=torch.ones(2, classes, dtype=torch.bool),
        depths=torch.rand(2, 3),
        cuboids=torch.rand(2, 3, 6),
    )


@pytest.mark.parametrize("assign_by", ["alignment", "centre"])
def test_nothing_in_network_loss_and_decode_stays_on_the_cpu(assign_by: Any) -> None:
    """Tensors that only pretend to lie on a GPU: one operation between the two devices is an error, as there."""
    detection = DetectionConfig(distance=True, assign_by=assign_by)
    config = ModelConfig(one_to_one=True, dropout=0.1, task_weights="uncertainty", detection=detection)
    shapes = ShapeEnv(allow_dynamic_output_shape_ops=True, allow_scalar_outputs=True)
    with FakeTensorMode(shape_env=shapes):
        with torch.device("cuda"):
            network = Network(config)
        images = torch.zeros(2, 64, 128, 3, dtype=torch.uint8)
        step = Batch(images, targets(len(config.class_names)), torch.zeros(2, 3, 16, 32, dtype=torch.uint8))
        step = step.to(torch.device("cuda"))
        assert next(network.parameters()).is_cuda and step.targets.depths.is_cuda and step.masks.is_cuda
        losses = network.train().loss(network(step.images), step)
        assert len(losses) == 11 and all(value.is_cuda for value in losses.values())
        frames = torch.zeros(1, 64, 192, 3, dtype=torch.uint8, device="cuda")
        for one_to_one in (True, False):
            outputs = DeployedNetwork(network, (64, 192), one_to_one).eval()(frames)
            assert len(outputs) == 5 and all(value.is_cuda for value in outputs)
        with pytest.raises(RuntimeError, match="device"):
            step.masks.float() + torch.zeros(2, 3, 16, 32)  # the test sees what it is there to see


def test_scaled_gradients_make_the_same_step_and_an_overflow_makes_none(network: Network, batch: Batch) -> None:
    """fp16's scaler, on a CPU: gradients are cut at their true length, and infinite ones change nothing."""
    scaled = copy.deepcopy(network)
    norms = {}
    for one, scaler in ((network, None), (scaled, torch.amp.GradScaler("cpu", init_scale=2.0**12))):
        optimiser = torch.optim.SGD(one.parameters(), lr=0.1)
        _, norms[one] = loop.train_step(one, batch, optimiser, changed(CONFIG, clip_norm=0.5), scaler)
    assert norms[scaled] == pytest.approx(norms[network], rel=1e-4) and norms[network] > 0.5
    for a, b in zip(network.parameters(), scaled.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)

    before = [p.detach().clone() for p in scaled.parameters()]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)
    _, norm = loop.train_step(scaled, batch, torch.optim.SGD(scaled.parameters(), lr=0.1), CONFIG, scaler)
    assert norm == float("inf") or norm != norm
    assert all(torch.equal(a, b) for a, b in zip(before, scaled.parameters(), strict=True))
    assert scaler.get_scale() == 2.0**126


def test_a_one_to_one_head_whose_gradient_is_no_number_is_not_passed_over_for_ever(
    network: Network, batch: Batch
) -> None:
    """No weight of any head would change again, and nothing would say so."""
    network.one_to_one.class_out.bias.register_hook(lambda gradient: gradient * float("nan"))
    _, norm = loop.train_step(network, batch, torch.optim.SGD(network.parameters(), lr=0.1), CONFIG)
    assert norm != norm


def test_parts_of_a_batch_are_summed_before_processes_talk(network: Network, batch: Batch, tmp_path: Path) -> None:
    """DistributedDataParallel asks its forward pass whether to: a backward pass alone under no_sync still talks."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        alone = copy.deepcopy(network)
        model = DistributedDataParallel(network)
        talks: list[int] = []

        def hook(state, bucket):  # its annotations would be checked
            talks.append(bucket.index())
            done: Any = torch.futures.Future()
            done.set_result(bucket.buffer())
            return done

        model.register_comm_hook(None, hook)
        parted = changed(CONFIG, accumulate=4)
        loop.train_step(model, batch, torch.optim.SGD(network.parameters(), lr=0.1), parted)
        assert talks and len(talks) == len(set(talks)), "each bucket once a step"
        loop.train_step(alone, batch, torch.optim.SGD(alone.parameters(), lr=0.1), parted)
        for a, b in zip(network.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_a_gpu_that_cannot_compute_is_a_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch counts GPUs that it has no kernels for as available; the first operation tells."""

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(torch, "zeros", fails)
    with pytest.raises(UserError, match=r"cuda:0 cannot be used .*on the device\)\n.*\n.*--device cpu"):
        loop.choose_device(name)
    assert loop.choose_device("cpu").type == "cpu"


def test_an_overflow_does_not_spoil_the_log(tmp_path: Path) -> None:
    """Infinity is no JSON, and one such step would hide the gradients of the other 49."""
    log = RunLog(tmp_path, CONFIG, 0)
    for number, norm in enumerate((float("inf"), 2.0, float("nan"), 4.0), 1):
        log.step(Progress(step=number), {"class": 1.0}, norm, 0.1, 0.0)
    log.close()
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    record = json.loads(line, parse_constant=pytest.fail)
    assert record["gradient"] == 3.0 and record["class"] == 1.0


def test_a_node_without_the_run_folder_does_not_start_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first process goes on with a checkpoint, one that does not find it must not train from step 0."""
    monkeypatch.setattr(loop, "from_first", lambda value: True)
    with pytest.raises(UserError, match=r"last\.pt: no such file"):
        loop.train(CONFIG, tmp_path / "run", resume=True)
