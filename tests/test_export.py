"""Claims about the ONNX file: it is the network, with its state by name."""

import itertools
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F

from deepfovea import cli
from deepfovea.checkpoint import save_model
from deepfovea.config import InputError
from deepfovea.fill import pull_push
from deepfovea.fovea import jitter_sequence
from deepfovea.generators.stream.net import StreamConfig, StreamNet
from deepfovea.generators.unet.blocks import ModulatedDeformConv
from deepfovea.generators.unet.net import RecurrentUNet, UNetConfig
from deepfovea.runtime import export
from deepfovea.runtime.export import TOLERANCE, TOLERANCE_HALF, Step, export_onnx
from deepfovea.runtime.onnx import fold_constants, record_sizes

SMALL = StreamConfig(
    channels=12,
    deep_channels=16,
    deepest_channels=16,
    hidden_channels=8,
    head_channels=4,
    motion_channels=(8, 8, 8),
)
SIX_AT_A_TIME = UNetConfig(6, False, True, (4,) * 5, (4,) * 4, (4, 18))
ANCESTOR = UNetConfig(1, True, False, (4,) * 5, (4,) * 5, ())
NAMES = Step(StreamNet(SMALL))
INPUTS, OUTPUTS = NAMES.input_names, NAMES.output_names
DOCUMENT = Path(__file__).parents[1] / "docs" / "export.md"


@pytest.fixture(scope="module")
def network():
    """A small network in which all parameters that start at zero have other values."""
    torch.manual_seed(0)
    net = StreamNet(SMALL).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    return net


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory):
    """The file of a network exported with open size, as the command line does it."""
    folder = tmp_path_factory.mktemp("export")
    save_model(folder / "tiny.safetensors", network, {})
    path = folder / "model.onnx"
    assert cli.main(["export", str(folder / "tiny.safetensors"), "-o", str(path)]) == 0
    # What is stored is float16: compare with the same rounding.
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(parameter.half())
    return path


