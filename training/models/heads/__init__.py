"""One file a head, see `training.models.head`. A file that is here can be named in `ModelConfig.heads`."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from types import ModuleType


def head_modules() -> dict[str, ModuleType]:
    """Return the modules of this package by name, in alphabetical order."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: import_module(f"{__name__}.{name}") for name in names}
