"""Imports point one way, and the front door opens fast and without torch."""

from __future__ import annotations

import ast
import functools
import os
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
LAYERS = (
    {"arrays", "redact", "timing", "clocks", "provenance", "devices"},
    {"errors", "progress", "types"},
    {"boxes", "boxes3d", "doubt", "files", "image_pool", "lock"},
    {"classes"},
    {"source_options"},
    {"access", "formats"},
    {"cameras"},
    {"familiarity"},
    {"model", "engine", "anonymize", "video", "wireframe"},
    {"overlay", "bags"},
    {"backends", "sources", "sinks", "trackers", "ranging"},
    {"detector"},
    {"runtime", "evaluation"},
    {"trust"},
    {"labelling"},
    {"reports", "fleet"},
    {"cli"},
)
"""Inside `perception`, from the bottom up: a room imports itself and the layers below its own."""


def modules() -> list[Path]:
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Dotted names that a file imports, without those that serve the type checker alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    used = {name.split(".")[0] for name in imports(path)}
    room = path.relative_to(ROOT).parts[0]
    up = used & set(ROOMS) - ALLOWED[room]
    assert not up, f"{path.relative_to(ROOT)} reaches up to {up}"
    if room in ("perception", "datasets"):
        assert not used & {"torch", "torchvision"}, f"{path.relative_to(ROOT)} imports torch"
    if room == "perception" and path.name not in ("draw.py", "page.py"):  # the two writers of a report's page
        assert not used & {"matplotlib", "jinja2"}, f"{path.relative_to(ROOT)} imports what only pages need"


def room_inside(path: Path) -> str:
    """`perception/runtime/pipeline.py` → runtime, `perception/boxes.py` → boxes."""
    return path.relative_to(ROOT).with_suffix("").parts[1]


@pytest.mark.parametrize(
    "path", [p for p in modules() if p.is_relative_to(ROOT / "perception")], ids=lambda p: str(p.relative_to(ROOT))
)
def test_rooms_of_the_runtime_do_not_look_up(path: Path) -> None:
    if (room := room_inside(path)) == "__init__":  # the public names, imported on first use
        return
    level = next((i for i, rooms in enumerate(LAYERS) if room in rooms), None)
    assert level is not None, f"{path.relative_to(ROOT)}: give '{room}' a layer in LAYERS"
    used = {name.split(".")[1] for name in imports(path) if name.startswith("perception.")}
    allowed = set().union(*LAYERS[:level]) | {room, "__version__"}
    assert used <= allowed, f"{path.relative_to(ROOT)} reaches up or across to {used - allowed}"


def test_no_circles() -> None:
    graph = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in modules()}
    # `from package import sibling` names the package too; that is no arrow back
    edges = {
        name: {other for other in imports(path) & set(graph) if not f"{name}.".startswith(f"{other}.")}
        for name, path in graph.items()
    }
    state: dict[str, int] = {}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        state[name] = 1
        for other in sorted(edges[name]):
            assert state.get(other) != 1, "a circle of imports: " + " → ".join((*trail, name, other))
            if other not in state:
                visit(other, (*trail, name))
        state[name] = 2

    for name in graph:
        if name not in state:
            visit(name, ())


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["run", "--help-all"]], ids=" ".join)
def test_help_answers_without_anything_heavy(words: list[str]) -> None:
    code = (
        "import atexit, sys; heavy = {'torch', 'cv2', 'numpy', 'onnxruntime', 'av', 'scipy'};"
        "atexit.register(lambda: print('heavy:', *heavy & set(sys.modules)));"
        f"from perception.cli.main import main; sys.exit(main({words}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"usage: perception {words[0] if len(words) > 1 else 'COMMAND'}" in done.stdout
    assert done.stdout.splitlines()[-1].split() == ["heavy:"]


def test_a_run_tells_openblas_to_start_no_threads_before_numpy_loads_it() -> None:
    """OpenBLAS would start one a core, and each would spin through the start of the run."""
    code = (
        "import os, sys\nfrom perception.cli.run import main\nassert 'numpy' not in sys.modules\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'numpy': print('then', os.environ.get('OPENBLAS_NUM_THREADS'))\n"
        "sys.meta_path.insert(0, Finder())\n"
        "try: main(['no-such-file.mp4'])\nexcept Exception as error: print(error)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[0] == "then 1"
    assert "no such file" in done.stdout


def test_every_command_is_where_the_table_says() -> None:
    from perception.cli.main import COMMANDS

    for name, (place, extra, text) in COMMANDS.items():
        module, _, function = place.partition(":")
        tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8"))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name
        assert text, name
        assert module.split(".")[0] != "tools", f"{name}: nothing reaches up to tools"
        assert not extra or f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text(encoding="utf-8"), name


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