def run(path, network, batch, height, width, frames=8, seed=1, told=()):
    """Largest difference of each output from torch, step by step from torch's state.

    The clip of an engine that is fed its own state drifts by rounding: it must stay within 60 dB.
    """
    torch.manual_seed(seed)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    texture = F.interpolate(torch.rand(batch, 3, height // 4, width // 4), scale_factor=4.0)
    state = network.initial_state(texture)
    drifting = [tensor.numpy() for tensor in state]
    worst, largest = dict.fromkeys(OUTPUTS, 0.0), dict.fromkeys(OUTPUTS, 1.0)
    for t in range(frames):
        mask = (torch.rand(batch, 1, height, width) < 0.2).float()
        samples = texture.roll((t, -t), (2, 3)) * mask
        given = {
            "motion": torch.tensor([1.0, -1.0]).view(1, 2, 1, 1).expand(batch, 2, height, width),
            "jitter": 2.0 * torch.rand(batch, 2) - 1.0,  # another one for each video
        }
        given = {name: given[name].contiguous() for name in told}
        before = [tensor.numpy() for tensor in state]
        with torch.inference_mode():
            frame, state = network.step(samples, mask, state, **given)
        feed = {"samples": samples, "mask": mask, **given}
        feed = {name: tensor.numpy() for name, tensor in feed.items()}
        outputs = session.run(None, feed | dict(zip(INPUTS[2:], before, strict=True)))
        alone = session.run(None, feed | dict(zip(INPUTS[2:], drifting, strict=True)))
        drifting = alone[1:]
        assert np.square(alone[0] - frame.numpy()).mean() < 1e-6  # 60 dB
        for name, ours, truth in zip(OUTPUTS, outputs, [frame, *state], strict=True):
            assert ours.shape == truth.shape and ours.dtype == np.float32
            worst[name] = max(worst[name], float(np.abs(ours - truth.numpy()).max()))
            largest[name] = max(largest[name], float(truth.abs().max()))
    assert all(tensor.abs().max() > 0.01 for tensor in state)  # all paths live
    return {name: worst[name] / largest[name] for name in OUTPUTS}


def assert_within(worst, tolerance):
    for name, difference in worst.items():
        assert difference < tolerance, name


# --- equality -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 24, 32), (2, 40, 104), (1, 8, 8)])
def test_equal_to_torch_over_eight_frames_at_any_size(exported, network, size):
    assert_within(run(exported, network, *size), TOLERANCE)


@pytest.fixture(scope="module")
def told(network, tmp_path_factory):
    """The files with inputs for jitter, and for motion and jitter, by these inputs."""
    folder = tmp_path_factory.mktemp("told")
    paths = {}
    for names in (("jitter",), ("motion", "jitter")):
        paths[names] = folder / f"{'-'.join(names)}.onnx"
        export_onnx(network, paths[names], **dict.fromkeys(names, True))
    return paths


def test_motion_and_jitter_are_inputs_where_asked_for(network, told):
    """With two sizes and batches, and different shifts for each video; the names are stable."""
    for names, path in told.items():
        for size in ((2, 24, 32), (1, 16, 40)):
            assert_within(run(path, network, *size, frames=5, told=names), TOLERANCE)
        model = onnx.load(path)
        assert [t.name for t in model.graph.input] == [*INPUTS[:2], *names, *INPUTS[2:]]
        assert [t.name for t in model.graph.output] == list(OUTPUTS)
        shapes = axes(model)
        assert shapes["jitter"] == ["batch", 2]
        if "motion" in names:
            assert shapes["motion"] == ["batch", 2, "height", "width"]
        assert not operators(model) & set(export.FORBIDDEN)


def test_one_video_up_to_a_side_has_a_smaller_graph(network, told, tmp_path):
    path, folded = tmp_path / "one.onnx", tmp_path / "folded.onnx"
    export_onnx(network, path, jitter=True, one_video=True, longest_side=64)
    folded.write_bytes(fold_constants(path.read_bytes()))
    for model in (path, folded):
        for size in ((1, 24, 32), (1, 64, 40)):
            assert_within(run(model, network, *size, frames=5, told=["jitter"]), TOLERANCE)
        assert axes(onnx.load(model))["samples"] == [1, 3, "height", "width"]
        assert not operators(onnx.load(model)) & set(export.FORBIDDEN)
    any_size, small, least = (
        len(onnx.load(model).graph.node) for model in (told["jitter",], path, folded)
    )
    assert any_size > small > 1.5 * least
    assert {opset.domain for opset in onnx.load(folded).opset_import} >= {""}
    assert {node.domain for node in onnx.load(folded).graph.node} == {""}


def test_recorded_sizes_hold_for_other_sizes(network, tmp_path):
    """Axes of one name are equally long, axes with a number are that long, and frames the same."""
    path = tmp_path / "model.onnx"
    export_onnx(network, path, jitter=True, one_video=True)
    step = Step(network, jitter=True)
    folded = fold_constants(path.read_bytes())
    sides = range(8, 129, 8)
    examples = [inputs(step, *size) for size in zip(sides, reversed(sides), strict=True)]
    path.write_bytes(record_sizes(folded, step.input_names, examples))
    for size in ((48, 80), (96, 128)):
        assert_within(run(path, network, 1, *size, frames=5, told=["jitter"]), TOLERANCE)
    model = onnx.load(path)
    recorded = {tensor.name: tensor for tensor in model.graph.value_info}
    assert set(recorded) >= {o for n in model.graph.node for o in n.output} - set(OUTPUTS)
    for name in recorded:
        model.graph.output.add().name = name
    session = onnxruntime.InferenceSession(model.SerializeToString())
    tensors = (tensor.numpy() for tensor in inputs(step, 48, 80))
    given = dict(zip(step.input_names, tensors, strict=True))
    fed = {tensor.name: given[tensor.name] for tensor in session.get_inputs()}
    lengths = {}
    for name, array in zip(recorded, session.run(list(recorded), fed), strict=True):
        for axis, length in zip(
            recorded[name].type.tensor_type.shape.dim, array.shape, strict=True
        ):
            expected = lengths.setdefault(axis.dim_param, length) if axis.dim_param else None
            assert length == (axis.dim_value if expected is None else expected)
    assert 2 <= len(lengths) < len(recorded) / 10


def inputs(step, height, width):
    """One frame without samples, before which nothing was seen."""
    samples, mask = torch.zeros(1, 1, 3, height, width), torch.zeros(1, 1, 1, height, width)
    state, jitter = step.initial_state(1, height, width), torch.zeros(1, 1, 2)
    return step.arguments(samples, mask, state, jitter=jitter)


@pytest.fixture(scope="module")
def for_a_renderer(network, tmp_path_factory):
    """The file of fixed size 24x32 that is told motion and jitter."""
    path = tmp_path_factory.mktemp("renderer") / "model.onnx"
    export_onnx(network, path, static=(24, 32), motion=True, jitter=True)
    return path


def test_static(network, tmp_path):
    path = tmp_path / "static.onnx"
    assert export_onnx(network, path, static=(24, 40), opset=18) < TOLERANCE
    assert_within(run(path, network, 1, 24, 40), TOLERANCE)
    model = onnx.load(path)
    assert model.opset_import[0].version == 18
    assert axes(model)["samples"] == [1, 3, 24, 40]
    assert axes(model)["state_hidden_state"] == [1, 8, 12, 20]
    assert axes(model)["frame"] == [1, 3, 96, 160]
    assert not operators(model) & set(export.FORBIDDEN)


def test_half_stays_near_and_is_smaller(exported, network, tmp_path):
    path = tmp_path / "half.onnx"
    assert export_onnx(network, path, half=True) < TOLERANCE_HALF
    assert_within(run(path, network, 2, 24, 32), TOLERANCE_HALF)
    whole, model = onnx.load(exported), onnx.load(path)
    assert props(model)["precision"] == "float16"
    assert weights(model) < 0.55 * weights(whole)
    assert {p.dtype for p in network.parameters()} == {torch.float32}  # ours is untouched


def weights(model):
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (24, 40), (13, 7), (64, 64)])
def test_pull_push_with_constant_padding_is_the_same(size):
    torch.manual_seed(0)
    samples, weight = torch.rand(2, 3, *size), torch.rand(2, 1, *size).mul(3).sub(1).clamp(0, 1)
    level = torch.cat([samples * weight, weight], 1)
    pyramid = []
    while max(level.shape[-2:]) > 1:
        pyramid.append(level)
        even = F.pad(level, (0, level.shape[-1] % 2, 0, level.shape[-2] % 2))
        level = 4.0 * F.avg_pool2d(even, 2)
        level = level / level[:, -1:].clamp(min=1.0)
    filled = level[:, :-1] / level[:, -1:].clamp(min=1e-6)
    for level in reversed(pyramid):
        coarse = F.interpolate(filled, scale_factor=2.0, mode="bilinear", align_corners=False)
        coarse = coarse[..., : level.shape[-2], : level.shape[-1]]
        filled = level[:, :-1] + (1.0 - level[:, -1:]) * coarse
    assert torch.equal(pull_push(samples, weight), filled)


