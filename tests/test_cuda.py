"""Claims about CUDA graphs: a captured step equals the generator; most is tested without a GPU."""

import pytest
import torch

from deepfovea.checkpoint import load
from deepfovea.config import InputError
from deepfovea.fovea import jitter_sequence
from deepfovea.runtime.cuda import CapturedGenerator


class FakeGraph:
    """A stand-in for a CUDA graph: it computes again instead of replaying, and counts."""

    def __init__(self):
        self.captures = self.replays = 0

    def __call__(self, run):
        self.captures += 1
        outputs = run()

        def replay():
            self.replays += 1
            for kept, new in zip(outputs, run(), strict=True):
                kept.copy_(new)

        return replay, outputs


def clip(model, steps=3, height=40, width=48, batch=1, device="cpu"):
    torch.manual_seed(1)
    frames = steps * model.frames_per_step
    mask = (torch.rand(batch, frames, 1, height, width) < 0.3).float()
    return (torch.rand(batch, frames, 3, height, width) * mask).to(device), mask.to(device)


@pytest.mark.parametrize("name", ["stream", "paper"])
def test_a_captured_step_equals_the_generator(name):
    model, graph = load(name), FakeGraph()
    samples, mask = clip(model, 2)
    captured = CapturedGenerator(model, capture=graph)
    with torch.inference_mode():
        wanted, last = model(samples, mask)
    k = model.frames_per_step
    first, state = captured(samples[:, :k], mask[:, :k])
    second, after = captured(samples[:, k:], mask[:, k:], state)
    assert torch.allclose(torch.cat([first, second], 1), wanted, atol=1e-5)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(after, last, strict=True))
    assert (graph.captures, graph.replays) == (1, 2)
    again, _ = captured(samples[:, k:], mask[:, k:], state)  # a state is a value
    assert torch.equal(again, second)


def test_motion_and_jitter_are_inputs_of_a_graph():
    model, graph = load("stream"), FakeGraph()
    samples, mask = clip(model, 3)
    told = {"motion": torch.randn(1, 3, 2, 40, 48), "jitter": jitter_sequence("quad", 0, 3)[None]}
    captured = CapturedGenerator(model, capture=graph)
    for names in (["jitter"], ["motion"], ["motion", "jitter"]):
        given = {name: told[name] for name in names}
        with torch.inference_mode():
            wanted, _ = model(samples, mask, None, **given)
        found, _ = captured(samples, mask, None, **given)
        assert torch.allclose(found, wanted, atol=1e-5)
    assert graph.captures == 3


def test_graphs_are_kept_by_size_and_the_oldest_goes():
    model, graph = load("stream"), FakeGraph()
    captured = CapturedGenerator(model, sizes_kept=2, capture=graph)
    for side, captures in ((32, 1), (40, 2), (32, 2), (48, 3), (32, 3), (40, 4)):
        captured(*clip(model, 1, side, 32))
        assert graph.captures == captures
    captured.reset()
    captured(*clip(model, 1, 40, 32))
    assert graph.captures == 5


def test_another_batch_with_an_old_state_is_refused():
    model = load("stream")
    captured = CapturedGenerator(model, capture=FakeGraph())
    _, state = captured(*clip(model, 1))
    with pytest.raises(InputError, match="state None"):
        captured(*clip(model, 1, batch=2), state)
    with pytest.raises(InputError, match="multiple of 6"):
        CapturedGenerator(load("paper"), capture=FakeGraph())(*clip(model, 4))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["stream", "paper"])
def test_a_graph_equals_eager_on_a_device(name, monkeypatch):
    """The median differs by at most 1e-3 in float32 without TF32; single pixels may differ more."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    model = load(name, "cuda")
    samples, mask = clip(model, 3, 96, 128, device="cuda")
    with torch.inference_mode():
        wanted, _ = model(samples, mask)
    found, _ = CapturedGenerator(model)(samples, mask)
    assert (found - wanted).abs().median() < 1e-3
    assert (found - wanted).square().mean() < 1e-5


def test_where_samples_go_is_computed_in_float32():
    model, found = load("stream"), {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(
                lambda _, inputs, result, name=name: found.update({name: result.dtype})
            )
    samples, mask = clip(model, 2)
    with torch.inference_mode(), torch.autocast("cpu", torch.float16):
        model(samples, mask)
    assert {name.split(".")[0] for name in found} == {"motion", "gate", "blend", "refine"}
    for name, dtype in found.items():
        exact = name.startswith(("motion", "gate"))
        assert dtype == (torch.float32 if exact else torch.float16), name


def test_convolutions_in_float16_show_the_same():
    """The difference is far below what stream itself errs by: its PSNR on video is about 25 dB."""
    model = load("stream")
    torch.manual_seed(2)
    texture = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 8), (48, 64), mode="bicubic")
    frames = torch.stack([texture[0].clamp(0, 1).roll(t, 2) for t in range(5)])[None]
    mask = (torch.rand(1, 5, 1, 48, 64) < 0.3).float()
    with torch.inference_mode():
        wanted, _ = model(frames * mask, mask)
    found, state = CapturedGenerator(model, torch.float16, capture=FakeGraph())(frames * mask, mask)
    assert {found.dtype, *(value.dtype for value in state)} == {torch.float32}
    assert not torch.equal(found, wanted)
    assert (found - wanted).square().mean() < 1e-5  # 50 dB
