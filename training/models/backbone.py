"""Any torchvision classification network as a backbone: features at strides 4, 8, 16 and 32."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision import models

from perception.errors import UserError
from training.tensor_file import read_tensor_file

STRIDES = (4, 8, 16, 32)


def _trunk(model: nn.Module, name: str) -> list[nn.Module]:
    """Return the network's blocks in execution order, without the classifier."""
    if hasattr(model, "features"):  # MobileNet, EfficientNet, ConvNeXt, VGG
        blocks = list(model.features.children())
        last = blocks[-1]
        # MobileNets end in a 1×1 expansion that serves the classifier alone
        if isinstance(last, nn.Sequential) and isinstance(last[0], nn.Conv2d) and last[0].kernel_size == (1, 1):
            blocks = blocks[:-1]
        return blocks
    if hasattr(model, "trunk_output"):  # RegNet
        return [model.stem, *model.trunk_output.children()]
    if hasattr(model, "layer4"):  # ResNet
        stem = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool)
        return [stem, model.layer1, model.layer2, model.layer3, model.layer4]
    raise UserError(
        f"backbone '{name}' has an unsupported layout",
        "a torchvision MobileNet, EfficientNet, RegNet, ResNet, ConvNeXt or VGG",
        "--model.backbone mobilenet_v3_small",
    )


def _load(model: nn.Module, blocks: list[nn.Module], name: str, path: Path) -> str:
    """Copy every tensor whose name and shape agree into the network; return a summary."""
    do = "--model.backbone NAME, or a file of that network"
    theirs = read_tensor_file(path, f"a state dict of torchvision's {name}", do)
    ours = model.state_dict(keep_vars=True)
    theirs = theirs if isinstance(theirs, dict) else {}
    fitting = {
        key: value
        for key, value in theirs.items()
        if key in ours and isinstance(value, Tensor) and value.shape == ours[key].shape
    }
    # the classifier, and a last expansion that only the classifier uses, are not part of the backbone
    kept = {id(tensor) for block in blocks for tensor in block.state_dict(keep_vars=True).values()}
    needed = {key for key, tensor in ours.items() if id(tensor) in kept}
    taken = needed & fitting.keys()
    if not any(ours[key].ndim > 1 for key in taken):
        example = next((key for key, tensor in ours.items() if tensor.ndim > 1), "")
        found = ", ".join(map(str, list(theirs)[:3])) or "no names"
        raise UserError(
            f"{path}: no weight fits backbone {name} (it holds {found})",
            f"tensors with torchvision's names and shapes, as {example} {tuple(ours[example].shape)}",
            do,
        )
    model.load_state_dict(fitting, strict=False)
    return (
        f"{len(taken)} of {len(needed)} tensors of {name} from {path}"
        f"; missing: {_some(needed - taken)}; not used: {_some(set(map(str, theirs)) - taken)}"
    )


def _some(names: set[str], shown: int = 4) -> str:
    """Return a few names and the number of the others, or "none"."""
    first = sorted(names)[:shown]
    return (", ".join(first) or "none") + (f" and {len(names) - shown} more" if len(names) > shown else "")


class Backbone(nn.Module):
    """A torchvision network cut after the last block of each stride.

    Args:
        name: name in torchvision, for example `mobilenet_v3_small`.
        pretrained: load torchvision's ImageNet weights, which are downloaded once.
        weights: load this state dict with torchvision's names instead of a download.

    Raises:
        UserError: the name is unknown, the download failed, or no tensor of the file matches.
    """

    loaded = ""
    """Summary of the tensors that were loaded from `weights`."""

    def __init__(self, name: str, pretrained: bool = False, weights: Path | None = None) -> None:
        super().__init__()
        if name not in models.list_models(models):
            import difflib

            near = difflib.get_close_matches(name, models.list_models(models), n=3)
            raise UserError(
                f"unknown backbone '{name}'",
                "a torchvision model",
                f"--model.backbone {(near or ['mobilenet_v3_small'])[0]}",
            )
        try:
            model = models.get_model(name, weights="DEFAULT" if pretrained and weights is None else None)
        except OSError as error:  # includes URLError
            raise UserError(
                f"the ImageNet weights of {name} cannot be downloaded ({error})",
                "network access to torchvision's weights, or a copy in TORCH_HOME",
                "--model.backbone-weights FILE takes a local copy, --model.no-pretrained starts from random weights",
            ) from None
        blocks = _trunk(model, name)
        if weights is not None:
            self.loaded = _load(model, blocks, name, weights)
        stages: dict[int, list[nn.Module]] = {}
        self.channels: tuple[int, ...] = ()
        channels: dict[int, int] = {}
        was_training = [block.training for block in blocks]
        with torch.no_grad():
            x = torch.zeros(1, 3, 64, 64)
            for block in blocks:
                x = block.eval()(x)
                stride = 64 // x.shape[-1]
                # strides 1 and 2 belong to the stage that ends at 4
                stage = max(stride, STRIDES[0])
                stages.setdefault(stage, []).append(block)
                channels[stage] = x.shape[1]
        for block, training in zip(blocks, was_training, strict=True):
            block.train(training)
        if missing := [stride for stride in STRIDES if stride not in stages]:
            raise UserError(
                f"backbone '{name}' has no maps at stride {missing[0]}",
                "maps at strides 4, 8, 16 and 32, as MobileNet, EfficientNet, RegNet, ResNet, ConvNeXt and VGG have",
                "--model.backbone mobilenet_v3_small",
            )
        self.stages = nn.ModuleList(nn.Sequential(*stages[stride]) for stride in STRIDES)
        self.channels = tuple(channels[stride] for stride in STRIDES)
        named = {id(tensor): key for key, tensor in model.state_dict(keep_vars=True).items()}
        self._their_names = {k: named[id(tensor)] for k, tensor in self.state_dict(keep_vars=True).items()}

    def torchvision_state(self) -> dict[str, Tensor]:
        """Return the tensors under the names that torchvision's network gives them, as `weights` takes them."""
        return {self._their_names[name]: tensor for name, tensor in self.state_dict().items()}

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return four maps (B, C, H/s, W/s), s = 4, 8, 16, 32, of normalised images (B, 3, H, W)."""
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features