# --- the graph ----------------------------------------------------------------------------------


def operators(model):
    found = set()

    def walk(nodes):
        for node in nodes:
            found.add(node.op_type)
            for attribute in node.attribute:
                for graph in [attribute.g, *attribute.graphs]:
                    walk(graph.node)

    walk(model.graph.node)
    for function in model.functions:
        walk(function.node)
    return found


def axes(model):
    return {
        tensor.name: [
            axis.dim_param or axis.dim_value for axis in tensor.type.tensor_type.shape.dim
        ]
        for tensor in [*model.graph.input, *model.graph.output]
    }


def props(model):
    return {entry.key: entry.value for entry in model.metadata_props}


def test_no_operator_that_engines_lack(exported):
    model = onnx.load(exported)
    assert {"Conv", "GridSample", "Resize"} <= operators(model)
    assert not operators(model) & {"DeformConv", "GroupNormalization", "Loop", "If", "Scan"}
    assert {entry.domain for entry in model.opset_import} == {""}
    assert model.opset_import[0].version == 16


def test_the_page_lists_the_operators(exported, told, for_a_renderer):
    """All operators in files of stream, with any inputs, of open and of fixed size."""
    models = [onnx.load(path) for path in (exported, *told.values(), for_a_renderer)]
    (listed,) = re.findall(
        r"operators of `stream` are\n(.*?)\.\n", DOCUMENT.read_text(encoding="utf-8"), re.S
    )
    assert set(re.findall(r"`(\w+)`", listed)) == set.union(*map(operators, models))
    for node in (node for model in models for node in model.graph.node):
        options = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "AveragePool" and options.get("count_include_pad"):
            assert not any(options.get("pads", []))  # Unity's engine cannot count padding


