"""Claims about the loss terms: each matches its definition, and one pass gives all gradients."""

import math
from dataclasses import replace

import pytest
import torch
from presets import preset_of
from torch import nn

from deepfovea.config import PUBLISHED_LOSSES, InputError, TrainConfig
from deepfovea.flow import dis_flow
from deepfovea.fovea import downsample
from deepfovea.generators import PRESETS
from deepfovea.generators.stream.net import StreamConfig, StreamNet
from deepfovea.generators.unet.net import RecurrentUNet, UNetConfig
from deepfovea.losses.adversarial import r1_penalty
from deepfovea.losses.perceptual import Backbone, PerceptualLoss
from deepfovea.losses.terms import (
    DISCRIMINATORS,
    LOSSES,
    Output,
    Target,
    charbonnier,
    check_finite,
    deviations_from_published,
    discriminator_loss,
    loss_weights,
    make_loss_modules,
    make_terms,
    random_crop,
)
from deepfovea.training.chunks import Chunk, Position, Region
from deepfovea.training.state import init_run
from deepfovea.training.step import backward, crop_to_valid, forward, output_gradients, train_step

CHANNELS = (2, 3, 3, 2, 1)
STREAM = StreamConfig(8, 8, 4, 4)
UNET = UNetConfig(2, False, True, (4, 4, 4, 4, 4), (4, 4, 4, 4), (4, 6))
MULTIRESOLUTION = replace(UNET, low_resolution_output=True)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def perceptual():
    """A loss with a backbone of two random layers."""
    stages = [nn.Conv2d(3, 4, 3, stride=2), nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2))]
    return PerceptualLoss(Backbone("random", stages, [0.5] * 3, [0.5] * 3))


def terms_of(names, learned, **changes):
    return make_terms(names, learned, perceptual=perceptual(), flow=dis_flow, **changes)


def chunk_of(frames, **changes):
    low = downsample(frames)
    batch, time, _, height, width = low.shape
    mask = (torch.rand(batch, time, 1, height, width) < 0.4).float()
    values = {
        "frames": frames,
        "low": low,
        "mask": mask,
        "samples": low * mask,
        "jitter": None,
        "motion": torch.randn(batch, time, 2, height, width),
        "motion_trust": torch.rand(batch, time, 1, height, width),
        "motion_given": False,
        "previous_low": None,
        "is_clip_start": torch.ones(batch, dtype=torch.bool),
        "valid_region": Region(0, 0, *frames.shape[-2:]),
        "next_position": Position(batch),
    }
    return Chunk(**values | changes)


# --- terms ------------------------------------------------------------------------------------


def test_the_published_weights():
    weights = loss_weights(PUBLISHED_LOSSES)
    assert weights == {
        "supervised": 5.0,
        "perceptual": 1.0,
        "flow": 2.0,
        "adversarial": 0.01,
        "adversarial-fft": 0.01,
    }
    chosen = loss_weights(("supervised=3", "motion=0.7"))
    assert chosen == {"supervised": 3.0, "motion": 0.7}


def test_terms_come_in_the_order_of_their_names():
    names = list(reversed(LOSSES))
    terms = terms_of(names, make_loss_modules(names, CHANNELS))
    assert list(terms) == names


def test_what_is_learned_beside_the_generator():
    loss_modules = make_loss_modules(LOSSES, CHANNELS)
    assert list(loss_modules) == ["supervised", "adversarial", "adversarial-fft"]
    for name, kind in DISCRIMINATORS.items():
        assert type(loss_modules[name]) is kind
    assert (
        sum(p.numel() for p in loss_modules["supervised"].parameters()) == 6
    )  # α and c per colour
    assert len(make_loss_modules(["charbonnier", "motion", "flow"])) == 0


