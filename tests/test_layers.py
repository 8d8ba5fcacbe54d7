"""Who may import whom, held by the syntax trees of the package."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "deepfovea"

LAYER = {
    "config": 0,
    "files": 0,
    "video": 1,
    "gaze": 1,
    "fovea": 1,
    "fill": 1,
    "generators.taps": 0,
    "generators.deform": 0,
    "generators.blocks": 1,
    "generators": 2,
    "checkpoint": 3,
    "objective": 3,
    "pictures": 1,
    "pipeline": 0,
    "clips": 2,
    "export": 4,
    "engine": 5,
    "reconstruct": 4,
    "training": 5,
    "evaluate": 6,
    "validate": 6,
    "bench": 6,
    "demo": 7,
    "viewer": 7,
    "cli": 8,
    "__init__": 8,
    "__main__": 9,
}
"""A module may import from lower layers, and inside its own folder."""

SIBLINGS = {("fovea", "gaze")}
"""The pairs of one layer of which the first may import the second."""

OWNERS: dict[str, set[str]] = {
    "av": {"video"},
    "torch.utils.tensorboard": {"training.log"},
    "accelerate": {"training.train", "evaluate.run"},
    "matplotlib": {"evaluate.plots", "evaluate.sheets"},
    "pyfvvdp": {"objective.jod"},
    "lpips": {"objective.lpips"},
    "onnx": {"engine", "export"},
    "onnxruntime": {"engine", "export"},
    "openvino": {"engine", "export"},
    "torchvision.ops": {"generators.deform"},
    "numba": {"generators.taps"},
    "torchvision.models": {"objective"},
    "starlette": {"viewer.server"},
    "uvicorn": {"viewer.server"},
    "websockets": set(),
    "skvideo": set(),
}
"""Third-party packages that only the named modules may import."""


def module_name(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts)


def layer_key(name: str) -> str:
    return name if name in LAYER else name.split(".")[0]


def imported(tree: ast.AST, name: str) -> set[str]:
    found: set[str] = set()
    parents = name.split(".")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(["deepfovea", *parents[: len(parents) - node.level], base]).strip(
                    "."
                )
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
    return found


def violations(root: Path) -> list[str]:
    modules = {module_name(path, root) for path in root.rglob("*.py")}
    found = []
    for path in sorted(root.rglob("*.py")):
        name = module_name(path, root)
        mine = layer_key(name)
        targets = sorted(imported(ast.parse(path.read_text()), name))
        for package, owners in OWNERS.items():
            strangers = [t for t in targets if t == package or t.startswith(package + ".")]
            if strangers and not owners & {name, name.split(".")[0]}:
                found.append(f"{name} imports {strangers[0]}, which belongs to {owners}")
        for target in targets:
            inner = target.removeprefix("deepfovea.")
            if inner == target or (inner not in modules and f"{inner}.__init__" not in modules):
                continue
            other = layer_key(inner)
            same_folder = name.split(".")[0] == inner.split(".")[0] and "." in name
            if LAYER[other] >= LAYER[mine] and not same_folder and (mine, other) not in SIBLINGS:
                found.append(f"{name} imports {inner}")
    return found


def test_import_rules_hold():
    assert violations(PACKAGE) == []


def test_every_module_has_a_layer():
    for path in PACKAGE.rglob("*.py"):
        assert layer_key(module_name(path, PACKAGE)) in LAYER


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("fovea.py", "from .reconstruct import Reconstructor"),
        ("gaze.py", "from deepfovea import cli"),
        ("reconstruct.py", "import av"),
        ("generators/stream.py", "from torchvision.ops import deform_conv2d"),
    ],
)
def test_a_planted_violation_is_caught(tmp_path, file, line):
    for path in PACKAGE.rglob("*.py"):
        copy = tmp_path / path.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    (tmp_path / file).write_text(line + "\n")
    assert len(violations(tmp_path)) == 1