def test_a_forbidden_operator_is_found_inside_nested_graphs_and_functions():
    node = onnx.helper.make_node
    inner = onnx.helper.make_graph([node("Scan", [], [])], "inner", [], [])
    outer = onnx.helper.make_graph([node("Any", [], [], body=inner)], "outer", [], [])
    function = onnx.helper.make_function("x", "f", [], [], [node("Loop", [], [])], [])
    model = onnx.helper.make_model(outer, functions=[function])
    assert set(export._operators(model)) == operators(model) == {"Any", "Scan", "Loop"}


def test_inputs_outputs_and_axes_have_one_name_per_value(exported, network):
    model = onnx.load(exported)
    assert [t.name for t in model.graph.input] == list(INPUTS)
    assert [t.name for t in model.graph.output] == list(OUTPUTS)
    samples = torch.zeros(5, 3, 16, 40)
    frame, state = network.step(samples, samples[:, :1], None)
    state_shapes = [tensor.shape for tensor in state]
    shapes = [samples.shape, samples[:, :1].shape, *state_shapes, frame.shape, *state_shapes]
    value = {}
    for named, shape in zip(axes(model).values(), shapes, strict=True):
        assert isinstance(named[1], int)  # channels are fixed, all else is open
        assert [isinstance(axis, str) for axis in named] == [True, False, True, True]
        for name, size in zip(named, shape, strict=True):
            assert value.setdefault(name, size) == size
    assert value["batch"] == 5 and value["height"] == 16 and value["width"] == 40
    assert value["height_half"] == 8 and value["width_x4"] == 160
    names = [name for name in value if isinstance(name, str)]
    assert len({value[name] for name in names}) == len(names)  # and one value has one name


def test_metadata(exported):
    about = props(onnx.load(exported))
    assert about["model"] == "tiny" and about["scale"] == "4" and about["precision"] == "float32"
    config = json.loads(about["config"])
    assert StreamConfig(**{**config, "motion_channels": tuple(config["motion_channels"])}) == SMALL
    assert config == json.loads(json.dumps(asdict(SMALL)))


def test_no_path_of_the_machine_is_inside(exported):
    assert str(Path(export.__file__).parent).encode() not in exported.read_bytes()


# --- the page -----------------------------------------------------------------------------------


def test_the_documented_loop_runs(exported, network, capsys):
    code = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S)[1]
    torch.manual_seed(2)
    mask = (torch.rand(3, 1, 1, 20, 30) < 0.3).float()
    samples = torch.rand(3, 1, 3, 20, 30) * mask
    video = list(zip(samples.numpy(), mask.numpy(), strict=True))
    shown = []
    names = {"path": str(exported), "video": video, "show": shown.append}
    exec(compile(code, str(DOCUMENT), "exec"), names)
    with torch.inference_mode():
        frames, _ = network(samples.transpose(0, 1), mask.transpose(0, 1))
    for ours, truth in zip(shown, frames[0].clamp(0, 1), strict=True):
        assert ours.shape == (1, 3, 80, 120)
        assert np.abs(ours[0] - truth.numpy()).max() < TOLERANCE


