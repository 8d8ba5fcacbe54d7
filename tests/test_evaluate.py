"""Claims about an evaluation: an independent computation gives the same figures, in any setting."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import media
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.metrics import structural_similarity

import deepfovea
from deepfovea import fill
from deepfovea.checkpoint import save_model
from deepfovea.cli import main
from deepfovea.config import BEST_SAMPLING, Density, InputError
from deepfovea.evaluate import Protocol, evaluate, from_json, profile, to_json
from deepfovea.evaluate import result as result_module
from deepfovea.evaluate.result import PROTOCOLS, load_protocol
from deepfovea.fill import accumulate, pull_push
from deepfovea.flow import dis_flow
from deepfovea.fovea import jitter_sequence, sample
from deepfovea.gaze import GazeTrack, fixed
from deepfovea.generators.stream.net import StreamConfig, StreamNet
from deepfovea.generators.unet.net import RecurrentUNet, UNetConfig
from deepfovea.losses.flow import clip_flow
from deepfovea.losses.perceptual import PerceptualLoss, load_backbone
from deepfovea.metrics import METRICS
from deepfovea.metrics.temporal import farneback_flow
from deepfovea.runtime.engine import Engine
from deepfovea.video import VideoReader, VideoWriter

BASELINES = ["fill", "accumulate", "bicubic-all"]
LONG, SHORT = "deep/long.mp4", "short.mkv"  # 9 and 3 frames of odd sizes
PSNR_ONLY = Protocol(metrics=())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    (root / "deep").mkdir()
    noise = np.random.default_rng(0).integers(-40, 40, (9, 66, 79, 3))
    images = [(a + b).clip(0, 255) for a, b in zip(media.moving(9, 66, 79), noise, strict=True)]
    images = [image.astype(np.uint8) for image in images]
    media.write_video(root / LONG, images, pix_fmt="yuv444p")
    media.write_video(root / SHORT, media.moving(3, 41, 38, seed=1), pix_fmt="yuv444p")
    return root


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Untrained networks for one frame and for six frames at a time, with their files."""
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


def test_one_video_is_scored_as_in_its_folder(root, tmp_path, capsys):
    both = evaluate(root, [], ["fill"], PSNR_ONLY)
    assert (
        main(
            [
                "evaluate",
                str(root / SHORT),
                "--models=",
                "--baselines=fill",
                "--metrics=psnr",
                f"--json={tmp_path / 'one.json'}",
            ]
        )
        == 0
    )
    (row,) = from_json((tmp_path / "one.json").read_text(encoding="utf-8"), "").rows
    assert row.clip == SHORT
    assert row.psnr == next(other.psnr for other in both.rows if other.clip == SHORT)


def truth_and_low(path, count):
    """The protocol written out: frames [T,3,H,W], cropped to multiples of four, and reduced."""
    with VideoReader(path) as reader:
        images = np.stack([frame.image for frame in reader])[:count] / 255.0
    height, width = (side - side % 4 for side in images.shape[1:3])
    images = images[:, :height, :width]
    low = sum(images[:, y::4, x::4] for y in (1, 2) for x in (1, 2)) / 4
    return [torch.from_numpy(a).float().permute(0, 3, 1, 2) for a in (images, low)]


def enlarge(low):
    return F.interpolate(low, scale_factor=4, mode="bicubic").clamp(0, 1)


def outputs(low, gaze, networks, density, seed):
    """Frames [T,3,H,W] of every method, one frame after the other, and the masks [T,h,w]."""
    w = low.shape[-1]
    filled, carried, masks, canvas = [], [], [], None
    for t, frame in enumerate(low):
        known, mask = sample(
            frame[None, None], gaze[t][None, None], density, seed=seed, first_frame=t
        )
        filled.append(pull_push(known, mask)[0, 0])
        flow = dis_flow if w >= 12 else None  # too small for OpenCV
        color, canvas = accumulate(known, mask, canvas, flow=flow)
        carried.append(color[0, 0])
        masks.append(mask[0, 0])
    mask = torch.stack(masks)
    frames = {
        "fill": enlarge(torch.stack(filled)),
        "accumulate": enlarge(torch.stack(carried)),
        "bicubic-all": enlarge(low),
    }
    for name, network in networks.items():
        missing = -len(low) % network.frames_per_step
        inputs = [torch.cat([x, x[-1:].repeat(missing, 1, 1, 1)])[None] for x in (low * mask, mask)]
        with torch.inference_mode():
            frames[name] = network(*inputs, None)[0][0, : len(low)]
    return frames, mask[:, 0]