@pytest.mark.parametrize("name", LOSSES)
def test_a_term_of_a_batch_is_the_mean_of_its_parts(name):
    """So several processes can each compute a part of the batch."""
    frames, noise = torch.rand(2, 2, 2, 3, 64, 64).unbind(0)
    frames[1] = frames[1] * 0.2  # clips of different contrast
    frames[1, 1] = frames[1, 0].roll(3, -1)
    output = Output(
        0.5 * (frames + noise), torch.randn(2, 2, 2, 16, 16), torch.rand(2, 2, 3, 16, 16)
    )
    target = Target(
        frames,
        downsample(frames),
        torch.rand(2, 3, 16, 16),
        torch.randn(2, 2, 2, 16, 16),
        torch.rand(2, 2, 1, 16, 16),
        (torch.rand(2, 2, 1, 32, 32) < 0.05).float(),
    )
    term = terms_of([name], make_loss_modules([name], CHANNELS))[name]

    def part(i):
        here = slice(i, i + 1)
        mine = Output(*(tensor[here] for tensor in output))
        return term(mine, Target(*(tensor[here] for tensor in target)))

    whole = term(output, target)
    torch.testing.assert_close(whole, (part(0) + part(1)) / 2, rtol=1e-5, atol=1e-6)
    assert (part(0) - part(1)).abs() > 1e-6


def test_charbonnier_is_l1_with_a_rounded_tip():
    difference = torch.tensor([-0.3, 0.0, 0.2], dtype=torch.float64)
    expected = sum(math.sqrt(d * d + 1e-6) for d in (0.3, 0.0, 0.2)) / 3
    assert float(charbonnier(difference)) == pytest.approx(expected, rel=1e-12)


def test_motion_is_judged_by_what_it_fetches():
    term = make_terms(["motion"], nn.ModuleDict())["motion"]
    wide = torch.rand(1, 3, 16, 32)
    wide[..., :12] = 0.0  # what comes in from the left
    low = torch.stack([wide[..., 8 - 2 * t : 24 - 2 * t] for t in range(3)], 1)  # right by 2

    def loss(x, y):
        motion = torch.tensor([x, y]).view(1, 1, 2, 1, 1).expand(1, 3, 2, 16, 16)
        return float(term(Output(low, motion), Target(low, low)))

    assert loss(-2.0, 0.0) == pytest.approx(1e-3, rel=1e-3)  # the tip of the loss
    assert min(loss(2.0, 0.0), loss(-1.0, 0.0), loss(-2.0, 1.0)) > 0.05


def test_the_endpoint_error_is_the_distance_from_the_true_motion():
    term = make_terms(["endpoint"], nn.ModuleDict())["endpoint"]
    frames, motion = torch.rand(2, 4, 3, 64, 64), torch.randn(2, 4, 2, 16, 16)
    missed = Output(frames, motion + torch.tensor([3.0, 4.0])[:, None, None])
    trust = torch.ones(2, 4, 1, 16, 16)
    target = Target(frames, downsample(frames), motion=motion, motion_trust=trust)
    assert float(term(missed, target)) == pytest.approx(5.0, rel=1e-3)
    trust[:, :, :, 8:] = 0.0  # half of it is not believed
    assert float(term(missed, target)) == pytest.approx(2.5, rel=1e-3)
    with pytest.raises(InputError, match="expected --preprocessing modern"):
        term(missed, Target(frames, downsample(frames)))


def test_motion_compares_with_the_frame_before():
    term = make_terms(["motion"], nn.ModuleDict())["motion"]
    low = torch.rand(2, 3, 3, 16, 16)
    still = torch.zeros(2, 3, 2, 16, 16)
    first = term(Output(low, still), Target(low, low))
    expected = charbonnier(low[:, 1:] - low[:, :-1])
    torch.testing.assert_close(first, expected)
    before = torch.rand(2, 3, 16, 16)
    previous = torch.cat([before[:, None], low[:, :-1]], 1)
    later = term(Output(low, still), Target(low, low, before))
    torch.testing.assert_close(later, charbonnier(low - previous))
    lone = term(Output(low[:, :1], still[:, :1].requires_grad_()), Target(low[:, :1], low[:, :1]))
    assert lone == 0 and lone.requires_grad


