"""Claims about the published table: an independent computation finds the same figures."""

import json
import re

import media
import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from deepfovea.checkpoint import save_model
from deepfovea.cli import main
from deepfovea.config import InputError
from deepfovea.generators.stream.net import StreamConfig, StreamNet
from deepfovea.generators.unet.net import RecurrentUNet, UNetConfig
from deepfovea.io.decoded_cache import Source
from deepfovea.metrics.pixel import psnr
from deepfovea.metrics.published import published_psnr, published_ssim
from deepfovea.reds.items import PublishedItems
from deepfovea.reds.validate import Row, Scores, mean_scores, to_json, to_markdown, validate
from deepfovea.video import VideoReader, VideoWriter

SIZE = (96, 128)
INSIDE = (slice(None), slice(4, 92))  # rows of 90 that are no padding


def write_pngs(folder, images):
    folder.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(folder, frame_rate=24) as writer:
        for number, image in enumerate(images):
            writer.write(image, number / 24)
    return folder


@pytest.fixture(scope="module")
def reds(tmp_path_factory):
    """A small REDS: its val has a video of 3 items, one of 2, and one that is too short."""
    root = tmp_path_factory.mktemp("REDS")
    for number, count in enumerate((14, 10, 3)):
        images = media.moving(count, 90, 160, seed=number)
        write_pngs(root / "val" / "val_sharp" / f"{number:03d}", images)
    write_pngs(root / "test" / "test_sharp" / "000", media.moving(6, 90, 160, seed=8))
    write_pngs(root / "train" / "train_sharp" / "000", media.moving(6, 90, 160, seed=9))
    return root