def psnr(error):
    return 10 * np.log10(1 / error.mean())


def by_hand(raw, truth, mask, gaze, density, backbone):
    """Every metric of one method on one clip, written out with numpy and scikit-image."""
    values = {}

    def put(name, value):
        values.setdefault(name, []).append(float(value))

    frames, masks = raw.clamp(0, 1).double(), mask.numpy() > 0
    rows, columns = np.mgrid[: mask.shape[1], : mask.shape[2]]
    flow, occlusion = clip_flow(truth[None], dis_flow)
    for t in range(len(truth)):
        x, y = (f[t].numpy().astype(float) for f in (frames, truth.double()))
        similarity = structural_similarity(
            *(x, y),
            **{"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False},
            **{"data_range": 1.0, "channel_axis": 0, "full": True},
        )[1].mean(0)
        inside = np.zeros(similarity.shape, bool)
        inside[5:-5, 5:-5] = True
        distance = np.hypot(columns - float(gaze[t, 0]), rows - float(gaze[t, 1]))
        regions = {
            "": distance >= 0,
            "_fovea": distance <= density.inner,
            "_blend": (distance > density.inner) & (distance < density.outer),
            "_periphery": distance >= density.outer,
            "_sampled": masks[t],
            "_dropped": ~masks[t],
        }
        for name, region in regions.items():
            where = np.kron(region, np.ones((4, 4), bool))
            if where.any():
                difference = (x - y)[:, where]
                put(f"l1{name}", abs(difference).mean())
                put(f"mse{name}", (difference**2).mean())
                put(f"psnr{name}", psnr(difference**2))
            if (where & inside).any():
                put(f"ssim{name}", similarity[where & inside].mean())
        if min(truth.shape[-2:]) >= 64:
            put("features", PerceptualLoss(backbone, resolution=1.0)(frames[t].float(), truth[t]))
        if t:
            warped = fill.backward_warp(frames[t][None].float(), flow[0, t - 1][None])[0].double()
            seen = (~occlusion[0, t - 1]).expand_as(warped)
            error = (warped - frames[t - 1])[seen] ** 2
            put("e_warp", error.mean() if len(error) else 0.0)
            flows = [farneback_flow(f[t - 1], f[t]) for f in (frames.float(), truth)]
            h, w = ((side - 16) // 32 * 32 for side in flows[0].shape[:2])
            top, left = (flows[0].shape[0] - h) // 2, (flows[0].shape[1] - w) // 2
            middle = np.s_[top : top + h, left : left + w] if h and w else np.s_[:, :]
            put("t_of", np.hypot(*np.moveaxis(flows[0] - flows[1], -1, 0))[middle].mean())
    for start in range(0, len(truth), 6):
        x, y = (f[start : start + 6].double().numpy() for f in (raw, truth))
        put("psnr_published", psnr((x - y) ** 2) + 20 * np.log10(x.max()))
        put("ssim_published", global_correlation(x, y))
    return {name: np.mean(numbers) for name, numbers in values.items()}


def global_correlation(x, y):
    mean = 2 * x.mean() * y.mean() / (x.mean() ** 2 + y.mean() ** 2)
    covariance = (x * y).mean() - x.mean() * y.mean()
    return mean * 2 * covariance / (x.var(ddof=1) + y.var(ddof=1))


def by_clip_and_method(result):
    return {(row.clip, row.method): row for row in result.rows}


def test_rows_equal_an_independent_computation(root, networks):
    density, heard, notes = Density(0.9, 0.2, 2, 5), [], []
    metrics = ("ssim", "temporal", "features", "published")
    result = evaluate(
        root,
        list(networks),
        BASELINES,
        Protocol(frames=7, seed=3, density=density, metrics=metrics),
        track=lambda clip: fixed(0.3, 0.6),
        on_row=heard.append,
        on_note=notes.append,
    )
    assert heard == result.rows
    assert len(result.rows) == 10
    found, backbone = by_clip_and_method(result), load_backbone("efficientnet-lite0")
    for clip, count in ((LONG, 7), (SHORT, 3)):  # the one shorter than asked is used whole
        truth, low = truth_and_low(root / clip, 7)
        size = torch.tensor([low.shape[-1], low.shape[-2]])
        gaze = (torch.tensor([0.3, 0.6]) * size - 0.5).expand(count, 2)
        frames, mask = outputs(low, gaze, networks, density, seed=3)
        for method, raw in frames.items():
            row = found[clip, method]
            expected = by_hand(raw, truth, mask, gaze, density, backbone)
            present = {name: value for name, value in row.values.items() if value is not None}
            present.pop("e_warp_original")
            foveated = {name for name in present if name.endswith("_foveated")}
            assert foveated == {f"{name}_foveated" for name in ("l1", "mse", "psnr", "ssim")}
            present = {k: v for k, v in present.items() if k not in foveated}
            assert present.keys() == expected.keys()
            for name, value in present.items():
                tolerance = 1e-3 if name.startswith("psnr") else 2e-5
                assert value == pytest.approx(expected[name], abs=tolerance, rel=1e-4), name
            assert row.gaze_px == (pytest.approx(gaze[0].tolist(), abs=1e-3),)
            assert row.sampled == pytest.approx(float(mask.mean()), abs=1e-6)
            assert row.frames == count
            assert row.psnr == pytest.approx(np.mean(row.psnr_by_frame), abs=1e-5)
            assert len(row.psnr_by_frame) == count
            rows, columns = np.mgrid[: low.shape[-2], : low.shape[-1]]
            rings = np.hypot(columns - float(gaze[0, 0]), rows - float(gaze[0, 1])) // 10
            error = (raw.clamp(0, 1) - truth).square().mean((0, 1)).numpy()
            nearest = error[np.kron(rings == 0, np.ones((4, 4), bool))].mean()
            assert row.mse_by_eccentricity[0] == pytest.approx(nearest, rel=1e-4)
            assert len(row.mse_by_eccentricity) == rings.max() + 1
    assert result.notes == notes
    assert notes == [
        f"{LONG}: 79x66 pixels are no multiple of 4; cropped to 76x64",
        f"{SHORT}: has 3 of the 7 frames asked for; used whole",
        f"{SHORT}: 38x41 pixels are no multiple of 4; cropped to 36x40",
    ]


def test_the_gaze_may_move_and_regions_follow_it(root):
    """The error of a corner counts as foveal in the frames in which the gaze is there."""

    def jump(clip):
        corners = np.array([[0.0, 0.0], [1.0, 1.0]])
        return GazeTrack(clip.times[[0, 1]], corners, np.ones(2, bool))

    protocol = Protocol(frames=2, density=Density(0.9, 0.2, 3, 6), metrics=())
    row = evaluate(root / "deep", [], ["bicubic-all"], protocol, track=jump).rows[0]
    truth, low = truth_and_low(root / LONG, 2)
    error = (enlarge(low) - truth).square().mean(1).numpy()
    h, w = low.shape[-2:]
    expected = []
    for t, (x, y) in enumerate(((-0.5, -0.5), (w - 0.5, h - 0.5))):
        rows, columns = np.mgrid[:h, :w]
        fovea = np.kron(np.hypot(columns - x, rows - y) <= 3, np.ones((4, 4), bool))
        expected.append(psnr(error[t][fovea]))
    assert row.values["psnr_fovea"] == pytest.approx(np.mean(expected), abs=1e-3)
    assert row.gaze_px == ((-0.5, -0.5), (w - 0.5, h - 0.5))


def test_a_metric_is_told_the_jitter_of_the_method_that_it_judges(root, networks, monkeypatch):
    """One network is sampled on a shifted grid and receives the jitter; the others do not."""
    seen = {}

    def spy(prediction, reference):
        seen.setdefault(prediction.numpy().tobytes(), (reference.frame_number, reference.jitter))
        return 0.0

    metric = dataclasses.replace(METRICS["mask_imprint"], function=spy)
    monkeypatch.setitem(METRICS, "mask_imprint", metric)
    protocol = Protocol(3, metrics=("mask-imprint",), jitter="quad")
    evaluate(root / "deep", list(networks), ["fill"], protocol)
    expected = jitter_sequence("quad", 0, 3)
    told = [(t, jitter) for t, jitter in seen.values() if jitter is not None]
    assert sorted(t for t, _ in told) == [0, 1, 2]  # of one method of three
    assert len(seen) == 9
    for t, jitter in told:
        assert torch.equal(jitter, expected[t : t + 1])


def test_rows_depend_on_no_other_clip_or_method_and_not_on_workers_or_threads(root, networks):
    protocol = Protocol(frames=4, metrics=("ssim", "temporal"))
    together = evaluate(root, list(networks), BASELINES, protocol)
    alone = evaluate(root / "deep", list(networks)[::-1], BASELINES[::-1], protocol)
    assert len(alone.rows) == 5
    same = by_clip_and_method(together)
    for row in alone.rows:
        assert row.clip == "long.mp4"
        other = same[LONG, row.method]
        assert (row.values, row.sampled) == (other.values, other.sampled)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        again = evaluate(root, list(networks), BASELINES, protocol, workers=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert to_json(again) == to_json(together)


def test_processes_share_the_clips(root, networks, tmp_path):
    """Two processes of torchrun write the same as one, to the last digit."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    words = ["evaluate", str(root), "--models", ",".join(networks), "--frames", "4"]
    words += ["--metrics", "ssim,temporal"]
    environment = {**os.environ, "PYTHONPATH": str(Path(deepfovea.__file__).parents[1])}

    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += ["--master_port", str(port), "-m", "deepfovea", "--", *words]
    command += ["--json", str(tmp_path / "two.json"), "--markdown", str(tmp_path / "two.md")]
    done = subprocess.run(
        command, env=environment, capture_output=True, encoding="utf-8", timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert main([*words, "--json", str(tmp_path / "one.json")]) == 0
    assert (tmp_path / "two.json").read_text(encoding="utf-8") == (tmp_path / "one.json").read_text(
        encoding="utf-8"
    )
    said = done.stdout.splitlines(True)
    lines = [line for line in said if not line.startswith("[Gloo] ")]  # torch 2.10
    assert "".join(lines) == (tmp_path / "two.md").read_text(encoding="utf-8")  # said once
    assert {path.name for path in tmp_path.iterdir()} == {"one.json", "two.json", "two.md"}


def test_without_accelerate_one_process_works_and_several_say_what_is_missing(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert len(evaluate(root, [], ["fill"], PSNR_ONLY).rows) == 2
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"Accelerate.*pip install 'deepfovea\[eval\]'"):
        evaluate(root, [], ["fill"], PSNR_ONLY)


def test_unknown_methods_metrics_and_none_are_refused(root):
    for models, baselines, protocol, complaint in (
        ([], ["best"], PSNR_ONLY, "unknown baseline 'best'.*expected"),
        (["nonsuch"], [], PSNR_ONLY, "unknown model 'nonsuch'.*expected"),
        ([], [], PSNR_ONLY, "neither models nor baselines.*expected"),
        ([], ["fill"], Protocol(metrics=("vmaf",)), "--metrics: received 'vmaf', expected"),
        ([], ["fill"], Protocol(flow="best"), "flow estimator: received 'best'"),
    ):
        with pytest.raises(InputError, match=complaint):
            evaluate(root, models, baselines, protocol)
    for angle in (0.0, 180.0, float("nan")):
        with pytest.raises(InputError, match="expected 0 to 180 degrees"):
            Protocol(fov_deg=angle)


def test_frames_too_small_to_reduce_are_refused(tmp_path):
    with VideoWriter(tmp_path / "tiny", frame_rate=24) as writer:
        writer.write(np.zeros((3, 9, 3), np.uint8), 0.0)
    with pytest.raises(InputError, match=r"no clip can be used.*9x3 pixels, less than 4"):
        evaluate(tmp_path, [], ["fill"], PSNR_ONLY)


def test_small_frames_and_single_ones_leave_columns_empty(tmp_path):
    with VideoWriter(tmp_path / "tiny", frame_rate=24) as writer:
        writer.write(np.full((8, 8, 3), 99, np.uint8), 0.0)
    result = evaluate(tmp_path, [], ["fill"], Protocol(metrics=("ssim", "temporal", "features")))
    present = {name for name, value in result.rows[0].values.items() if value is not None}
    assert present >= {"l1", "mse", "psnr", "psnr_fovea"}
    assert not present & {"ssim", "e_warp", "t_of", "features", "psnr_periphery"}


def test_a_clip_that_cannot_be_read_is_named_and_the_others_go_on(root, tmp_path, capsys):
    (tmp_path / "a-broken.mp4").write_bytes(b"no video at all")
    (tmp_path / "good.mp4").symlink_to(root / LONG)
    rows = tmp_path.with_name(f"{tmp_path.name}-rows.json")
    words = ["evaluate", str(tmp_path), "--models=", "--baselines=fill", "--metrics=psnr"]
    assert main([*words, "--frames=2", f"--json={rows}"]) == 1
    output = capsys.readouterr()
    assert "a-broken.mp4: left out: " in output.err
    assert "a-broken.mp4" in output.out
    result = from_json(rows.read_text(encoding="utf-8"))
    assert result.clips == ["good.mp4"]
    assert [line.split(":")[0] for line in result.failed] == ["a-broken.mp4"]
    alone = evaluate(root / "deep", [], ["fill"], Protocol(2, metrics=()))
    assert result.rows[0].values == alone.rows[0].values


@pytest.mark.parametrize(
    ("package", "metric", "columns", "extra"),
    [
        ("cv2", "temporal", {"e_warp", "t_of"}, "eval"),
        ("efficientnet_lite_pytorch", "features", {"features"}, "eval"),
        ("lpips", "lpips", {"lpips", "t_lpips"}, "eval"),
        ("pyfvvdp", "jod", {"jod"}, "jod"),
    ],
)
def test_a_metric_without_its_package_is_absent_and_one_line_says_so(
    root, monkeypatch, package, metric, columns, extra
):
    monkeypatch.setitem(sys.modules, package, None)
    lines = []
    result = evaluate(
        root / "deep", [], ["fill"], Protocol(2, metrics=(metric,)), on_note=lines.append
    )
    unavailable = [line for line in lines if "unavailable" in line]
    assert len(unavailable) == 1
    assert f"pip install 'deepfovea[{extra}]'" in unavailable[0]
    assert "\n" not in unavailable[0]
    assert unavailable[0] in result.notes
    assert not result.rows[0].values.keys() & columns
    assert "psnr" in result.rows[0].values


@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")
def test_jod_judges_what_is_shown(root, predictor):
    pyfvvdp = predictor("pyfvvdp")
    result = evaluate(
        root / "deep",
        [],
        ["fill", "bicubic-all"],
        Protocol(3, metrics=("jod",)),
        track=lambda clip: fixed(0.25, 0.75),
    )
    metric = pyfvvdp.fvvdp(display_name="standard_hmd", foveated=True, quiet=True)
    truth, low = truth_and_low(root / LONG, 3)
    video, true = ((frames * 255 + 0.5).byte() for frames in (enlarge(low), truth))
    gaze = torch.tensor([[0.25 * truth.shape[-1] - 0.5, 0.75 * truth.shape[-2] - 0.5]] * 3)
    score, _ = metric.predict(
        video, true, dim_order="FCHW", frames_per_second=25, fixation_point=gaze
    )
    found = {row.method: row.values["jod"] for row in result.rows}
    assert found["bicubic-all"] == pytest.approx(float(score), abs=1e-3)
    assert len({*found.values(), 10.0}) == 3
    assert result.protocol["jod_info"] == metric.get_info_string().strip('"')


def test_cost_is_measured_in_a_process_apart(networks):
    model = next(iter(networks))
    found = profile.measure(model, seconds=0.0)
    assert found.parameters == sum(p.numel() for p in networks[model].parameters())
    assert found.ms_per_frame > 0
    assert found.processor_ms_per_frame > 0
    assert found.threads == torch.get_num_threads()
    if sys.platform == "linux":
        assert found.peak_memory_mib > 3 * 768 * 1024 * 4 / 2**20  # one frame at least


def test_a_baseline_has_no_parameters():
    assert profile.measure_here("fill", "cpu", "torch", seconds=0.0)["parameters"] == 0


def test_engines_give_the_same_figures_and_are_named(root, networks, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (extra export)")
    asked = []

    def measure(name, device, engine):
        asked.append((name, engine))
        return profile.Cost(1.0, 1.0, None, 0, 1)

    monkeypatch.setattr(profile, "measure", measure)
    models, found = list(networks), {}
    path = tmp_path / "rows.json"
    words = ["evaluate", str(root), "--models", ",".join(models), "--baselines", "fill"]
    for engine in ("torch", "onnxruntime"):
        more = ["--frames", "8", "--metrics", "ssim,cost", "--engine", engine, "--json", str(path)]
        assert main([*words, *more]) == 0
        assert f"{models[0]} in {engine}" in capsys.readouterr().out
        found[engine] = from_json(path.read_text(encoding="utf-8"))
        assert found[engine].protocol["engine"] == dict.fromkeys(models, engine)
        assert asked == [("fill", "torch"), *((name, engine) for name in models)]
        asked.clear()
    ours, theirs = (by_clip_and_method(result) for result in found.values())
    assert ours.keys() == theirs.keys()
    assert {key: row.values for key, row in ours.items()} != {
        key: row.values for key, row in theirs.items()
    }  # to the last digit: it was another engine
    for key, row in ours.items():
        for name, value in row.values.items():
            if value is not None:
                assert theirs[key].values[name] == pytest.approx(value, abs=2e-3, rel=1e-4), name


def test_the_cost_is_that_of_the_engine(networks, monkeypatch):
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (extra export)")
    steps = []
    step = Engine._by_run
    monkeypatch.setattr(
        Engine, "_by_run", lambda self, *x: steps.append(self.name) or step(self, *x)
    )
    model = next(iter(networks))
    found = profile.measure_here(model, "cpu", "onnxruntime", seconds=0.0)
    assert found["parameters"] == sum(p.numel() for p in networks[model].parameters())
    assert steps == ["onnxruntime"] * 3  # the first is PyTorch's, the second compiles, two count


def test_an_engine_that_is_missing_is_one_line_before_anything_is_run(root, monkeypatch, capsys):
    from deepfovea.runtime import engine

    monkeypatch.setattr(engine, "find_spec", lambda package: None)
    assert main(["evaluate", str(root), "--engine", "openvino"]) == 2
    error = capsys.readouterr().err
    assert "--engine: openvino needs onnx" in error
    assert "pip install 'deepfovea[openvino]'" in error
    assert error.count("\n") == 1


def test_a_process_that_fails_says_why(monkeypatch):
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(RuntimeError, match="no reason given"):
        profile.measure("fill")


def test_a_cost_that_cannot_be_measured_does_not_cost_the_rows(root, monkeypatch):
    def fails(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(profile, "measure", fails)
    result = evaluate(root / "deep", [], ["fill"], Protocol(1, metrics=("cost",)))
    assert result.cost == {}
    assert len(result.rows) == 1
    assert any("out of memory" in line for line in result.notes)


def gaze_of(root, words, tmp_path):
    """The PSNR of a foveated method shows where the gaze was."""
    path = tmp_path / "rows.json"
    base = ["evaluate", str(root), "--models=", "--baselines=fill", "--frames=3", "--metrics=psnr"]
    assert main([*base, "--density=0.98,0.1,3,6", *words, f"--json={path}"]) == 0
    return {
        row["clip"]: row["psnr_by_frame"]
        for row in json.loads(path.read_text(encoding="utf-8"))["rows"]
    }


def test_gaze_from_the_command_line(root, tmp_path, capsys):
    center = gaze_of(root, [], tmp_path)
    assert gaze_of(root, ["--gaze", "centre"], tmp_path) == center
    assert gaze_of(root, ["--gaze", "0.5,0.5", "--gaze-units", "norm"], tmp_path) == center
    random = gaze_of(root, ["--gaze", "random", "--seed", "5"], tmp_path)
    assert random != gaze_of(root, ["--gaze", "center", "--seed", "5"], tmp_path)
    # A clip's random point depends on its name, not on the clips beside it.
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / SHORT).symlink_to(root / SHORT)
    alone = gaze_of(tmp_path / "one", ["--gaze", "random", "--seed", "5"], tmp_path)
    assert alone == {SHORT: random[SHORT]}
    track = tmp_path / "gaze.csv"
    track.write_text("frame,x [norm],y [norm]\n0,0.5,0.5\n2,0.1,0.1\n", encoding="utf-8")
    moved = gaze_of(root, ["--gaze", str(track)], tmp_path)
    assert moved[LONG][:2] == center[LONG][:2]
    assert moved[LONG][2] != center[LONG][2]
    folder = tmp_path / "tracks" / "deep"
    folder.mkdir(parents=True)
    track.rename(folder / "long.csv")
    with pytest.raises(AssertionError):  # no file for the other clip
        gaze_of(root, ["--gaze", str(folder.parent)], tmp_path)
    assert "short.csv" in capsys.readouterr().err
    (folder.parent / f"{SHORT}.csv").write_text(
        "frame,x [norm],y [norm]\n0,0.5,0.5\n", encoding="utf-8"
    )
    both = gaze_of(root, ["--gaze", str(folder.parent)], tmp_path)
    assert both == {LONG: moved[LONG], SHORT: center[SHORT]}


def test_the_command_line_is_the_call(root, networks, tmp_path, capsys):
    path = tmp_path / "rows.json"
    words = ["--models", ",".join(networks), "--baselines", "bicubic-all,fill", "--frames", "2"]
    words += ["--seed", "4", "--density", "uniform:30", "--noise", "blue", "--metrics", "ssim"]
    assert main(["evaluate", str(root), *words, "--json", str(path)]) == 0
    expected = evaluate(
        root,
        list(networks),
        ["bicubic-all", "fill"],
        Protocol(2, seed=4, density=Density(0.3, 0.3), blue_noise=True, metrics=("ssim",)),
    )
    assert path.read_text(encoding="utf-8") == to_json(expected) + "\n"
    protocol = json.loads(path.read_text(encoding="utf-8"))["protocol"]
    stated = {"frames": 2, "seed": 4, "blue_noise": True, "gaze": "center", "data": root.name}
    assert protocol.items() >= stated.items()
    assert protocol["density"]["periphery"] == 0.3
    assert list(protocol["models"]) == list(networks)


FROZEN = {
    ("published", 1): "15521b93acf23168",
    ("best", 2): "d0cbb8d210eebeea",
    ("saccades", 1): "ae6004827d813469",
    ("renderer", 1): "63ba6e5537aac725",
}
"""What each version of a protocol holds: whoever changes one raises its version and adds a line."""


def test_protocols_are_frozen_and_published_is_the_default():
    found = {}
    for name in PROTOCOLS:
        protocol = load_protocol(name)
        path = Path(result_module.__file__).parent / "protocols" / f"{name}.json"
        found[protocol.name, protocol.version] = sha256(path.read_bytes()).hexdigest()[:16]
    assert found == FROZEN
    assert load_protocol("published") == Protocol()
    best = load_protocol("best")
    assert (best.blue_noise, best.jitter) == (BEST_SAMPLING.noise == "blue", BEST_SAMPLING.jitter)


def test_results_carry_their_protocol_and_what_was_changed(root, tmp_path, capsys):
    path = tmp_path / "rows.json"
    words = ["evaluate", str(root), "--models=", "--baselines=fill", "--metrics=psnr"]
    assert main([*words, "--protocol=saccades", "--frames=2", f"--json={path}"]) == 0
    line = "Protocol `saccades`, version 1, changed: frames 2. "
    assert line in capsys.readouterr().out
    protocol = json.loads(path.read_text(encoding="utf-8"))["protocol"]
    assert (protocol["gaze"], protocol["changed"]) == ("synthetic", {"frames": 2})
    assert main(["evaluate", str(path)]) == 0
    assert line in capsys.readouterr().out
    assert main([*words, "--protocol=bets"]) == 2
    assert "did you mean 'best'" in capsys.readouterr().err