def test_temporal_sees_flicker_where_the_truth_rests():
    term = make_terms(["temporal"], nn.ModuleDict())["temporal"]
    rests = torch.rand(1, 1, 3, 32, 32).expand(1, 3, 3, 32, 32)
    low = downsample(rests)
    flicker = 0.2 * torch.tensor([1.0, -1.0, 1.0])[:, None, None, None]
    staying = float(term(Output(rests + 0.2), Target(rests, low)))
    assert staying == pytest.approx(1e-3, rel=1e-2)  # the tip of the loss
    assert float(term(Output(rests + flicker), Target(rests, low))) == pytest.approx(0.4, rel=1e-3)
    half = torch.cat([rests[..., :16], torch.rand(1, 3, 3, 32, 16)], -1)  # the other changes
    assert float(term(Output(half + flicker), Target(half, low))) == pytest.approx(0.2, rel=0.05)
    lone = rests[:, :1].clone().requires_grad_()
    term(Output(lone), Target(rests[:, :1], low[:, :1])).backward()
    assert lone.grad is not None and not lone.grad.any()


def test_low_resolution_frames_are_compared_with_the_truth_reduced():
    terms = terms_of(["low-resolution", "low-perceptual"], nn.ModuleDict())
    frames = torch.rand(1, 2, 3, 64, 64)
    low = downsample(frames)
    off = torch.where(torch.rand_like(low) < 0.5, low + 0.3, low - 0.3)
    for name, expected in (("low-resolution", 0.3), ("low-perceptual", None)):
        assert terms[name](Output(frames, None, low), Target(frames, low)) == 0
        value = terms[name](Output(frames, None, off), Target(frames, low))
        assert value > 0 if expected is None else abs(value - expected) < 1e-6


@pytest.mark.parametrize("name", DISCRIMINATORS)
@pytest.mark.parametrize("kind", ["logistic", "wasserstein"])
def test_the_generator_wants_to_be_taken_for_real(name, kind):
    loss_modules = make_loss_modules([name], CHANNELS)
    term = make_terms([name], loss_modules, adversarial=kind)[name]
    frames = torch.rand(1, 2, 3, 128, 128)
    before = {k: v.clone() for k, v in loss_modules.state_dict().items()}
    value = term(Output(frames), Target(frames, frames))
    logits = loss_modules[name].eval()(frames)
    expected = -logits if kind == "wasserstein" else -logits.sigmoid().log()
    torch.testing.assert_close(value, expected.mean())
    # Judging changes nothing in the judge, its power iteration included.
    assert all(torch.equal(v, before[k]) for k, v in loss_modules.state_dict().items())


@pytest.mark.parametrize("kind", ["logistic", "wasserstein"])
def test_the_discriminator_sees_both_by_the_same_weights(kind):
    discriminator = make_loss_modules(["adversarial"], CHANNELS)["adversarial"]
    real, fake = torch.rand(2, 2, 2, 3, 128, 128).unbind(0)
    before = discriminator.tower.reduce.parametrizations.weight[0]._u.clone()
    loss = discriminator_loss(discriminator, real, fake, kind, r1=3.0)
    assert not torch.equal(discriminator.tower.reduce.parametrizations.weight[0]._u, before)
    discriminator.eval()
    of_real, of_fake = discriminator(real), discriminator(fake)
    if kind == "logistic":
        expected = -of_real.sigmoid().log().mean() - (1 - of_fake.sigmoid()).log().mean()
    else:
        expected = of_fake.mean() - of_real.mean()
    real = real.requires_grad_()
    expected = expected + 1.5 * r1_penalty(discriminator(real), real)
    torch.testing.assert_close(loss, expected)


def test_what_is_not_as_published_is_said():
    assert deviations_from_published(["charbonnier", "motion"], "vgg19", "dis") == []
    assert deviations_from_published(PUBLISHED_LOSSES, "vgg19", "pwcnet") == []
    said = deviations_from_published(
        ["supervised", "perceptual", "flow"], "efficientnet-lite0", "dis"
    )
    assert len(said) == 4
    for word in ("'adversarial'", "'adversarial-fft'", "efficientnet-lite0", "dis"):
        assert sum(word in line for line in said) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_named(value):
    check_finite({"supervised": 1.0, "flow": -2.0}, 3)
    with pytest.raises(InputError, match=r"'flow' is -?(nan|inf) at step 7"):
        check_finite({"supervised": 1.0, "flow": value}, 7)


# --- one pass ---------------------------------------------------------------------------------


def weighted_sum_gradients(training, terms, config, chunk):
    """The gradients from a single graph of all losses."""
    output, _ = forward(training.net, chunk, None)
    output, target = crop_to_valid(output, chunk, training.net.scale)
    weights = loss_weights(config.losses)
    total = sum(weights[name] * term(output, target) for name, term in terms.items())
    parameters = training.optimizers["generator"].param_groups[0]["params"]
    return torch.autograd.grad(total, parameters, allow_unused=True)


