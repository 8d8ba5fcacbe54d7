"""Which modules may import which, checked in the package's syntax trees."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "deepfovea"

LAYER = {
    "config": 0,
    "wording": 0,
    "io": 0,
    "io.outputs": 1,
    "runtime.allocator": 0,
    "runtime.device": 1,
    "video": 10,
    "gaze": 10,
    "images": 10,
    "resample": 10,
    "flow": 11,
    "fovea": 11,
    "fill": 12,
    "toy_renderer": 0,
    "motion": 13,
    "motion_check": 13,
    "io.decoded_cache": 20,
    "generators.unet.deform_numba": 0,
    "generators.unet.deform": 1,
    "generators.unet.blocks": 2,
    "generators": 20,
    "losses": 15,
    "metrics": 16,
    "foreign": 1,
    "checkpoint": 30,
    "convert": 30,
    "reds": 30,
    "runtime.onnx": 1,
    "runtime.openvino": 0,
    "runtime": 40,
    "runtime.bench": 41,
    "arrays": 11,
    "sampling_record": 1,
    "reconstructor": 45,
    "files_to_files": 46,
    "training": 50,
    "reds.validate": 60,
    "evaluate": 60,
    "demo": 70,
    "viewer": 70,
    "cli": 80,
    "api": 70,
    "__init__": 80,
    "__main__": 90,
}
"""A module may import from lower layers, and modules of its own folder that share its key."""

STRANGERS = {
    ("generators", "losses"),
    ("generators", "metrics"),
    ("losses", "generators"),
    ("metrics", "generators"),
}
"""The first must not import the second, whatever their layers: networks and judges are apart."""

OWNERS: dict[str, set[str]] = {
    "av": {"video"},
    "torch.utils.tensorboard": {"training.logging"},
    "accelerate": {"training.train", "evaluate.run"},
    "matplotlib": {"evaluate.plots", "evaluate.contact_sheets"},
    "pyfvvdp": {"metrics.jod"},
    "lpips": {"metrics.lpips"},
    "pycvvdp": {"metrics.cvvdp"},
    "onnx": {"runtime.onnx", "runtime.export"},
    "onnxruntime": {"runtime.onnx", "runtime.export"},
    "openvino": {"runtime.openvino"},
    "torchvision.ops": {"generators.unet.deform"},
    "numba": {"generators.unet.deform_numba"},
    "torchvision.models": {"losses", "metrics.lpips"},
    "starlette": {"viewer.server"},
    "uvicorn": {"viewer.server"},
    "OpenEXR": {"motion"},
    "pylsl": {"gaze.live.lsl"},
    "pupil_labs": {"gaze.live.pupil"},
    "pythonosc": {"gaze.live.datagram"},
    "scipy": {"evaluate.inpaint"},
    "skimage": {"evaluate.inpaint"},
    "websockets": set(),
    "skvideo": set(),
}
"""Third-party packages that only the named modules may import."""


def module_name(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts)


def layer_key(name: str) -> str:
    """The longest part of the name that has a layer."""
    parts = name.split(".")
    prefixes = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in LAYER), parts[0])


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
        targets = sorted(imported(ast.parse(path.read_text(encoding="utf-8")), name))
        for package, owners in OWNERS.items():
            strangers = [t for t in targets if t == package or t.startswith(package + ".")]
            if strangers and not owners & {name, name.split(".")[0]}:
                found.append(f"{name} imports {strangers[0]}, which belongs to {owners}")
        for target in targets:
            inner = target.removeprefix("deepfovea.")
            if inner == target or (inner not in modules and f"{inner}.__init__" not in modules):
                continue
            other = layer_key(inner)
            room, other_room = name.split(".")[0], inner.split(".")[0]
            same_key = mine == other and "." in name
            if (LAYER[other] >= LAYER[mine] and not same_key) or (room, other_room) in STRANGERS:
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
        ("fovea.py", "from .reconstructor import Reconstructor"),
        ("gaze.py", "from deepfovea import cli"),
        ("files_to_files.py", "import av"),
        ("io/prefetch.py", "from ..video import VideoReader"),
        ("io/atomic.py", "from .decoded_cache import Source"),
        ("resample.py", "from .fill import pull_push"),
        ("losses/terms.py", "from ..generators.stream.net import StreamNet"),
        ("metrics/pixel.py", "from ..generators.unet.blocks import RecurrentBlock"),
        ("generators/stream/net.py", "from ...losses.robust import general_robust_loss"),
        ("losses/robust.py", "from ..metrics.pixel import psnr"),
        ("reds/items.py", "from ..training.dataset import ClipDataset"),
        ("runtime/engine.py", "from ..reconstructor import Reconstructor"),
        ("generators/stream/net.py", "from torchvision.ops import deform_conv2d"),
    ],
)
def test_a_planted_violation_is_caught(tmp_path, file, line):
    for path in PACKAGE.rglob("*.py"):
        copy = tmp_path / path.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / file).write_text(line + "\n", encoding="utf-8")
    assert len(violations(tmp_path)) == 1


def text_without_encoding(tree: ast.AST) -> list[int]:
    """The lines of calls that read or write text with the encoding of the locale."""
    lines = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        function, values = node.func, [getattr(argument, "value", "") for argument in node.args]
        method = isinstance(function, ast.Attribute)
        name = function.attr if method else getattr(function, "id", "")
        is_text = method and name in ("read_text", "write_text")
        if name == "open" and not method:
            is_text = "b" not in str(values[1] if len(values) > 1 else "")
        elif name == "open":
            mode = str(values[0]) if values else ""
            is_text = not (keywords or values) or set("rwaxt+") >= set(mode) > set()
        elif name in ("NamedTemporaryFile", "TemporaryFile"):
            is_text = bool(values) and "b" not in str(values[0])
        is_text |= bool({"text", "universal_newlines"} & set(keywords))
        if is_text and "encoding" not in keywords:
            lines.append(node.lineno)
    return lines


def test_text_is_utf_8_whatever_the_locale():
    root = PACKAGE.parents[1]
    found = [
        f"{path.relative_to(root)}:{line}"
        for folder in ("src", "tests", "benchmarks", "docs", "research", "soak")
        for path in (root / folder).rglob("*.py")
        for line in text_without_encoding(ast.parse(path.read_bytes()))
    ]
    assert found == []


@pytest.mark.parametrize(
    "call",
    [
        "path.read_text()",
        "path.write_text(words)",
        "open(path)",
        "open(path, 'w')",
        "path.open()",
        "path.open('a')",
        "tempfile.NamedTemporaryFile('w')",
        "subprocess.run(words, text=True)",
    ],
)
def test_planted_text_by_the_locale_is_caught(call):
    assert text_without_encoding(ast.parse(call)) == [1]
    comma = "" if call.endswith("()") else ", "
    told = f"{call[:-1]}{comma}encoding='utf-8')"
    assert text_without_encoding(ast.parse(told)) == []
    assert (
        text_without_encoding(ast.parse("path.open('rb'); open(path, 'wb'); av.open(path)")) == []
    )
