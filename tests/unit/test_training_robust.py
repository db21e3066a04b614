"""Training against disturbed and hostile images: bounds hold, labels stay, and off means exactly as without it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tensorboard")

from training_runs import changed, kitti, tiny  # noqa: E402

from perception.errors import UserError  # noqa: E402
from training import loop  # noqa: E402
from training.adversarial import AdversarialConfig, harden  # noqa: E402
from training.augment import mixing  # noqa: E402
from training.augment.pipeline import vary  # noqa: E402
from training.checkpoint import load_checkpoint  # noqa: E402
from training.config import AugmentConfig  # noqa: E402
from training.data import Batch, ImageStream  # noqa: E402
from training.models.network import ModelConfig, Network  # noqa: E402
from training.sets import find_sets  # noqa: E402

OFF = AugmentConfig(colour=0, exposure=0, haze=0, rain=0, night=0, blur=0, noise=0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_operations_do_what_their_names_say() -> None:
    image = np.array([[[10, 100, 200], [60, 150, 250]]], np.uint8)
    assert mixing.autocontrast(image, rng()).tolist() == [[[0, 0, 0], [255, 255, 255]]]
    assert set(np.unique(mixing.equalise(image, rng()))) == {0, 255}
    coarse = {tuple(np.unique(mixing.posterise(np.arange(256, dtype=np.uint8)[None], rng(s)))) for s in range(40)}
    assert sorted(map(len, coarse)) == [4, 8, 16, 32]  # two to five bits
    half = mixing.solarise(np.arange(256, dtype=np.uint8)[None], rng(1))[0]
    edge = int(np.argmax(half != np.arange(256)))
    assert edge >= 64 and (half[edge:] == 255 - np.arange(edge, 256)).all()
    flat = np.full((20, 30, 3), 77, np.uint8)
    assert (mixing.random_filter(flat, rng()) == 77).all()  # weights that sum to one
    wave = mixing.plane_wave(flat, rng()).astype(int) - 77
    assert 0 < np.abs(wave).max() <= mixing.MOST_WAVE


def test_a_mix_lies_between_the_image_and_its_changed_version() -> None:
    image = rng().integers(0, 256, (8, 12, 3)).astype(np.uint8)
    assert (mixing.augmix(image, rng(), [lambda x, _: x]) == image).all()
    white = [mixing.augmix(image, rng(s), [lambda x, _: np.full_like(x, 255)]) for s in range(8)]
    assert all((one >= image).all() for one in white) and len({one.tobytes() for one in white}) == 8
    # one share for all pixels: out = image + share · (255 − image), to half a grey level
    share = (white[0].astype(float) - image)[image < 55] / (255.0 - image)[image < 55]
    assert np.ptp(share) <= 1.01 / 200
    assert (mixing.augmix(image, rng(3)) == mixing.augmix(image, rng(3))).all()


def test_without_mixing_the_images_are_those_of_before() -> None:
    image = rng().integers(0, 256, (32, 48, 3)).astype(np.uint8)
    for seed in range(5):
        none, all_mixed = (vary(image, rng(seed), AugmentConfig(mix=share)) for share in (0.0, 1.0))
        assert (none != all_mixed).any()
    assert (vary(image, rng(), OFF) == image).all() and (vary(image, rng(), replace(OFF, mix=1.0)) != image).any()


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return Network(ModelConfig(pretrained=False, dropout=0.2)).train()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kitti(tmp_path_factory.mktemp("data"), frames=6, held_out=2, road=1)


@pytest.fixture(scope="module")
def batch(root: Path) -> Batch:
    config = tiny(root)
    stream = ImageStream(find_sets(config.data), config)
    return stream.collate([stream[n] for n in range(4)])


def loss(network: Network, batch: Batch) -> float:
    modes = network.training
    network.eval()
    with torch.no_grad():
        total = sum(float(value) for value in network.loss(network(batch.images), batch).values())
    network.train(modes)
    return total


@pytest.mark.parametrize("steps", [1, 3])
def test_an_attack_stays_within_epsilon_and_raises_the_loss(network: Network, batch: Batch, steps: int) -> None:
    state = {name: value.clone() for name, value in network.state_dict().items()}
    network.backbone.eval()  # as --frozen-norm leaves it
    hard = harden(network, batch, AdversarialConfig(epsilon=4, share=1.0, steps=steps), torch.float32)
    assert network.training and network.neck.training and not network.backbone.training
    network.train()
    assert hard.targets is batch.targets and hard.masks is batch.masks and hard.names == batch.names
    change = (hard.images - batch.images.float()).abs()
    assert 3 < float(change.max()) <= 4 and float(hard.images.min()) >= 0 and float(hard.images.max()) <= 255
    torch.manual_seed(1)
    start = batch.images.float() + (torch.rand(batch.images.shape) * 2 - 1) * 4
    assert loss(network, hard) > loss(network, replace(batch, images=start.clamp(0, 255))) > 0
    assert all((value == state[name]).all() for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


def test_the_share_is_attacked_and_the_rest_is_not(network: Network, batch: Batch) -> None:
    hard = harden(network, batch, AdversarialConfig(epsilon=2, share=0.5), torch.float32)
    same = (hard.images == batch.images).flatten(1).all(1)
    assert same.tolist() == [False, False, True, True]
    for config in (AdversarialConfig(), AdversarialConfig(epsilon=2, share=0.1)):
        assert harden(network, batch, config, torch.float32) is batch


def test_what_is_not_labelled_moves_no_pixel(network: Network, batch: Batch) -> None:
    """Without labels and masks the loss is constant: after the random start the gradient is zero."""
    blank = replace(
        batch,
        masks=torch.full_like(batch.masks, 255),
        targets=replace(
            batch.targets,
            labelled=torch.zeros_like(batch.targets.labelled),
            class_ids=torch.full_like(batch.targets.class_ids, -1),
        ),
    )
    torch.manual_seed(3)
    hard = harden(network, blank, AdversarialConfig(epsilon=4, share=1.0), torch.float32)
    torch.manual_seed(3)
    start = (batch.images.float() + (torch.rand(batch.images.shape) * 2 - 1) * 4).clamp(0, 255)
    assert torch.allclose(hard.images, start, atol=1e-4)


def test_a_run_with_both_repeats_to_the_bit(root: Path, tmp_path: Path) -> None:
    plain = changed(tiny(root), steps=1, evaluate_every=1)
    both = replace(
        plain, augment=replace(plain.augment, mix=1.0), adversarial=AdversarialConfig(epsilon=2, share=0.5)
    )
    one, other = (
        load_checkpoint(loop.train(both, tmp_path / name).with_name("last.pt"))["network"]
        for name in ("one", "other")
    )
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_strength_out_of_range_is_named() -> None:
    for wrong in ({"epsilon": -1.0}, {"share": 1.5}, {"steps": 0}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            AdversarialConfig(**wrong)  # type: ignore[arg-type]
