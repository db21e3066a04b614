"""Training images and their batches.

Image number n of a run depends on the seed and on n alone. A resumed run therefore sees the same images as an
uninterrupted one, and several processes together see the same images as one process.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datasets.labels import numbering
from datasets.sample import Sample
from perception.errors import UserError
from perception.progress import byte_count
from training.augment.copy_paste import CutoutBank, frames_in_turn
from training.augment.pipeline import mosaic_image, training_image, without_strong
from training.config import TrainConfig
from training.distributed import rank, world
from training.example import TrainingImage, of_classes
from training.models.heads.detection import DetectionTargets
from training.sets import Subset, TrainingSets

log = logging.getLogger("training.data")

CACHE_BYTES = 1_500_000_000
"""Memory for decoded images in each loader process, where there is no disk cache."""
LOADER_TIMEOUT_S = 600.0
"""Time without a batch after which the loader processes have failed, seconds."""
TURNED = 0.5
"""Share of a synthetic street's vehicles and people that face any direction; real streets show few oblique views."""
NEIGHBOURS = 20
"""Frames after an unreadable one that are tried in its place."""


class ImageStream(Dataset):
    """Map-style dataset that returns image number n of a run, for any n."""

    def __init__(self, sets: TrainingSets | None, config: TrainConfig) -> None:
        self.sets, self.config = sets, config
        self._class_names = numbering(config.model.class_infos)
        self._cache: dict[tuple[str, int], Sample] = {}
        self._cached_bytes = 0
        self._streets: dict[int, Sample] = {}
        self._cutouts: CutoutBank | None = None
        self._names: list[str] = []
        self._broken: dict[tuple[str, int], str] = {}
        self._news: list[str] = []

    def __getitem__(self, n: int) -> TrainingImage:
        return of_classes(self._example(n), self.config.model.class_names, self._class_names)

    def _example(self, n: int) -> TrainingImage:
        cv2.setNumThreads(1)
        config = self.config
        rng = np.random.default_rng((config.schedule.seed, n))
        augment, size_hw = config.augment, config.data.crop_hw
        if n >= (1 - augment.off_for_last) * config.schedule.steps * config.schedule.batch:
            augment = without_strong(augment)
        bank = self._bank() if augment.copy_paste else None
        if self.sets is None or rng.random() < config.data.synthetic_share:
            seed = int(rng.integers(config.data.streets or 2**31))
            self._names.append(f"synthetic street {seed}")
            return training_image(self._street(seed), size_hw, rng, augment, bank)
        if rng.random() < augment.mosaic:
            return mosaic_image([self._real(self.sets, rng) for _ in range(4)], size_hw, rng, augment, bank)
        return training_image(self._real(self.sets, rng), size_hw, rng, augment, bank)

    def _real(self, sets: TrainingSets, rng: np.random.Generator) -> Sample:
        weights = np.array([subset.weight for subset in sets.train])
        subset = sets.train[rng.choice(len(weights), p=weights / weights.sum())]
        sample = self._read(subset, int(rng.integers(len(subset.indices))))
        self._names.append(f"{subset.name}/{sample.name}")
        return sample

    def _street(self, seed: int) -> Sample:
        """Return a synthetic street; it is kept where `streets` limits their number, because rendering is slow."""
        if seed not in self._streets:
            street = self._numbered(_synthetic(seed))
            if not self.config.data.streets:
                return street
            self._streets[seed] = street
        return self._streets[seed]

    def _bank(self) -> CutoutBank | None:
        """Return the objects to paste, the same for every process. They are collected at the first call."""
        if self.sets is None:
            return None
        if self._cutouts is None:
            subsets = [s for s in self.sets.train if self._read(s, 0).boxes_xyxy is not None]
            sizes = [len(s.indices) for s in subsets]
            frames = frames_in_turn(sizes, lambda s, i: self._read(subsets[s], i), self.config.schedule.seed)
            self._cutouts = CutoutBank(frames)
        return self._cutouts

    def _read(self, subset: Subset, place: int) -> Sample:
        """Return the sample at a place of a subset, or the next readable one.

        Raises:
            UserError: `NEIGHBOURS` samples in a row are unreadable.
        """
        problem: UserError | None = None
        for step in range(min(NEIGHBOURS, len(subset.indices))):
            i = subset.indices[(place + step) % len(subset.indices)]
            if (key := (subset.name, i)) in self._broken:
                continue
            try:
                return (
                    self._cache[key] if key in self._cache else self._remember(key, self._numbered(subset.source[i]))
                )
            except UserError as error:
                problem = error
                self._broken[key] = error.found
                self._news.append(error.found)
        raise problem or UserError(
            f"{subset.name}: {NEIGHBOURS} unreadable samples in a row", "complete images and labels"
        )

    def _numbered(self, sample: Sample) -> Sample:
        """Return a sample with the class ids of the run; classes that it does not know are not labelled in it."""
        if not self.config.data.soft_labels:
            sample = replace(sample, confidences=None)
        if sample.class_names == self._class_names:
            return sample
        more = len(self._class_names) - len(sample.class_names)
        assert self._class_names[: len(sample.class_names)] == sample.class_names
        labelled = sample.labelled_classes + (False,) * more
        return replace(sample, class_names=self._class_names, labelled_classes=labelled)

    def _remember(self, key: tuple[str, int], sample: Sample) -> Sample:
        if self.config.data.cache is None and self._cached_bytes < CACHE_BYTES:
            self._cache[key] = sample
            self._cached_bytes += sample.image_bgr.nbytes
        return sample

    def collate(self, examples: list[TrainingImage]) -> Batch:
        """Collate images that this stream has just returned, with their names and the unreadable samples."""
        batch = replace(collate(examples), names=tuple(self._names), broken=tuple(self._news))
        self._names.clear()
        self._news.clear()
        return batch


