"""ST-LPIPS and ColorVideoVDP equal their authors' packages; missing packages are reported."""

import sys
import types
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from deepfovea.config import PUBLISHED_DENSITY, InputError
from deepfovea.metrics import METRICS, Reference, Settings
from deepfovea.metrics.cvvdp import load_cvvdp
from deepfovea.metrics.st_lpips import MIN_SIDE, ST_LPIPS
from deepfovea.metrics.vdp import import_predictor

GAZE = torch.tensor([[4.0, 5.0]])


def pair(height=64, width=92, seed=0):
    """A frame [1, 3, H, W] of shapes and noise, and one that is damaged at the right."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 8, 12, generator=generator)
    truth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    noise = torch.randn(truth.shape, generator=generator) * torch.linspace(0.0, 0.3, width)
    return truth.clamp(0, 1), truth + noise


def reference(truth, fov_deg=None):
    height, width = (side // 4 for side in truth.shape[-2:])
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    distance = torch.hypot(columns - GAZE[0, 0], rows - GAZE[0, 1])[None]
    mask = (distance % 2 < 1).float()[:, None]
    settings = Settings(fov_deg=fov_deg)
    return Reference(truth, mask, GAZE, distance, PUBLISHED_DENSITY, settings=settings)


@pytest.mark.parametrize(("height", "width"), [(64, 92), (MIN_SIDE, MIN_SIDE), (44, 52)])
def test_st_lpips_is_that_of_its_authors(height, width, monkeypatch):
    pytest.importorskip("stlpips_pytorch", reason="stlpips-pytorch is not installed (extra eval)")
    for name, unused in (("IPython", "embed"), ("torchsummary", "summary")):
        module = types.ModuleType(name)
        setattr(module, unused, None)
        monkeypatch.setitem(sys.modules, name, module)
    from stlpips_pytorch import stlpips

    theirs = stlpips.LPIPS(net="alex", variant="shift_tolerant", verbose=False)
    truth, frame = pair(height, width)
    with torch.inference_mode():
        expected = float(theirs(frame.clamp(0, 1), truth, normalize=True))
    found = ST_LPIPS.function(frame, reference(truth))
    assert found["frame"] == pytest.approx(expected, abs=1e-4, rel=1e-4)
    assert expected > 1e-3
    assert ST_LPIPS.function(truth, reference(truth))["frame"] == 0.0


def test_a_distance_that_is_foveated_looks_where_the_eye_looks():
    """Damage far from the gaze counts less than in the plain mean."""
    pytest.importorskip("stlpips_pytorch", reason="stlpips-pytorch is not installed (extra eval)")
    truth, frame = pair(32, 640)
    found = ST_LPIPS.function(frame, reference(truth, fov_deg=100.0))
    assert 0.0 < found["foveated"] < 0.9 * found["frame"]


def test_without_its_package_st_lpips_says_what_to_install(monkeypatch):
    monkeypatch.setattr("deepfovea.metrics.st_lpips.find_spec", lambda name: None)
    assert "pip install 'deepfovea[eval]'" in ST_LPIPS.unavailable(Settings())


@pytest.mark.parametrize("fov_deg", [None, 60.0])
def test_cvvdp_equals_a_call_of_the_package_by_hand(fov_deg, predictor):
    pycvvdp = predictor("pycvvdp")
    truth, video = ((255 * x.clamp(0, 1).expand(3, -1, -1, -1)).byte() for x in pair())
    geometry = fov_deg and pycvvdp.vvdp_display_geometry((92, 64), fov_horizontal=fov_deg)
    theirs = pycvvdp.cvvdp("standard_hmd", display_geometry=geometry or None, quiet=True)
    stacked = [np.ascontiguousarray(v.permute(0, 2, 3, 1).numpy()) for v in (video, truth)]
    score, _ = theirs.predict(*stacked, dim_order="FHWC", frames_per_second=25.0)
    metric = METRICS["cvvdp"]
    found = metric.function(video, reference(truth, fov_deg))
    assert found == pytest.approx(float(score), abs=1e-4)
    assert 0.0 < found < 10.0
    assert metric.function(truth, reference(truth, fov_deg)) == pytest.approx(10.0, abs=1e-3)
    # Pixels per degree are those of one size of frames, where a field of view is given.
    expected = "at 60° across" if fov_deg else "pix/deg"
    details = metric.details(Settings(fov_deg=fov_deg))
    assert expected in details
    assert ("pix/deg" in details) == (fov_deg is None)


@pytest.mark.parametrize("order", [("pyfvvdp", "pycvvdp"), ("pycvvdp", "pyfvvdp")])
def test_both_predictors_can_be_used_in_one_process(order, monkeypatch):
    """Their packages import different modules with the same name, and change the import path."""
    if any(find_spec(name) is None for name in order):
        pytest.skip("pyfvvdp or cvvdp is not installed (extras jod, cvvdp)")
    for name in [*sys.modules]:
        if name.partition(".")[0] in order:
            monkeypatch.delitem(sys.modules, name)
    path = list(sys.path)
    for name in order:
        package = import_predictor(name)
        main = sys.modules[{"pyfvvdp": "pyfvvdp.fvvdp", "pycvvdp": "pycvvdp.cvvdp_metric"}[name]]
        assert Path(main.interp1.__code__.co_filename).parent == Path(package.__file__).parent
    assert sys.path == path
    assert "interp" not in sys.modules


def test_without_its_package_cvvdp_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycvvdp", None)
    load_cvvdp.cache_clear()
    with pytest.raises(InputError, match=r"pip install 'deepfovea\[cvvdp\]'"):
        load_cvvdp(64, 96)
    assert "without gaze" in METRICS["cvvdp"].definition
