"""Claims about engines: they are called like the generator and return what it returns."""

import io
import threading
from collections import Counter
from copy import deepcopy
from functools import partial

import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F

from deepfovea.checkpoint import save_model
from deepfovea.config import InputError
from deepfovea.fovea import jitter_sequence
from deepfovea.generators.stream.net import StreamConfig, StreamNet
from deepfovea.generators.unet.blocks import ModulatedDeformConv
from deepfovea.generators.unet.net import RecurrentUNet, UNetConfig
from deepfovea.reconstructor import Reconstructor
from deepfovea.resample import downsample_2x, upsample_bilinear
from deepfovea.runtime import engine
from deepfovea.runtime.cuda import CapturedGenerator
from deepfovea.runtime.engine import BACKENDS, Engine, load_engine
from deepfovea.runtime.export import Step, trace
from deepfovea.runtime.onnx import CPU, CUDA, TENSORRT, bound_run, onnx_session
from deepfovea.runtime.openvino import (
    openvino_core,
    sample_grids,
    wide_convolutions_in_bfloat16,
)
from deepfovea.video import to_yuv420

TOLERANCE = 1e-4
"""In float32."""
COMPILED = pytest.mark.parametrize("name", ["onnxruntime", "openvino"])


@pytest.fixture(scope="module")
def stream():
    """A small network in which all parameters that start at zero have other values."""
    torch.manual_seed(0)
    network = StreamNet(StreamConfig(12, 16, 8, 4)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    return network


@pytest.fixture(scope="module")
def six():
    torch.manual_seed(0)
    network = RecurrentUNet(UNetConfig(6, False, True, (4,) * 5, (4,) * 4, (4, 18))).eval()
    for module in network.modules():
        if isinstance(module, ModulatedDeformConv):
            torch.nn.init.normal_(module.offset_and_mask.weight, std=0.3)
    return network


@pytest.fixture(scope="module")
def ancestor():
    torch.manual_seed(0)
    return RecurrentUNet(UNetConfig(1, True, False, (4,) * 5, (4,) * 5, ())).eval()


@pytest.fixture(autouse=True, scope="module")
def traced_once():
    """The ONNX of a step at a size is made once: it is the same for every engine and test."""
    known = {}

    def once(step, inputs):
        shapes = [tensor.shape for tensor in inputs]
        key = (step.network, step.matrix, step.given, *shapes)
        if key not in known:
            known[key] = trace(step, inputs)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "trace", once)
        yield