CASES = {
    "published": (UNET, [f"{name}=1" for name in PUBLISHED_LOSSES]),
    "multiresolution": (MULTIRESOLUTION, ["supervised", "low-resolution", "low-perceptual"]),
    "stream": (STREAM, ["charbonnier", "motion"]),
    "stream, all": (STREAM, [f"{n}=1" for n in LOSSES if not n.startswith("low-")]),
}


@pytest.mark.parametrize("case", CASES)
def test_one_pass_has_the_gradient_of_the_weighted_sum(case, monkeypatch):
    net, losses = CASES[case]
    monkeypatch.setitem(PRESETS, "stream", preset_of(net))  # under the default name
    config = TrainConfig(
        losses=tuple(losses), clip=2, chunk=2, batch=2, discriminator_channels=CHANNELS
    )
    training = init_run(config, torch.device("cpu"))
    terms = terms_of(loss_weights(config.losses), training.loss_modules)
    frames = torch.rand(2, 2, 3, 64, 96)
    frames[:, 1] = frames[:, 0].roll(2, -1)
    # Some of the frames is padding, and the clip goes on from another frame.
    chunk = chunk_of(
        frames, valid_region=Region(8, 0, 48, 96), previous_low=torch.rand(2, 3, 16, 24)
    )
    expected = weighted_sum_gradients(training, terms, config, chunk)

    passes = []
    training.net.register_forward_hook(lambda *_: passes.append(1))
    parameters = training.optimizers["generator"].param_groups[0]["params"]
    output, _ = forward(training.net, chunk, None)
    output, target = crop_to_valid(output, chunk, training.net.scale)
    _, leaves = output_gradients(
        terms, loss_weights(config.losses), output, target, parameters, config, training.scaler
    )
    backward(output, leaves)
    for parameter, gradient in zip(parameters, expected, strict=True):
        if gradient is None:
            assert parameter.grad is None
        else:
            largest = gradient.abs().max()
            assert (parameter.grad - gradient).abs().max() <= 1e-5 * largest + 1e-9
    assert sum(gradient is not None for gradient in expected) > 20
    for name in DISCRIMINATORS:
        if name in training.loss_modules:
            assert all(p.grad is None for p in training.loss_modules[name].parameters())


@pytest.mark.parametrize("model", ["stream", "paper"])
def test_a_step_runs_the_generator_once(model, monkeypatch):
    monkeypatch.setitem(PRESETS, "stream", preset_of(STREAM))
    monkeypatch.setitem(PRESETS, "paper", preset_of(UNET))
    config = TrainConfig(
        model=model, losses=PUBLISHED_LOSSES, clip=2, chunk=2, discriminator_channels=CHANNELS
    )
    training = init_run(config, torch.device("cpu"))
    terms = terms_of(PUBLISHED_LOSSES, training.loss_modules)
    passes = []
    kind, name = (StreamNet, "step") if model == "stream" else (RecurrentUNet, "_step")
    original = getattr(kind, name)
    monkeypatch.setattr(kind, name, lambda *a: passes.append(1) or original(*a))
    before = [p.detach().clone() for p in training.loss_modules.parameters()]
    values, _, _ = train_step(training, terms, chunk_of(torch.rand(1, 2, 3, 64, 64)), config)
    assert len(passes) == (2 if model == "stream" else 1)  # frames; items of two frames
    expected = [*PUBLISHED_LOSSES, "psnr", "gradient_norm"]
    expected += [f"{name}/discriminator" for name in DISCRIMINATORS]
    assert list(values) == expected
    pairs = zip(before, training.loss_modules.parameters(), strict=True)
    moved = [not torch.equal(old, new) for old, new in pairs]
    assert sum(moved) > 0.9 * len(moved)  # both discriminators, α and c
    assert training.step == 1 and training.position == Position(1)


