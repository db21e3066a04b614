"""Imports point one way, and the front door opens fast and without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("perception", "datasets", "training", "export", "tools")
ALLOWED = {
    "perception": {"perception"},
    "datasets": {"perception", "datasets"},
    "training": {"perception", "datasets", "training"},
    "export": {"perception", "datasets", "training", "export"},
    "tools": set(ROOMS),
}
INSIDE = {
    # formats, camera, boxes, types know nothing of what is built on them
    "perception/types.py": set(),
    "perception/errors.py": set(),
    "perception/boxes.py": set(),
    "perception/camera.py": {"types", "errors"},
    "perception/formats": {"types", "errors", "formats"},
    "perception/backends": {"types", "errors", "model", "engine", "backends"},
    "perception/lsap.py": {"types"},
    "perception/evaluation": {"types", "errors", "boxes", "camera", "lsap", "formats", "evaluation"},
    "perception/trackers": {"types", "errors", "boxes", "camera", "lsap", "trackers"},
}


def modules() -> list[Path]:
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Dotted names that a file imports, without those that serve the type checker alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    in_cli = path.is_relative_to(ROOT / "perception/cli")
    used = {name.split(".")[0] for name in imports(path, top_level_only=in_cli)} & set(ROOMS)
    assert used <= ALLOWED[room], f"{path.relative_to(ROOT)} reaches up to {used - ALLOWED[room]}"
    if room in ("perception", "datasets"):
        heavy = {name.split(".")[0] for name in imports(path, top_level_only=in_cli)}
        assert not heavy & {"torch", "torchvision"}, f"{path.relative_to(ROOT)} imports torch"


@pytest.mark.parametrize("place", INSIDE)
def test_lower_rooms_of_the_runtime_do_not_look_up(place: str) -> None:
    where = ROOT / place
    for path in [where] if where.is_file() else sorted(where.rglob("*.py")):
        used = {name.split(".")[1] for name in imports(path) if name.startswith("perception.")}
        assert used <= INSIDE[place] | {"__version__"}, (
            f"{path.relative_to(ROOT)} reaches up to {used - INSIDE[place]}"
        )


def test_help_answers_without_anything_heavy() -> None:
    code = (
        "import sys; from perception.cli.main import main; code = main(['--help']);"
        "heavy = {'torch', 'cv2', 'numpy', 'onnxruntime', 'av', 'scipy'} & set(sys.modules);"
        "assert not heavy, heavy; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: perception COMMAND" in done.stdout


def test_every_command_has_its_file_and_help() -> None:
    from perception.cli.main import COMMANDS

    for name in COMMANDS:
        assert (ROOT / "perception/cli" / f"{name}.py").is_file(), name


def test_run_help_does_not_import_torch() -> None:
    code = (
        "import sys\nfrom perception.cli.main import main\ntry: main(['run', '--help'])\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'datasets' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_agpl_and_no_vendored_weights() -> None:
    for path in modules():
        roots = {name.split(".")[0] for name in imports(path)}
        assert not roots & {"ultralytics", "boxmot"}, path


def test_torch_load_reads_weights_only() -> None:
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                flags = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert flags.get("weights_only") == "True", f"{path}:{node.lineno}"
