"""Claims about the tables: the same figures come out of an independent computation."""

import json

import media
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deepfovea.checkpoint import save_model
from deepfovea.cli import main
from deepfovea.config import Density, InputError
from deepfovea.evaluate import Row, evaluate, means, to_json, to_markdown
from deepfovea.fill import accumulate, dis_flow, pull_push
from deepfovea.fovea import sample
from deepfovea.generators.stream import StreamConfig, StreamNet
from deepfovea.generators.unet import RecurrentUNet, UNetConfig
from deepfovea.video import VideoReader, VideoWriter

BASELINES = ["fill", "accumulate", "bicubic-all"]
LONG, SHORT = "deep/long.mp4", "short.mkv"  # 9 and 3 frames of odd sizes


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    (root / "deep").mkdir()
    noise = np.random.default_rng(0).integers(-40, 40, (9, 50, 67, 3))
    images = [(a + b).clip(0, 255) for a, b in zip(media.moving(9, 50, 67), noise, strict=True)]
    images = [image.astype(np.uint8) for image in images]
    media.write_video(root / LONG, images, pix_fmt="yuv444p")
    media.write_video(root / SHORT, media.moving(3, 41, 38, seed=1), pix_fmt="yuv444p")
    return root


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Untrained: one frame at a time, and six; with the files they are saved in."""
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    one = StreamNet(StreamConfig(8, 8, 4, 4))
    six = RecurrentUNet(UNetConfig(6, False, True, (4,) * 5, (4,) * 4, (4, 18)))
    networks = {}
    for name, network in (("one", one), ("six", six)):
        with torch.no_grad():
            for parameter in network.parameters():  # as they come back from float16
                parameter.copy_((parameter + 0.05 * torch.randn_like(parameter)).half())
        path = folder / f"{name}.safetensors"
        save_model(path, network, {})
        networks[str(path)] = network.eval()
    return networks


def truth_and_low(path, count):
    """The protocol by hand: [T,3,H,W] cropped to multiples of four, and the reduced frames."""
    with VideoReader(path) as reader:
        images = np.stack([frame.image for frame in reader])[:count] / 255.0
    height, width = (side - side % 4 for side in images.shape[1:3])
    images = images[:, :height, :width]
    low = sum(images[:, y::4, x::4] for y in (1, 2) for x in (1, 2)) / 4
    return [torch.from_numpy(a).float().permute(0, 3, 1, 2) for a in (images, low)]


def enlarge(low):
    return F.interpolate(low, scale_factor=4, mode="bicubic")


def psnr(frames, truth):
    error = (frames.clamp(0, 1).double() - truth.double()).square().mean((1, 2, 3))
    return float((10 * torch.log10(1 / error)).mean())


def independent(path, count, networks, density, seed):
    """PSNR of every method and the sampled share, one frame after the other."""
    truth, low = truth_and_low(path, count)
    h, w = low.shape[-2:]
    gaze = torch.tensor([[(w - 1) / 2, (h - 1) / 2]])
    filled, carried, masks, canvas = [], [], [], None
    for t, frame in enumerate(low):
        known, mask = sample(frame[None, None], gaze[None], density, seed=seed, first_frame=t)
        filled.append(pull_push(known, mask)[0, 0])
        flow = dis_flow if w >= 12 else None  # too small for OpenCV
        color, canvas = accumulate(known, mask, canvas, flow=flow)
        carried.append(color[0, 0])
        masks.append(mask[0, 0])
    scores = {
        "fill": psnr(enlarge(torch.stack(filled)), truth),
        "accumulate": psnr(enlarge(torch.stack(carried)), truth),
        "bicubic-all": psnr(enlarge(low), truth),
    }
    mask = torch.stack(masks)
    for name, network in networks.items():
        missing = -len(low) % network.frames_per_step
        inputs = [torch.cat([x, x[-1:].repeat(missing, 1, 1, 1)])[None] for x in (low * mask, mask)]
        with torch.inference_mode():
            scores[name] = psnr(network(*inputs, None)[0][0, : len(low)], truth)
    return scores, float(mask.mean())


def by_clip_and_method(rows):
    return {(row.clip, row.method): row for row in rows}


def test_rows_equal_an_independent_computation(root, networks):
    density, heard = Density(0.9, 0.2, 2, 5), []
    rows = evaluate(
        root, list(networks), BASELINES, frames=7, seed=3, density=density, on_row=heard.append
    )
    assert heard == rows
    assert len(rows) == 10
    found = by_clip_and_method(rows)
    for clip, count in ((LONG, 7), (SHORT, 3)):  # the one shorter than asked is used whole
        scores, share = independent(root / clip, 7, networks, density, seed=3)
        for method, score in scores.items():
            row = found[clip, method]
            assert row.psnr == pytest.approx(score, abs=1e-3)
            assert row.sampled == pytest.approx(share, abs=1e-6)
            assert row.frames == count


def test_rows_depend_on_no_other_clip_or_method(root, networks):
    together = by_clip_and_method(evaluate(root, list(networks), BASELINES, frames=4))
    alone = evaluate(root / "deep", list(networks)[::-1], BASELINES[::-1], frames=4)
    assert len(alone) == 5
    for row in alone:
        assert row.clip == "long.mp4"
        same = together[LONG, row.method]
        assert (row.psnr, row.sampled) == (same.psnr, same.sampled)


def test_unknown_methods_and_none_are_refused(root):
    for models, baselines, complaint in (
        ([], ["best"], "unknown baseline 'best'.*expected"),
        (["nonsuch"], [], "unknown model 'nonsuch'.*expected"),
        ([], [], "neither models nor baselines.*expected"),
    ):
        with pytest.raises(InputError, match=complaint):
            evaluate(root, models, baselines)


def test_frames_too_small_to_reduce_are_refused(tmp_path):
    with VideoWriter(tmp_path / "tiny", frame_rate=24) as writer:
        writer.write(np.zeros((3, 9, 3), np.uint8), 0.0)
    with pytest.raises(InputError, match="less than 4 pixels"):
        evaluate(tmp_path, [], ["fill"])


ROWS = [
    Row("fill", "a", 24, 20.0, 0.2),
    Row("ours", "a", 24, 23.456, 0.2),
    Row("fill", "b", 9, 31.0, 0.3),
    Row("ours", "b", 9, 33.0, 0.3),
]


def test_the_mean_counts_every_clip_once():
    assert means(ROWS) == {"fill": 25.5, "ours": pytest.approx(28.228)}


def test_the_markdown_table_holds_the_rows_and_means():
    head, rule, *body = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in to_markdown(ROWS).splitlines()
    ]
    assert head[1:] == ["fill", "ours"]
    assert len(rule) == 3
    assert all(set(cell) <= {"-", ":"} for cell in rule)
    assert body == [
        ["a", "20.00", "23.46"],
        ["b", "31.00", "33.00"],
        ["**mean**", "**25.50**", "**28.23**"],
    ]


def test_the_json_gives_back_rows_means_and_protocol():
    result = json.loads(to_json(ROWS, {"seed": 3}))
    assert [Row(**row) for row in result["rows"]] == ROWS
    assert {name: mean["psnr"] for name, mean in result["mean"].items()} == means(ROWS)
    assert result["protocol"] == {"seed": 3}


def test_the_command_line_writes_both(root, networks, tmp_path, capsys):
    files = ["--json", str(tmp_path / "rows.json"), "--markdown", str(tmp_path / "table.md")]
    models = ["--models", ",".join(networks), "--baselines", "bicubic-all,fill"]
    protocol = ["--frames", "2", "--seed", "4", "--density", "uniform:30", "--blue-noise"]
    assert main(["evaluate", str(root), *models, *protocol, *files]) == 0
    rows = evaluate(
        *(root, list(networks), ["bicubic-all", "fill"]),
        **{"frames": 2, "seed": 4, "density": Density(0.3, 0.3), "blue_noise": True},
    )
    assert (tmp_path / "table.md").read_text() == to_markdown(rows) + "\n"
    assert capsys.readouterr().out == to_markdown(rows) + "\n"
    result = json.loads((tmp_path / "rows.json").read_text())
    assert [Row(**row) for row in result["rows"]] == rows
    stated = {"frames": 2, "seed": 4, "blue_noise": True, "gaze": "centre", "data": root.name}
    assert result["protocol"].items() >= stated.items()
    assert result["protocol"]["density"]["periphery"] == 0.3
    assert set(tmp_path.iterdir()) == {tmp_path / "rows.json", tmp_path / "table.md"}