def test_padding_is_not_scored():
    frames = torch.rand(1, 2, 3, 64, 64)
    region = Region(16, 8, 32, 40)
    chunk = chunk_of(frames, valid_region=region, previous_low=torch.rand(1, 3, 16, 16))
    output = Output(
        torch.rand(1, 2, 3, 64, 64), torch.rand(1, 2, 2, 16, 16), torch.rand(1, 2, 3, 16, 16)
    )
    cut, target = crop_to_valid(output, chunk, 4)
    assert torch.equal(cut.frames, output.frames[..., 16:48, 8:48])
    assert torch.equal(cut.motion, output.motion[..., 4:12, 2:12])
    assert torch.equal(cut.low, output.low[..., 4:12, 2:12])
    assert torch.equal(target.frames, frames[..., 16:48, 8:48])
    assert torch.equal(target.low, chunk.low[..., 4:12, 2:12])
    assert torch.equal(target.before, chunk.previous_low[..., 4:12, 2:12])
    # A network that does not enlarge is to make the low-resolution frames.
    cut, target = crop_to_valid(Output(torch.rand(1, 2, 3, 16, 16)), chunk, 1)
    assert cut.frames.shape == target.frames.shape == (1, 2, 3, 8, 10)
    assert torch.equal(target.frames, target.low)


def test_what_is_no_number_is_not_learned_from(monkeypatch):
    monkeypatch.setitem(PRESETS, "stream", preset_of(STREAM))
    config = TrainConfig(losses=("supervised", "adversarial"), discriminator_channels=CHANNELS)
    training = init_run(config, torch.device("cpu"))
    terms = terms_of(loss_weights(config.losses), training.loss_modules)
    supervised = terms["supervised"]
    before = {name: p.detach().clone() for name, p in training.net.named_parameters()}
    for broken in (math.nan, math.inf):
        terms["supervised"] = lambda o, t, broken=broken: supervised(o, t) * broken
        with pytest.raises(InputError, match=r"'supervised' is (nan|inf) at step 0"):
            train_step(training, terms, chunk_of(torch.rand(1, 2, 3, 64, 64)), config)
    # Finite losses may have a gradient that is not.
    terms["supervised"] = lambda o, t: (o.frames - o.frames.detach()).abs().sqrt().mean()
    with pytest.raises(InputError, match="'gradient_norm' is nan at step 0"):
        train_step(training, terms, chunk_of(torch.rand(1, 2, 3, 64, 64)), config)
    assert all(torch.equal(p, before[name]) for name, p in training.net.named_parameters())


@pytest.mark.parametrize(
    ("losses", "complaint"),
    [
        (("supervized",), "did you mean 'supervised'"),
        (("flow", "flow"), "received 'flow'"),
        ((), "received none"),
        (("flow=much",), "expected NAME=WEIGHT"),
        (("flow=-1",), "expected NAME=WEIGHT"),
        (("flow=nan",), "expected NAME=WEIGHT"),
    ],
)
def test_losses_that_do_not_exist_are_refused(losses, complaint):
    with pytest.raises(InputError, match=complaint):
        loss_weights(losses)


def test_terms_for_other_networks_say_so():
    frames = torch.rand(1, 2, 3, 32, 32)
    terms = terms_of(["motion", "low-resolution", "low-perceptual"], nn.ModuleDict())
    for term in terms.values():
        with pytest.raises(InputError, match="expected --model"):
            term(Output(frames), Target(frames, frames))


def test_windows_are_the_same_random_part_of_all_clips():
    places = torch.arange(40 * 48.0).view(1, 40, 48)
    seen = set()
    for _ in range(60):
        first, second = random_crop(8, places, -places)
        assert first.shape == (1, 32, 40) and torch.equal(first, -second)
        top, left = divmod(int(first[0, 0, 0]), 48)
        assert torch.equal(first, places[:, top : top + 32, left : left + 40])
        seen.add((top % 4, left % 4))
    assert len(seen) == 16  # every place relative to strides of four
    assert random_crop(100, places)[0].shape == (1, 32, 32)
    assert random_crop(0, places)[0].shape == places.shape


def test_the_command_line_lists_the_terms_and_the_metrics(capsys):
    from deepfovea.cli import main
    from deepfovea.metrics import METRICS

    for words, names in (
        (["train", "--list-losses"], list(LOSSES)),
        (["evaluate", "--list-metrics"], [metric.selector for metric in METRICS.values()]),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if line[0] != " "]
        assert [line.split(":")[0] for line in lines] == names