def test_the_documented_loop_of_a_renderer_runs(network, for_a_renderer):
    _, code, _ = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S)
    torch.manual_seed(2)
    mask = (torch.rand(1, 6, 1, 24, 32) < 0.3).float()
    samples, motion = torch.rand(1, 6, 3, 24, 32) * mask, torch.rand(1, 6, 2, 24, 32) - 0.5
    shifts, shown = [], []

    def render(x, y):
        if len(shifts) == 6:
            return None
        shifts.append((x, y))
        return [tensor[:, len(shifts) - 1].numpy() for tensor in (samples, mask, motion)]

    names = {"path": str(for_a_renderer), "render": render, "show": shown.append}
    exec(compile(code, str(DOCUMENT), "exec"), names)
    jitter = jitter_sequence("quad", 0, 6)[None]
    assert torch.equal(torch.tensor([shifts]), jitter)
    with torch.inference_mode():
        frames, _ = network(samples, mask, None, motion, jitter)
    assert np.abs(np.concatenate(shown) - frames[0].clamp(0, 1).numpy()).max() < TOLERANCE


def test_the_documented_loop_in_cpp_runs(network, request, tmp_path):
    include, library = cpp_of_onnxruntime()
    shutil.copy(request.getfixturevalue("for_a_renderer"), tmp_path)  # where a compiler is
    code = re.search(r"```cpp\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S)[1]
    includes, loop = code.split("\n\n", 1)
    program = f"{includes}\n{READ_AND_SHOW}\nint main() {{\n{loop}\n}}\n"
    (tmp_path / "main.cpp").write_text(program, encoding="utf-8")
    (tmp_path / "libonnxruntime.so.1").symlink_to(library)  # the name under which it is sought
    compiler = [*shlex.split(os.environ.get("CXX", "c++")), "-std=c++17", f"-I{include}"]
    link = [str(library), f"-Wl,-rpath,{tmp_path}", "-o", "main"]
    subprocess.run([*compiler, "main.cpp", *link], cwd=tmp_path, check=True)

    torch.manual_seed(2)
    mask = (torch.rand(1, 4, 1, 24, 32) < 0.3).float()
    samples = torch.rand(1, 4, 3, 24, 32) * mask
    motion, jitter = torch.rand(1, 4, 2, 24, 32) - 0.5, jitter_sequence("quad", 0, 4)[None]
    parts = [tensor[0].flatten(1) for tensor in (samples, mask, motion, jitter)]
    (tmp_path / "in.raw").write_bytes(torch.cat(parts, 1).numpy().tobytes())
    subprocess.run(["./main"], cwd=tmp_path, check=True)
    shown = np.fromfile(tmp_path / "out.raw", np.float32).reshape(4, 3, 96, 128)
    with torch.inference_mode():
        frames, _ = network(samples, mask, None, motion, jitter)
    assert np.abs(shown - frames[0].numpy()).max() < TOLERANCE


READ_AND_SHOW = """
#include <fstream>
#include <map>
std::ifstream source("in.raw", std::ios::binary);
std::ofstream sink("out.raw", std::ios::binary);
std::map<std::string, int> counts = {
    {"samples", 3 * 24 * 32}, {"mask", 24 * 32}, {"motion", 2 * 24 * 32}, {"jitter", 2}};
bool read(const std::string& name, float* values) {
  source.read(reinterpret_cast<char*>(values), 4 * counts.at(name));
  return bool(source);
}
void show(const float* frame) {
  sink.write(reinterpret_cast<const char*>(frame), 4 * 3 * 96 * 128);
}
"""


def cpp_of_onnxruntime():
    """The folder of ONNX Runtime's C++ headers, and the library in its Python package."""
    folders = [Path(f) for f in (os.environ.get("ONNXRUNTIME_INCLUDE"), "/usr/include") if f]
    found = [h for f in folders for h in f.glob("**/onnxruntime_cxx_api.h")]
    library = sorted(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"))
    if not found:
        pytest.skip("no C++ headers of ONNX Runtime: libonnxruntime-dev, or $ONNXRUNTIME_INCLUDE")
    if not library or not shutil.which(shlex.split(os.environ.get("CXX", "c++"))[0]):
        pytest.skip("no compiler, or no shared library in the package onnxruntime")
    return found[0].parent, library[0]


def test_the_documented_openvino_computes_in_float32(exported):
    pytest.importorskip("openvino", reason="OpenVINO is not installed (extra openvino)")
    code = re.search(
        r"```python\n(import openvino.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S
    )[1]
    names = {"path": str(exported)}
    exec(compile(code, str(DOCUMENT), "exec"), names)
    kind = names["compiled"].get_property("INFERENCE_PRECISION_HINT")
    assert kind.get_type_name() == "f32"


def test_the_page_names_every_tensor():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in (*INPUTS, "motion", "jitter", *OUTPUTS))


# --- bad input ----------------------------------------------------------------------------------


class Different(StreamNet):
    """A network that computes something else while it is traced."""

    def step(self, samples, mask, state, motion=None, jitter=None):
        frame, state = super().step(samples, mask, state)
        return frame + (1e-3 if torch.jit.is_tracing() else 0.0), state


def test_what_differs_from_torch_is_not_written(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"before")
    with pytest.raises(InputError, match=r"100 % of frame differ .* \(the largest by 1\.0e-03"):
        export_onnx(Different(SMALL), path, static=(8, 8))
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert path.read_bytes() == b"before"


def checked(network, changed, half=False):
    """The result of the check if a function of (call, inputs, outputs) changes torch's outputs."""
    step, calls = Step(network), itertools.count()

    def run(inputs):
        with torch.inference_mode():
            return changed(next(calls), inputs, step(*inputs))

    return export._check(run, step, [(1, 24, 16)], half)


def test_rounding_that_adds_up_in_the_state_is_no_fault(network):
    """Steps are compared with torch's state as input; with their own state, only pictures are."""
    torch.manual_seed(0)
    states = []

    def noisy(x):
        return x * (1.0 + 0.9 * TOLERANCE * (2.0 * torch.rand_like(x) - 1.0))

    def rounded(call, inputs, outputs):
        states.append(inputs[2:])
        return [outputs[0], *map(noisy, outputs[1:])]

    assert checked(network, rounded) < TOLERANCE
    ours, own = states[-2:]
    drift = max(float((a - b).abs().max()) for a, b in zip(ours, own, strict=True))
    assert drift > TOLERANCE  # which no step may differ by


@pytest.mark.parametrize(("share", "refused"), [(0.5, False), (2.0, True)])
def test_a_few_values_may_be_chosen_otherwise(network, share, refused):
    """The last bit of a sum can decide between two motions, and it differs between processors."""

    def flipped(call, inputs, outputs):
        frame = outputs[0].clone()
        frame.view(-1)[: round(share * export.MAX_BEYOND * frame.numel())] += 0.3 * (call == 0)
        return [frame, *outputs[1:]]

    if refused:
        with pytest.raises(InputError, match=r"step 0, 0\.2\d* % of frame differ"):
            checked(network, flipped)
    else:
        assert checked(network, flipped) == pytest.approx(0.3)


def test_a_value_that_is_not_a_number_is_refused(network):
    def not_finite(call, inputs, outputs):
        return [outputs[0].fill_(math.nan) if call == 4 else outputs[0], *outputs[1:]]

    with pytest.raises(InputError, match="step 2, 100 % of frame differ"):
        checked(network, not_finite)


@pytest.mark.parametrize("half", [False, True])
def test_only_what_was_given_is_advised_against(network, half):
    def wrong(call, inputs, outputs):
        return [outputs[0] + 1.0, *outputs[1:]]

    with pytest.raises(InputError, match="take other versions") as refused:
        checked(network, wrong, half)
    assert ("leave --fp16 out" in str(refused.value)) == half


def test_a_clip_that_runs_away_is_refused(network):
    def astray(call, inputs, outputs):
        return [outputs[0] + 0.01 * (call % 2), *outputs[1:]]

    with pytest.raises(InputError, match=r"the clip of 8 steps agrees with torch to 40\.0 dB"):
        checked(network, astray)


def test_a_folder_that_is_missing(network, tmp_path, monkeypatch, exported):
    monkeypatch.setattr(export, "trace", lambda *_, **__: exported.read_bytes())
    monkeypatch.setattr(export, "_check", lambda *_: 0.0)
    with pytest.raises(InputError, match="cannot be written"):
        export_onnx(network, tmp_path / "none" / "model.onnx")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        export_onnx(network, tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opset": 15}, "opset 15, expected 16 to 20"),
        ({"static": (20, 24)}, "multiples of 8"),
        ({"static": (0, 24)}, "multiples of 8"),
    ],
)
def test_options_that_cannot_be_used(network, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        export_onnx(network, tmp_path / "model.onnx", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["motion", "jitter"])
def test_what_a_network_cannot_be_told(tmp_path, name):
    path = tmp_path / "unet.onnx"
    with pytest.raises(InputError, match=f"received --{name} for ancestor, which cannot use it"):
        export_onnx(RecurrentUNet(ANCESTOR), path, name="ancestor", **{name: True})
    assert not path.exists()


@pytest.mark.parametrize(
    ("config", "batch"), [(SIX_AT_A_TIME, 1), (ANCESTOR, 2)], ids=["2020", "2019"]
)
def test_the_u_nets(tmp_path, config, batch):
    torch.manual_seed(0)
    net = RecurrentUNet(config).eval()
    for module in net.modules():
        if isinstance(module, ModulatedDeformConv):
            torch.nn.init.normal_(module.offset_and_mask.weight, std=0.3)
    path = tmp_path / "unet.onnx"
    export_onnx(net, path)
    model = onnx.load(path)
    assert not operators(model) & set(export.FORBIDDEN)
    frames = config.frames_per_step
    grouped = ["height", "width"] if frames == 1 else [3, "height", "width"]
    assert axes(model)["samples"] == [
        "batch" if batch == 2 else 1,
        3 if frames == 1 else 6,
        *grouped,
    ]
    assert axes(model)["state_r1"][2:] == ["height_d16", "width_d16"]
    names = [tensor.name for tensor in model.graph.input]
    assert ("mask" in names) == config.mask_input  # the network of 2020 does not read it

    # The file, in a loop of its own, against the network over a whole clip.
    mask = (torch.rand(batch, 3 * frames, 1, 32, 64) < 0.3).float()
    samples = torch.rand(batch, 3 * frames, 3, 32, 64) * mask
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feed = {"samples": None, "mask": None}
    for name, tensor in net.initial_state(samples)._asdict().items():
        feed[f"state_{name}"] = tensor.numpy()
    shown = []
    for some, known in zip(samples.split(frames, 1), mask.split(frames, 1), strict=True):
        feed["samples"], feed["mask"] = (
            (t if frames > 1 else t[:, 0]).contiguous().numpy() for t in (some, known)
        )
        frame, *state = session.run(None, {name: feed[name] for name in names})
        feed |= dict(zip([name for name in names if "state" in name], state, strict=True))
        shown.append(frame if frames > 1 else frame[:, None])
    with torch.inference_mode():
        expected, _ = net(samples, mask)
    assert np.abs(np.concatenate(shown, 1) - expected.numpy()).max() < TOLERANCE


def test_forbidden_operators_are_refused(network, tmp_path, monkeypatch, exported):
    monkeypatch.setattr(export, "trace", lambda *_, **__: exported.read_bytes())
    monkeypatch.setattr(export, "FORBIDDEN", ("Conv", "Loop"))
    with pytest.raises(InputError, match="contains Conv; expected operators"):
        export_onnx(network, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_a_missing_package_is_one_line(network, tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=r"pip install 'deepfovea\[export\]'") as caught:
        export_onnx(network, tmp_path / "model.onnx")
    assert missing in str(caught.value) and "\n" not in str(caught.value)


def test_sizes_on_the_command_line():
    assert export.parse_size("192x256") == (192, 256)
    for text in ("192", "192x", "x", "-8x8", "8x8x8", "a x b", "0x8"):
        with pytest.raises(InputError, match="expected HEIGHTxWIDTH"):
            export.parse_size(text)
