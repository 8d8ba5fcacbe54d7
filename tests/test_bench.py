"""Claims about the bench: a row per model and engine, with costs that can be checked."""

import dataclasses
import json
import re
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
import torch

from deepfovea import checkpoint
from deepfovea.checkpoint import multiply_adds, save_model
from deepfovea.cli import main
from deepfovea.generators.stream.net import StreamConfig, StreamNet
from deepfovea.generators.unet.net import RecurrentUNet, UNetConfig
from deepfovea.runtime import bench, roofline


def test_rows(tmp_path, capsys):
    network = StreamNet(StreamConfig(8, 8, 4, 4))
    save_model(tmp_path / "model.safetensors", network, {})
    model, output = str(tmp_path / "model.safetensors"), tmp_path / "rows.json"
    words = ["--models", model, "--engines", "torch,openvino", "--size", "24x32"]
    words += ["--batch", "1,2", "--frames", "4"]
    assert main(["bench", *words, "--json", str(output)]) == 0
    shown = capsys.readouterr().out
    written = json.loads(output.read_text(encoding="utf-8"))
    rows = written["rows"]
    asked = list(product((24,), (1, 2), ("torch", "openvino")))
    assert [(row["height"], row["batch"], row["engine"]) for row in rows] == asked
    for row in rows:
        assert (row["model"], row["width"]) == (model, 32)
        assert 0 < row["ms_p50"] <= row["ms_p95"]
        assert 50 < row["peak_mib"] < 4000  # a process of its own, PyTorch and all
        assert row["params"] == sum(p.numel() for p in network.parameters())
        wanted = row["batch"] * multiply_adds(network, row["height"], 32) / 1e9
        assert row["gmac"] == pytest.approx(wanted)
        reached = row["gmac"] / row["ms_p50"] * 1e3
        assert row["matmul_share"] == pytest.approx(reached / written["matmul_gmac_per_second"])
        size = "24x32" if row["batch"] == 1 else "24x32 x2"
        assert re.search(rf"{row['engine']} +{size} +{row['ms_p50']:.1f} ", shown)
        assert (row["least_ms"] is None) == (row["engine"] == "openvino")


def test_the_fastest_of_several_rounds_counts(tmp_path, bench_in_this_process):
    save_model(tmp_path / "model.safetensors", StreamNet(StreamConfig(8, 8, 4, 4)), {})
    seen, sizes = [], [(24, 32)]
    model = [str(tmp_path / "model.safetensors")]
    rows, _ = bench.bench(model, ["torch"], sizes=sizes, frames=5, rounds=3, on_row=seen.append)
    assert len(seen) == 3
    assert [row.ms_p50 for row in rows] == [min(row.ms_p50 for row in seen)]


@pytest.mark.skipif(sys.platform == "win32", reason="memory is not told there")
def test_the_memory_of_a_process_is_not_that_of_the_one_that_started_it():
    ballast = np.ones(2**27)
    script = (
        "from deepfovea.runtime import fresh_process; print(fresh_process.peak_memory_mib('cpu'))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert 50 < float(done.stdout) < ballast.nbytes / 2**20


def test_multiply_adds_of_convolutions_and_products():
    network = RecurrentUNet(UNetConfig(6, False, True, (4,) * 5, (4,) * 4, (4, 18)))

    def conv(side, channels, out, k=3):
        return side * side * channels * out * k * k

    expected = 0.0
    for side, channels in ((64, 18), (32, 4), (16, 4), (8, 4), (4, 4)):
        expected += conv(side, channels, channels) + conv(side, channels, 4)
        expected += conv(side, channels, 4, 1) if channels != 4 else 0
    for side in (4, 8, 16, 32):
        expected += conv(side, 12, 4) + conv(side, 4, 4) + conv(side, 12, 4, 1)
    for side, channels, out in ((64, 8, 4), (128, 8, 18)):
        for at, into in ((side, channels), (2 * side, out)):
            expected += conv(at, into, 27) + conv(at, into, out)  # offsets and mask; what is read
        expected += conv(side, channels, out, 1)
    expected += conv(256, 18, 3, 1) + conv(256, 18, 18, 1)
    assert multiply_adds(network, 64, 64) == pytest.approx(expected / 6)
    assert next(network.parameters()).device == torch.device("cpu")  # ours is untouched


def test_a_network_that_is_not_shipped_is_drawn():
    assert "deepfovea" not in checkpoint.bundled_models()
    assert isinstance(bench._network("deepfovea"), RecurrentUNet)


def test_what_is_asked_for_is_refused_in_one_line(capsys):
    for words, said in (
        (["--batch", "0"], "--batch: received '0', expected a number from 1 on"),
        (["--size", "192x256,x"], "--size: received 'x', expected HEIGHTxWIDTH"),
    ):
        assert main(["bench", *words]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert len(error.splitlines()) == 1


class Doubled(torch.nn.Conv2d):
    """A 1×1 convolution of three channels, and a sum: two operations that compute something."""

    frames_per_step = 1

    def __init__(self):
        super().__init__(3, 3, 1, bias=False)

    def forward(self, samples, mask):
        frames = super().forward(samples.flatten(0, 1))
        return frames.add(frames).view_as(samples), None


def test_the_work_of_a_step_and_what_limits_it():
    work = roofline.work_of(Doubled(), 10, 20, batch=2)
    values = 2 * 3 * 10 * 20
    assert work.multiply_adds == 2 * 10 * 20 * 9
    assert work.operations == 2  # views are free
    # Read and written by the convolution, with its weights, and by the sum, whose inputs count both
    assert work.bytes == 4 * (2 * values + 9) + 4 * 3 * values
    rates = roofline.Rates(1e9, 1e6, 1e-3, 1e-6)
    milliseconds = work.least_times(rates)
    assert milliseconds == {
        "arithmetic": pytest.approx(1e3 * work.multiply_adds / 1e6),
        "memory": pytest.approx(1e3 * work.bytes / 1e9),
        "launches": pytest.approx(2.0),
    }
    assert work.least_times(rates, captured=True)["launches"] == pytest.approx(0.002)


def test_a_row_names_its_limit():
    row = bench.Row("m", "torch", "cpu", 8, 8, 1, 1, 1.0, 1.0, 1.0, None, 0.0, 1, None, None)
    assert row.limit == ""
    least = {"arithmetic": 1.0, "memory": 3.0, "launches": 2.0}
    assert dataclasses.replace(row, least_ms=least).limit == "memory"


def test_the_better_of_two_measurements_counts():
    slow, fast = roofline.Rates(1.0, 4.0, 3.0, 1.0), roofline.Rates(2.0, 3.0, 2.0, 2.0)
    assert slow.best_of(None) == slow
    assert slow.best_of(fast) == fast.best_of(slow) == (2.0, 4.0, 2.0, 1.0)


def test_rates_of_the_cpu_are_plausible():
    rates = roofline.measure_rates("cpu", side=64, count=2**16)
    assert 1e7 < rates.multiply_adds_per_second < 1e14
    assert 1e6 < rates.bytes_per_second < 1e13
    assert 1e-8 < rates.launch_seconds == rates.replay_seconds < 1e-2


def test_the_rate_of_matrix_products():
    rate = roofline.matmul_rate(torch.device("cpu"), side=64)
    assert 1e7 < rate < 1e14