def _synthetic(seed: int) -> Sample:
    from datasets.synthetic_street import street_sample

    return street_sample(seed, turned=TURNED)


@dataclass(frozen=True)
class Batch:
    """Images and targets of one step."""

    images: Tensor
    """(B, h, w, 3) uint8 BGR."""
    targets: DetectionTargets
    masks: Tensor
    """(B, 3, h/4, w/4) uint8."""

    names: tuple[str, ...] = ()
    """Samples that the images were made from; a mosaic has four."""
    broken: tuple[str, ...] = ()
    """Errors of unreadable samples that were skipped. A loader process reports each once."""

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return self.map(lambda t: t.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Return the batch in pinned memory. The loader calls this, so that copies to a GPU are asynchronous."""
        return self.map(Tensor.pin_memory)

    def parts(self, count: int) -> list[Batch]:
        """Return the batch divided into equal parts."""
        size = len(self.images) // count
        return [self.map(lambda t, k=k: t[k * size : (k + 1) * size]) for k in range(count)]  # type: ignore[misc]

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """Return the batch with a function applied to every tensor."""
        targets = {f.name: function(getattr(self.targets, f.name)) for f in fields(self.targets)}
        return replace(
            self,
            images=function(self.images),
            targets=DetectionTargets(**targets),
            masks=function(self.masks),
        )


def collate(examples: list[TrainingImage]) -> Batch:
    """Stack images into a batch. Objects are padded with class -1, ignore regions with class -2."""

    def pad(arrays: list[np.ndarray], fill: float) -> Tensor:
        longest = max(len(a) for a in arrays)
        out = np.full((len(arrays), longest, *arrays[0].shape[1:]), fill, arrays[0].dtype)
        for row, a in zip(out, arrays, strict=True):
            row[: len(a)] = a
        return torch.from_numpy(out)

    return Batch(
        images=torch.from_numpy(np.stack([p.image_bgr for p in examples])),
        targets=DetectionTargets(
            boxes_xyxy=pad([p.boxes_xyxy for p in examples], 0.0),
            class_ids=pad([p.class_ids for p in examples], -1),
            ignore_xyxy=pad([p.ignore_xyxy for p in examples], 0.0),
            ignore_class_ids=pad([p.ignore_class_ids for p in examples], -2),
            labelled=torch.tensor([p.labelled for p in examples]),
            depths=pad([p.depths for p in examples], np.nan),
            confidences=pad([p.confidences for p in examples], 0.0),
            cuboids=pad([p.cuboids for p in examples], np.nan),
        ),
        masks=torch.from_numpy(np.stack([p.masks for p in examples])),
    )


def batches(sets: TrainingSets | None, config: TrainConfig, first_step: int) -> Iterator[Batch]:
    """Iterate over this process's part of the batches, from `first_step` to the end of the run.

    Args:
        sets: training sets; None for the synthetic street alone.
        config: config of the run.
        first_step: step of the first batch.

    Raises:
        UserError: too many samples in a row are unreadable, or a loader process died or sent nothing for
            `LOADER_TIMEOUT_S`.
    """
    share = config.schedule.batch // world()
    first = rank() * share
    numbers = [
        n for step in range(first_step, config.schedule.steps) for n in step_numbers(step, config, first, share)
    ]
    arguments: dict[str, Any] = {}
    if config.data.workers:
        arguments = {
            "persistent_workers": True,
            "prefetch_factor": 4,
            "worker_init_fn": _one_thread,
            "timeout": LOADER_TIMEOUT_S,
        }
    stream = ImageStream(sets, config)
    loader = DataLoader(
        stream,
        batch_size=share,
        sampler=numbers,
        num_workers=config.data.workers,
        collate_fn=stream.collate,
        pin_memory=config.hardware.device != "cpu" and torch.cuda.is_available(),
        **arguments,
    )
    threads = cv2.getNumThreads()
    # a forked process hangs or dies when it ends the pool of OpenCV threads that it inherited without the threads
    cv2.setNumThreads(1)
    try:
        images = iter(loader)
        cv2.setNumThreads(threads)
        yield from images
    except UserError as error:  # the text of one from a loader process includes a traceback
        raise UserError(str(error).rsplit("UserError: ", 1)[-1].strip()) from None
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        raise UserError(
            f"a loader process died or sent nothing ({str(error).splitlines()[0]}{_shared_memory()})",
            "memory for --data.workers processes, each with decoded images, and room for batches in /dev/shm",
            "--resume with fewer --data.workers, or --data.cache FOLDER; in Docker: --shm-size=2g or --ipc=host",
        ) from None


def _shared_memory() -> str:
    """Describe the shared memory through which loader processes send batches; empty where there is none."""
    try:
        size, _, free = shutil.disk_usage("/dev/shm")
    except OSError:
        return ""
    return f"; {byte_count(free)} of {byte_count(size)} free in /dev/shm"


def step_numbers(step: int, config: TrainConfig, first: int, share: int) -> range:
    """Return the numbers of the images that one process makes for a step."""
    return range(step * config.schedule.batch + first, step * config.schedule.batch + first + share)


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