def clip(length, height=20, width=30, batch=1):
    """A moving texture: in noise, no motion can be found on which all engines agree."""
    torch.manual_seed(1)
    texture = F.interpolate(
        torch.rand(batch, 3, height // 4, width // 4), (height, width), mode="bicubic"
    )
    frames = torch.stack([texture.roll((t // 2, t), (2, 3)) for t in range(length)], 1)
    mask = (torch.rand(batch, length, 1, height, width) < 0.3).float()
    return frames.clamp(0, 1) * mask, mask


def assert_near(received, expected):
    torch.testing.assert_close(received, expected, rtol=TOLERANCE, atol=TOLERANCE)


@COMPILED
@pytest.mark.parametrize(
    ("which", "steps", "batch"), [("stream", 6, 2), ("six", 2, 1), ("ancestor", 3, 2)]
)
def test_equals_the_generator(request, name, which, steps, batch):
    network = request.getfixturevalue(which)
    compiled = load_engine(network, name, half=False)
    assert (compiled.scale, compiled.frames_per_step) == (network.scale, network.frames_per_step)
    samples, mask = clip(steps * network.frames_per_step, batch=batch)
    with torch.inference_mode():
        expected, end = network(samples, mask)
    frames, state = compiled(samples, mask)
    assert_near(frames, expected)
    assert type(state) is type(end)
    assert_near(tuple(state), tuple(end))
    assert compiled.frames_by[name] == len(samples[0]) - network.frames_per_step

    # Step by step with the state passed back; earlier results must not change.
    parts, state = [], None
    for some, known in zip(
        samples.split(network.frames_per_step, 1),
        mask.split(network.frames_per_step, 1),
        strict=True,
    ):
        part, state = compiled(some, known, state)
        parts.append(part)
    assert torch.equal(torch.cat(parts, 1), frames)


@pytest.mark.parametrize("matrix", [None, 6])
def test_a_session_bound_to_tensors_equals_one_of_arrays(stream, matrix):
    """On a GPU tensors are bound where they are; here the same code binds tensors of the CPU."""
    samples, mask = clip(2, 24, 32)
    step = Step(stream, matrix)
    with torch.inference_mode():
        _, state = stream(samples[:, :1], mask[:, :1])
        inputs = step.arguments(samples[:, 1:], mask[:, 1:], state)
    content, names = trace(step, inputs), (step.input_names, step.output_names)
    session = onnxruntime.InferenceSession(content, providers=[CPU])
    bound = bound_run(session, *names)
    wanted = onnx_session(content, *names)(inputs)
    first, second = bound(inputs), bound(inputs)
    assert [out.dtype for out in first] == [out.dtype for out in wanted]
    for one, other in zip(first, wanted, strict=True):
        level = one.dtype == torch.uint8  # which rounding may move by one
        torch.testing.assert_close(one, other, rtol=TOLERANCE, atol=1 if level else TOLERANCE)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert all(a.data_ptr() != b.data_ptr() for a, b in zip(first, second, strict=True))


def test_onnx_runtime_says_what_a_gpu_needs(stream, monkeypatch):
    """Both when the package was built without CUDA, and when CUDA cannot be used on a machine."""
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("claims what a package without CUDA says")
    monkeypatch.setattr(StreamNet, "to", lambda network, device: network)
    for name, provider in (("onnxruntime", CUDA), ("tensorrt", TENSORRT)):
        with pytest.raises(InputError, match=rf"{name} needs .*{provider}.*onnxruntime-gpu"):
            load_engine(stream, name, "cuda")
        with pytest.raises(InputError, match=r"cannot use it here"):
            onnx_session(onnx_of_a_copy(), ["x"], ["y"], provider)
    with pytest.raises(InputError, match="tensorrt for the device cpu; it runs on cuda only"):
        load_engine(stream, "tensorrt")


def onnx_of_a_copy():
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    values = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "xy"]
    graph = onnx.helper.make_graph([node], "copy", values[:1], values[1:])
    opset = [onnx.helper.make_opsetid("", 16)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["onnxruntime", "tensorrt"])
def test_onnx_runtime_on_a_gpu_equals_the_generator(stream, name):
    if BACKENDS[name].missing() or BACKENDS[name].lacks("cuda"):
        pytest.skip("ONNX Runtime was built without this provider")
    samples, mask = clip(4, 64, 96)
    with torch.inference_mode():
        expected, _ = stream(samples, mask)
    engine_there = load_engine(deepcopy(stream), name, "cuda", in_background=False)
    frames, _ = engine_there(samples.cuda(), mask.cuda())
    assert engine_there.frames_by[name] == 3
    assert (frames.cpu() - expected).abs().median() < 1e-3


@COMPILED
def test_another_size_and_another_video(stream, name, monkeypatch):
    monkeypatch.setattr(engine, "MAX_CACHED_SIZES", 2)
    compiled, compilations = load_engine(stream, name, half=False), []
    trace = engine.trace

    def counting_trace(*arguments, **options):
        compilations.append(arguments)
        return trace(*arguments, **options)

    monkeypatch.setattr(engine, "trace", counting_trace)
    for size in ((20, 30), (9, 41), (20, 30), (8, 8), (20, 30)):
        samples, mask = clip(3, *size)
        with torch.inference_mode():
            expected, _ = stream(samples, mask)
        assert_near(compiled(samples, mask)[0], expected)
    assert len(compilations) == 3  # the size used longest ago is the one forgotten
    assert len(compiled._runs) == 2


@COMPILED
def test_the_reconstructor_takes_an_engine(stream, name):
    torch.manual_seed(1)
    frames = F.interpolate(torch.rand(4, 3, 5, 8), (20, 30), mode="bicubic").clamp(0, 1)
    pairs = [(frame, (12.0, 9.0)) for frame in frames]
    ours, truth = (
        [result.frame for result in Reconstructor(model).stream(pairs)]
        for model in (load_engine(stream, name, half=False), stream)
    )
    assert_near(ours, truth)


@COMPILED
@pytest.mark.parametrize("told", [("jitter",), ("motion", "jitter")], ids="-".join)
def test_motion_and_jitter_reach_every_engine(stream, name, told):
    """Frame by frame through the reconstructor, on a size that is padded."""
    sequence = jitter_sequence("halton", 0, 5)
    field = torch.tensor([-1.0, 0.5]).view(2, 1, 1).expand(2, 20, 30)
    texture = F.interpolate(torch.rand(1, 3, 5, 8), (20, 30), mode="bicubic").clamp(0, 1)[0]
    ours, truth = (Reconstructor(m) for m in (load_engine(stream, name, half=False), stream))
    for t in range(5):
        frame = texture.roll(t, 2)
        given = {"motion": field, "jitter": tuple(sequence[t].tolist())}
        given = {key: given[key] for key in told}
        expected = truth(frame, (12.0, 9.0), **given)
        assert_near(ours(frame, (12.0, 9.0), **given), expected)
        assert_near(tuple(ours.state), tuple(truth.state))
    assert ours.engine.frames_by == {"torch": 1, name: 4}  # nothing went back to PyTorch
    plain = Reconstructor(stream)
    assert not torch.allclose(plain(frame, (12.0, 9.0)), expected)


def test_auto_compiles_what_is_told(stream):
    ours = load_engine(stream, "auto", in_background=False)
    samples, mask = clip(4)
    planes, _ = ours.yuv420(samples, mask, None, None, jitter_sequence("quad", 0, 4)[None])
    assert planes.luma.shape[1] == 4
    assert ours.frames_by == {"torch": 1, ours.name: 3} and ours.name != "torch"


@COMPILED
def test_what_a_network_cannot_be_told_is_refused_by_every_engine(ancestor, name):
    compiled = load_engine(ancestor, name)
    samples, mask = clip(2)
    _, state = compiled(samples, mask)
    with pytest.raises(InputError, match="jitter"):
        compiled(samples, mask, state, jitter=torch.zeros(1, 2, 2))


@COMPILED
def test_planes_are_those_of_the_frames(stream, name):
    compiled = load_engine(stream, name, half=False)
    for size in ((8, 319), (20, 30)):  # the first is with the padding 1280 wide: another matrix
        samples, mask = clip(4, *size, batch=2)
        with torch.inference_mode():
            frames, end = stream(samples, mask)
        planes, state = compiled.yuv420(samples, mask)
        assert_near(tuple(state), tuple(end))
        for received, expected in zip(planes, to_yuv420(frames, 6), strict=True):
            assert received.shape == expected.shape
            assert (received.int() - expected.int()).abs().max() <= 1
            assert (received != expected).float().mean() < 0.01
    assert_near(compiled(samples, mask)[0], frames)  # both kinds side by side


def test_planes_of_several_frames_at_a_time(six):
    samples, mask = clip(12)
    frames, _ = six(samples, mask)
    planes, _ = load_engine(six, "openvino").yuv420(samples, mask)
    for received, expected in zip(planes, to_yuv420(frames, 6), strict=True):
        assert received.shape == expected.shape
        assert (received.int() - expected.int()).abs().max() <= 1


def test_only_the_wide_convolutions_are_in_bfloat16(stream):
    core, step = openvino_core(), Step(stream)
    samples, mask = (tensor[:, 0] for tensor in clip(1, 16, 24))
    model = core.read_model(trace(step, [samples, mask, *step.initial_state(1, 16, 24)]))
    wide_convolutions_in_bfloat16(model)
    types = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Convolution":
            output = node.output(0)
            types.setdefault(output.element_type.to_string(), []).append(output.shape[1])
    assert min(types["bf16"]) >= 16 > max(types["f32"])
    assert {port.get_element_type().to_string() for port in model.outputs} == {"f32"}


def test_only_what_bears_it_is_computed_in_bfloat16(stream, six):
    assert load_engine(stream, "openvino").half
    assert not load_engine(stream, "openvino", half=False).half
    assert not load_engine(six, "openvino").half


def operators(model):
    return Counter(node.get_type_name() for node in model.get_ordered_ops())


@pytest.mark.parametrize("size", [(16, 24), (72, 200)])
def test_openvino_samples_grids_where_channels_are_few(stream, size):
    """All frames are equal except for resizing many channels and averaging overlapping windows."""
    step = Step(stream)
    samples, mask = (tensor[:, 0] for tensor in clip(1, *size))
    inputs = [samples, mask, *step.initial_state(1, *size)]
    model = openvino_core().read_model(trace(step, inputs))
    before = operators(model)
    few = [
        node
        for node in model.get_ordered_ops()
        if node.get_type_name() in ("Interpolate", "AvgPool")
        and node.input_value(0).shape[1] < 16
        and list(node.get_attributes().get("strides", [2, 2])) == [2, 2]
    ]
    sample_grids(model)
    after = operators(model)
    assert after["GridSample"] == before["GridSample"] + len(few)
    assert sum(before[kind] - after[kind] for kind in ("Interpolate", "AvgPool")) == len(few) > 50
    # Of resizing only one Slice remains, after the padded mean.
    kept = [n for n in model.get_ordered_ops() if n.get_type_name() == "Interpolate"]
    assert all(node.input_value(0).shape[1] >= 16 for node in kept)


@pytest.mark.parametrize("size", [(8, 8), (9, 14), (37, 120)])
@pytest.mark.parametrize("shift", [0, 1])
def test_a_grid_resamples_alike(size, shift):
    openvino = pytest.importorskip("openvino")
    size = tuple(2 * (side // 2) for side in size) if shift else size
    x = torch.rand(2, 3, *size)

    class Resampled(torch.nn.Module):
        def forward(self, x):
            # The last one places pixels in another way, and is left as it is.
            corners = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
            both = upsample_bilinear(x, 2), upsample_bilinear(x, 8)
            return *both, downsample_2x(x, shift), corners

    file = io.BytesIO()
    torch.onnx.export(Resampled(), (x,), file, dynamo=False, opset_version=16)
    model = openvino_core().read_model(file.getvalue())
    sample_grids(model)
    assert operators(model)["GridSample"] == 3
    compiled = openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for received, expected in zip(compiled(x.numpy()).values(), Resampled()(x), strict=True):
        assert torch.allclose(torch.from_numpy(received), expected, atol=1e-5)
    assert openvino


def test_frames_flow_while_it_compiles(stream, monkeypatch):
    """PyTorch computes frames until the other engine is ready; the frames stay the same."""
    pytest.importorskip("openvino")
    may_end = threading.Event()
    make = Engine._make

    def waiting(*arguments):
        assert may_end.wait(60)
        return make(*arguments)

    monkeypatch.setattr(Engine, "_make", waiting)
    ours = load_engine(stream, "auto", half=False)
    samples, mask = clip(6)
    with torch.inference_mode():
        expected, _ = stream(samples, mask)
    first, state = ours(samples[:, :4], mask[:, :4])
    assert ours.summary() == "PyTorch"
    may_end.set()
    (future,) = ours._runs.values()
    future.result(60)
    last, _ = ours(samples[:, 4:], mask[:, 4:], state)
    assert_near(torch.cat([first, last], 1), expected)
    assert ours.frames_by == {"torch": 4, "openvino": 2}
    assert ours.summary() == "PyTorch 4, OpenVINO 2"


def test_two_engines_may_compile_at_once(stream, monkeypatch):
    """As in two calls of deepfovea.reconstruct, although the exporter exports one at a time."""
    pytest.importorskip("openvino")
    monkeypatch.setattr(engine, "trace", trace)
    samples, mask = clip(2)
    engines = [load_engine(stream, "auto", half=False) for _ in range(2)]
    for ours in engines:
        ours(samples, mask)
    for ours in engines:
        (future,) = ours._runs.values()
        future.result(60)


def test_what_is_compiled_is_kept_by_weights(stream, six, monkeypatch, tmp_path):
    pytest.importorskip("openvino")
    monkeypatch.setattr(engine, "trace", trace)  # for what is traced anew has to be the same
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    load_engine(stream, "openvino")(*clip(2))
    (folder,) = (tmp_path / "deepfovea" / "openvino").iterdir()
    kept = sorted(folder.iterdir())
    assert kept
    load_engine(stream, "openvino")(*clip(2))  # and is found again
    assert sorted(folder.iterdir()) == kept
    other = deepcopy(stream)
    with torch.no_grad():
        next(other.parameters()).add_(1e-3)
    load_engine(other, "openvino")(*clip(2))
    assert len(list(folder.parent.iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_done_without(stream, monkeypatch, tmp_path):
    pytest.importorskip("openvino")
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    frames, _ = load_engine(stream, "openvino")(*clip(2))
    assert frames.isfinite().all()


@pytest.mark.parametrize("fails_at", [None, 1, 2])
def test_a_graph_that_cannot_be_captured_gives_way(stream, monkeypatch, caplog, fails_at):
    """Tested without a GPU: the stand-in for a capture computes again, or fails."""
    captures = []

    def capture(run):
        captures.append(run)
        if len(captures) == fails_at:
            raise RuntimeError("CUDA error: out of memory\nand what follows")
        outputs = run()

        def replay():
            for kept, new in zip(outputs, run(), strict=True):
                kept.copy_(new)

        return replay, outputs

    made = partial(CapturedGenerator, capture=capture)
    monkeypatch.setattr(engine, "CapturedGenerator", made)
    samples, mask = clip(4)
    jitter = jitter_sequence("quad", 2, 2)[None]
    graph, plain = Engine(stream, "cuda-graph"), Engine(stream)
    for one in (graph, plain):
        one.found, state = one(samples[:, :2], mask[:, :2])
        (one.luma, _), _ = one.yuv420(samples[:, 2:], mask[:, 2:], state, None, jitter)
    assert_near(graph.found, plain.found)
    assert_near(graph.luma, plain.luma)
    expected = {None: {"cuda-graph": 4}, 1: {"torch": 4}, 2: {"cuda-graph": 2, "torch": 2}}
    assert graph.frames_by == expected[fails_at]
    assert ("(CUDA error: out of memory); PyTorch goes on" in caplog.text) == bool(fails_at)


def test_by_name_or_file_and_the_fastest_that_is_there(stream, six, tmp_path, monkeypatch):
    save_model(tmp_path / "model.safetensors", stream, {})
    path = tmp_path / "model.safetensors"
    assert load_engine(path, "torch").name == "torch"
    assert load_engine(path).name == "openvino"
    assert load_engine(path, frames=24).name == "torch"  # over before another one is compiled
    assert load_engine(path, frames=1000).name == "openvino"
    assert load_engine(six).name == "torch"  # whose own kernels are faster
    assert load_engine(deepcopy(stream), device="meta").name == "torch"
    assert engine._fastest(six, "cuda:1", 24) == "cuda-graph"
    there = {"onnx", "onnxruntime"}
    monkeypatch.setattr(engine, "find_spec", lambda name: name in there or None)
    assert load_engine(path).name == "onnxruntime"
    there.clear()
    assert load_engine(path).name == "torch"


@pytest.mark.parametrize(
    ("name", "device", "message"),
    [
        ("tensort", "cpu", "received 'tensort', expected one of auto, torch"),
        ("openvino", "cuda", "openvino for the device cuda"),
        ("cuda-graph", "cpu", "runs on cuda only: choose torch, or --device cuda"),
        ("onnxruntime", "mps", "choose torch, or --device cpu"),
    ],
)
def test_what_cannot_be_used(stream, name, device, message):
    with pytest.raises(InputError, match=message):
        load_engine(stream, name, device)


@pytest.mark.parametrize("missing", ["onnx", "itself"])
@pytest.mark.parametrize(("name", "extra"), [("onnxruntime", "export"), ("openvino", "openvino")])
def test_what_is_missing(stream, monkeypatch, name, extra, missing):
    missing = name if missing == "itself" else missing
    monkeypatch.setattr(engine, "find_spec", lambda package: package != missing or None)
    message = rf"{name} needs {missing}, which is missing: pip install 'deepfovea\[{extra}\]'"
    with pytest.raises(InputError, match=message):
        load_engine(stream, name)


def test_a_short_group_is_refused_as_by_the_network(six):
    compiled = load_engine(six, "onnxruntime")
    _, state = compiled(*clip(6))
    for before in (None, state):
        with pytest.raises(InputError, match="positive multiple of 6"):
            compiled(*clip(4), before)