def untrained(network):
    """Random weights, rounded to float16, with a visible effect of the state."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_((parameter + 0.05 * torch.randn_like(parameter)).half())
    return network.eval()


@pytest.fixture(scope="module")
def six():
    torch.manual_seed(0)
    return untrained(RecurrentUNet(UNetConfig(6, False, True, (4,) * 5, (4,) * 4, (4, 18))))


@pytest.fixture(scope="module")
def model(tmp_path_factory, six):
    path = tmp_path_factory.mktemp("model") / "six.safetensors"
    save_model(path, six, {})
    return path


class Oracle(torch.nn.Module):
    """A network that returns the truth plus a constant."""

    scale, frames_per_step = 4, 6

    def __init__(self, truth, error=0.0):
        super().__init__()
        self.truth, self.error = iter(truth), error
        self.parameter = torch.nn.Parameter(torch.zeros(1))

    def forward(self, samples, mask, state=None, motion=None, jitter=None):
        return next(self.truth)["frames"][None].float() / 255 + self.error, None


# --- the published definitions ----------------------------------------------------------------


def test_the_published_psnr_has_the_prediction_for_its_peak():
    torch.manual_seed(0)
    truth = torch.rand(1, 18, 24, 32)
    prediction = truth + 0.1 * torch.randn_like(truth)
    x, y = (t.double().numpy() for t in (prediction, truth))
    expected = 10 * np.log10(x.max() ** 2 / (np.mean((x - y) ** 2) + 1e-8))
    assert float(published_psnr(prediction, truth)) == pytest.approx(expected, abs=1e-4)
    # One overshooting value in 13824 is rewarded.
    prediction[0, 0, 0, 0] = 3.0
    assert published_psnr(prediction, truth) > expected + 5
    # With a peak of 1.0 and one frame it is the correct one.
    half = torch.full((3, 8, 8), 0.5)
    half[0, 0, 0] = 1.0
    assert float(published_psnr(half, half - 0.1)) == pytest.approx(20, abs=1e-4)
    assert float(psnr(half, half - 0.1)) == pytest.approx(20, abs=1e-4)


def test_the_published_ssim_is_one_global_correlation():
    torch.manual_seed(0)
    truth = torch.rand(1, 18, 24, 32)
    prediction = (0.7 * truth + 0.2 + 0.1 * torch.randn_like(truth)).float()
    x, y = (t.double().numpy() for t in (prediction, truth))
    covariance = np.cov(x.ravel(), y.ravel(), bias=True)[0, 1]
    expected = 4 * x.mean() * y.mean() * covariance
    expected /= (x.mean() ** 2 + y.mean() ** 2) * (x.var(ddof=1) + y.var(ddof=1))
    assert float(published_ssim(prediction, truth)) == pytest.approx(expected, rel=1e-5)
    # It ignores positions: the same permutation of all pixels changes nothing.
    order = torch.randperm(truth.numel())
    shuffled = published_ssim(prediction.flatten()[order], truth.flatten()[order])
    assert float(shuffled) == pytest.approx(expected, rel=1e-5)
    # Equal pictures of N values have (N - 1) / N.
    few = torch.rand(1, 1, 2, 2)
    assert float(published_ssim(few, few)) == pytest.approx(0.75, rel=1e-5)


# --- the table --------------------------------------------------------------------------------


def independent(network, items, state):
    """Both sets of scores of one video, in NumPy and scikit-image."""
    published, correct = [], []
    for item in items:
        truth = item["frames"].double() / 255
        low = sum(truth[..., y::4, x::4] for y in (1, 2) for x in (1, 2)) / 4
        mask = item["mask"].float()
        with torch.no_grad():
            output, state = network((low.float() * mask)[None], mask[None], state)
        x, y = output[0].double().numpy(), truth.numpy()
        covariance = np.mean((x - x.mean()) * (y - y.mean()))
        published.append(
            (
                np.abs(x - y).mean(),
                ((x - y) ** 2).mean(),
                10 * np.log10(x.max() ** 2 / (((x - y) ** 2).mean() + 1e-8)),
                4 * x.mean() * y.mean() * covariance
                / ((x.mean() ** 2 + y.mean() ** 2) * (x.var(ddof=1) + y.var(ddof=1))),
            )
        )  # fmt: skip
        for t in range(0 if item["is_clip_start"] else 2, 6):
            a, b = x[t][INSIDE].clip(0, 1), y[t][INSIDE]
            ssim = structural_similarity(
                a, b, channel_axis=0, data_range=1, gaussian_weights=True, sigma=1.5,
                use_sample_covariance=False,
            )  # fmt: skip
            error = ((a - b) ** 2).mean()
            correct.append((np.abs(a - b).mean(), error, -10 * np.log10(error), ssim))
    return np.mean(published, 0), np.mean(correct, 0), state


def item_count(reds, name, seed=0):
    with VideoReader(reds / "val" / "val_sharp" / name) as reader:
        images = np.stack([frame.image for frame in reader])
    items = PublishedItems([Source(name, images)], seed, SIZE)
    return [items[k] for k in range(len(items))]


def values(scores):
    return [scores.l1, scores.l2, scores.psnr, scores.ssim]


@pytest.mark.parametrize("policy", ["reset", "carry"])
@pytest.mark.parametrize("kind", ["six", "one"])
def test_the_figures_are_those_of_an_independent_computation(reds, six, policy, kind):
    torch.manual_seed(1)
    network = six if kind == "six" else untrained(StreamNet(StreamConfig(8, 8, 4, 4)))
    seen = []
    rows = validate(reds, network, state=policy, size=SIZE, seed=5, on_row=seen.append)
    assert rows == seen
    assert [(r.video, r.items, r.frames) for r in rows] == [("000", 3, 14), ("001", 2, 10)]
    state = None
    for row in rows:
        items = item_count(reds, row.video, seed=5)
        state = None if policy == "reset" else state
        published, correct, state = independent(network, items, state)
        assert values(row.published) == pytest.approx(published, rel=1e-4)
        assert values(row.correct) == pytest.approx(correct, rel=1e-3)
        sampled = np.mean([item["mask"][..., 1:23, :].float().mean() for item in items])
        assert row.sampled == pytest.approx(sampled, abs=1e-5)


def test_the_state_goes_on_into_the_next_video_only_when_carried(reds, six):
    reset, carry = (validate(reds, six, state=p, size=SIZE) for p in ("reset", "carry"))
    assert reset[0] == carry[0]
    assert reset[1].sampled == carry[1].sampled
    assert reset[1].published.l2 != carry[1].published.l2


def test_the_state_is_new_before_every_item_when_asked(reds, six):
    """The published code does so on several GPUs; for a video of one item nothing changes."""
    rows = {state: validate(reds, six, state=state, size=SIZE) for state in ("reset", "item")}
    first = [validate(reds, six, state=state, size=SIZE, frames=6) for state in ("reset", "item")]
    assert first[0] == first[1]
    assert rows["reset"][0].sampled == rows["item"][0].sampled
    assert rows["reset"][0].published.l2 != rows["item"][0].published.l2


def test_padding_counts_in_the_published_figures_alone(reds):
    truth = [item for name in ("000", "001") for item in item_count(reds, name)]
    rows = validate(reds, Oracle(truth), size=SIZE)
    for row in rows:
        # the peak of the published PSNR: 10 log10(max² / 1e-8)
        assert row.published.psnr == pytest.approx(80, abs=1.1)
        assert values(row.correct) == pytest.approx([0, 0, 100, 1], abs=1e-6)
    # Only the padding is wrong, which must not change the correct figures.
    for item in truth:
        item["frames"] = item["frames"].clone()
        item["frames"][..., :4, :] = 255
    rows = validate(reds, Oracle(truth), size=SIZE)
    for row in rows:
        assert row.published.l1 == pytest.approx(4 / 96, rel=1e-5)
        assert values(row.correct) == pytest.approx([0, 0, 100, 1], abs=1e-6)
    # Values above 1, which cannot be shown, are clamped and so are no error.
    bright = [item | {"frames": torch.full_like(item["frames"], 255)} for item in truth]
    plain, over = (validate(reds, Oracle(bright, e), size=SIZE) for e in (0.0, 2.0))
    assert [r.correct for r in plain] == [r.correct for r in over]
    assert plain[0].published.l1 + 2 == pytest.approx(over[0].published.l1, rel=1e-5)


def test_the_mean_over_videos_and_the_text():
    one, two = Scores(0.2, 0.1, 20.0, 0.5), Scores(0.4, 0.3, 30.0, 0.7)
    assert mean_scores([one, two]) == Scores(pytest.approx(0.3), 0.2, 25.0, pytest.approx(0.6))
    nan = Scores(0.0, 0.0, float("-inf"), float("nan"))
    rows = [Row("a", 2, 10, 0.2, one, two), Row("b", 1, 6, 0.2, nan, two)]
    table = json.loads(to_json(rows, {"seed": 1}), parse_constant=pytest.fail)
    assert table["rows"][0]["published"] == {"l1": 0.2, "l2": 0.1, "psnr": 20.0, "ssim": 0.5}
    assert table["rows"][1]["published"]["ssim"] is None
    assert table["mean"]["correct"]["psnr"] == 30.0
    assert table["mean"]["as published, not comparable"]["psnr"] is None
    text = to_markdown(rows[:1], "tiny val").splitlines()
    assert text[0] == "| tiny val | L1 ↓ | L2 ↓ | PSNR ↑, dB | SSIM ↑ |"
    assert text[2] == "| as published, **not comparable** | 0.2000 | 0.1000 | 20.00 | 0.5000 |"
    assert text[3] == "| **correct** | 0.4000 | 0.3000 | 30.00 | 0.7000 |"
    assert "1 video, 10 frames" in text[-1]


def test_models_and_folders_that_do_not_fit(reds, six, tmp_path):
    two = RecurrentUNet(UNetConfig(4, False, True, (4,) * 5, (4,) * 4, (4, 12)))
    with pytest.raises(InputError, match="received a model that enlarges 4 by 4"):
        validate(reds, two)
    write_pngs(tmp_path / "short", media.moving(5, 16, 16))
    with pytest.raises(InputError, match="no video of at least 6 frames; expected one"):
        validate(tmp_path, six)


# --- the command line -------------------------------------------------------------------------


def test_validate_and_test_write_the_table(reds, model, tmp_path, capsys):
    for verb, videos in (("validate", 2), ("test", 1)):
        arguments = [verb, "--data", reds, "--model", model, "--size", "96x128", "--frames", "10"]
        arguments += ["--json", tmp_path / f"{verb}.json", "--markdown", tmp_path / f"{verb}.md"]
        assert main([str(a) for a in arguments]) == 0
        shown = capsys.readouterr().out
        assert (tmp_path / f"{verb}.md").read_text(encoding="utf-8") == shown
        assert "as published, **not comparable**" in shown
        table = json.loads((tmp_path / f"{verb}.json").read_text(encoding="utf-8"))
        assert len(table["rows"]) == videos
        assert table["rows"][0]["frames"] == (10 if verb == "validate" else 6)
        assert table["protocol"]["size"] == [96, 128]
        figure = table["mean"]["correct"]["psnr"]
        assert re.search(rf"\*\*correct\*\* \|.* {figure:.2f} \|", shown)


def test_unreadable_frames_are_fatal_or_skipped(reds, model, tmp_path, capsys, caplog):
    root = tmp_path / "root"
    write_pngs(root / "a", media.moving(8, 64, 64))
    long = "b" * 200  # whole in the table, but not in the line that says how far it is
    write_pngs(root / long, media.moving(6, 64, 64))
    (root / "a" / "00000004.png").write_text("no picture", encoding="utf-8")
    (root / "c.mp4").write_text("no video", encoding="utf-8")
    arguments = ["validate", "--data", str(root), "--model", str(model), "--size", "64x64"]
    assert main(arguments) == 2
    assert "a/00000004.png" in capsys.readouterr().err
    report = tmp_path / "rows.json"
    assert main([*arguments, "--skip-unreadable", "--json", str(report)]) == 0
    rows = json.loads(report.read_text(encoding="utf-8"))["rows"]
    assert [(row["video"], row["frames"]) for row in rows] == [("a", 6), (long, 6)]
    told = next(line for line in capsys.readouterr().err.splitlines() if "bbb" in line)
    assert "…" in told
    assert len(told) < 80
    assert all(any(name in m for m in caplog.messages) for name in ("00000004.png", "c.mp4"))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("validate --data missing", "no such folder"),
        ("validate --data empty", "neither videos nor images"),
        ("test --data half", "received .*val_sharp, expected .*test_sharp too"),
        ("validate --data half --size 90x128", "received 90x128; expected positive multiples of 4"),
        ("validate --data half --size 8x8", "SSIM"),
        ("validate --data half --frames 5", "no video of at least 6 frames"),
        ("infer empty -o out", "neither videos nor images"),
        ("infer half -o half/val/val_sharp/000/00000000.png", "inside the input half"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    tmp_path, model, monkeypatch, capsys, arguments, complaint
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write_pngs(tmp_path / "half" / "val" / "val_sharp" / "000", media.moving(6, 64, 64))
    before = sorted(tmp_path.rglob("*"))
    assert main([*arguments.split(), "--model", str(model)]) == 2
    *rows, error = capsys.readouterr().err.splitlines()
    assert len(rows) <= 1
    assert re.match(f"deepfovea: .*{complaint}", error)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture
def folder(tmp_path):
    """Inputs for infer: a video, one in a format that can only be read, a folder of images."""
    root = tmp_path / "data"
    write_pngs(root / "deep" / "take1", media.moving(7, 32, 48))
    write_pngs(root / "plain", media.moving(2, 32, 48)).rename(root / "take.2")
    media.write_video(root / "one.mp4", media.moving(3, 32, 48))
    media.write_video(root / "two.gif", media.moving(2, 32, 48), codec="gif", pix_fmt="bgr8")
    return root


def frames_of(path):
    with VideoReader(path) as reader:
        return np.stack([frame.image for frame in reader])


def test_infer_answers_every_video(folder, model, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    arguments = ["infer", str(folder), "-o", str(out), "--model", str(model), "--gaze", "random"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.count(" frames") == 4
    for name, count in (("deep/take1", 7), ("take_2", 2), ("one.mp4", 3), ("two.gif.mp4", 2)):
        assert frames_of(out / name).shape == (count, 128, 192, 3)
    assert len([path for path in out.rglob("*") if path.is_file()]) == 7 + 2 + 2
    # each equals the output of reconstruct; the first one has the given seed
    alone = ["reconstruct", str(folder / "deep" / "take1"), "-o", str(tmp_path / "alone")]
    assert main([*alone, "--model", str(model), "--gaze", "random"]) == 0
    assert np.array_equal(frames_of(tmp_path / "alone"), frames_of(out / "deep" / "take1"))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert main(arguments) == 2
    assert "exists already" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert main([*arguments, "--overwrite", "--frames", "1"]) == 0
    assert frames_of(out / "deep" / "take1").shape[0] == 1


def test_infer_of_a_single_folder_simulated(folder, model, tmp_path, capsys):
    arguments = ["infer", str(folder / "deep" / "take1"), "-o", str(tmp_path / "out"), "--simulate"]
    assert main([*arguments, "--model", str(model)]) == 0
    assert re.search(r"7 frames by PyTorch, PSNR \d+\.\d\d dB", capsys.readouterr().out)
    assert frames_of(tmp_path / "out" / "take1").shape == (7, 32, 48, 3)


def test_infer_stops_at_or_passes_over_what_cannot_be_read(folder, model, tmp_path, capsys, caplog):
    (folder / "one.mp4").write_text("no video", encoding="utf-8")
    (folder / "deep" / "take1" / "00000003.png").write_text("no picture", encoding="utf-8")
    arguments = ["infer", str(folder), "-o", str(tmp_path / "out"), "--model", str(model)]
    assert main(arguments) == 2
    assert "00000003.png" in capsys.readouterr().err
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert main([*arguments, "--skip-unreadable"]) == 0
    assert frames_of(tmp_path / "out" / "deep" / "take1").shape[0] == 6
    assert not (tmp_path / "out" / "one.mp4").exists()
    assert any("one.mp4" in message for message in caplog.messages)
