"""Claims about tables and pictures: they show the figures, and need only the JSON."""

import io
import json
import re
import runpy
import sys
from pathlib import Path

import media
import numpy as np
import pytest
import torch
from PIL import Image

from deepfovea.cli import main
from deepfovea.config import InputError
from deepfovea.evaluate import Result, Row, from_json, to_json, to_markdown
from deepfovea.evaluate.contact_sheets import MAX_SHOWN_ERROR, Panels, error_map, render_sheet
from deepfovea.evaluate.plots import charts
from deepfovea.evaluate.report import (
    BEGIN_MARK,
    END_MARK,
    insert_tables,
    shortfalls,
    to_summary,
)
from deepfovea.evaluate.result import COLUMNS, Cost

PROTOCOL = {
    "models": {"ours": "0" * 64},
    "baselines": ["fill", "bicubic-all"],
    "density": {"inner": 20.0, "outer": 40.0, "unit": "px"},
    "eccentricity_bin": 10.0,
    "cost_of": "192x256 -> 768x1024",
    "device": "cpu",
    "jod_info": None,
}


def row(method, clip, psnr, by_frame=(), rings=(), **values):
    return Row(method, clip, 24, 0.2, {"psnr": psnr, **values}, by_frame, rings)


ROWS = [
    row("fill", "a", 20.0, (19.0, 21.0), (0.01, 0.02), e_warp=0.002, psnr_published=22.0),
    row("bicubic-all", "a", 30.0, (30.0, 30.0), (0.001, 0.001), e_warp=0.001),
    row("ours", "a", 23.456, (23.0, 23.912), (0.005, None), e_warp=0.003, psnr_published=29.0),
    row("fill", "b", 31.0, (31.0,), (0.0008,), e_warp=0.004, ssim_fovea=None),
    row("bicubic-all", "b", 40.0, (40.0,), (0.0001,), e_warp=0.001),
    row("ours", "b", 29.0, (29.0,), (0.0012,), e_warp=0.005),
]
COST = {"fill": Cost(5.0, 8.0, 12.5, 0, 2), "ours": Cost(200.0, 390.0, None, 304_190, 2)}
RESULT = Result(PROTOCOL, ROWS, ["b: short"], ["c: damaged"], COST)


def tables(markdown):
    """Every table of a text: its cells without bold, line by line."""
    blocks = re.findall(r"(?:^\|.*\n?)+", markdown, re.MULTILINE)
    return [
        [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in block.splitlines()]
        for block in blocks
    ]


def test_a_summary_begins_with_where_we_lose_and_has_the_means_of_all():
    summary = to_summary(RESULT)
    lines = [f"- {line}" for line in shortfalls(RESULT, "ours")]
    assert summary.split("\n\n")[1].splitlines() == lines and "against 31.00 dB" in lines[0]
    overview = tables(summary)[0]
    assert overview == tables(to_markdown(RESULT))[0]


def test_the_page_of_results_holds_what_was_measured():
    root = Path(__file__).parents[1]
    page = (root / "docs" / "results.md").read_text(encoding="utf-8")
    script = runpy.run_path(str(root / "docs" / "results.py"))
    assert script["render"](page) == page
    pages = [root / "docs" / "path-tracing.md", root / "README.md"]
    texts = [page.read_text(encoding="utf-8") for page in pages]
    assert runpy.run_path(str(root / "docs" / "path_tracing.py"))["render"](*texts) == texts


def test_the_mean_counts_every_clip_once_and_leaves_out_what_is_missing():
    means = RESULT.means()
    assert {method: mean["psnr"] for method, mean in means.items()} == {
        "fill": 25.5,
        "bicubic-all": 35.0,
        "ours": pytest.approx(26.228),
    }
    assert means["fill"]["e_warp"] == pytest.approx(0.003)
    assert means["ours"]["psnr_published"] == 29.0
    assert "ssim_fovea" not in means["fill"]


def test_the_markdown_tables_hold_the_figures():
    overview, ranges, clips, differences, published, cost = tables(to_markdown(RESULT))
    assert ranges[2][:2] == ["fill", "20.00 to 31.00"]
    assert differences[2] == [
        "ours − fill",
        "≈ +0.73 [-2.00, +3.46]",
        "+0.00100 [+0.00100, +0.00100]",
    ]
    assert overview[0] == ["method", "PSNR ↑, dB", "E_warp ↓"]
    assert overview[2:] == [
        ["fill", "25.50", "0.00300"],
        ["bicubic-all", "35.00", "0.00100"],
        ["ours", "26.23", "0.00400"],
    ]
    assert clips[0] == ["PSNR ↑, dB", "fill", "bicubic-all", "ours"]
    assert clips[2:] == [
        ["a", "20.00", "30.00", "23.46"],
        ["b", "31.00", "40.00", "29.00"],
        ["mean", "25.50", "35.00", "26.23"],
    ]
    assert published[0] == ["method", "PSNR as published ↑, dB", "SSIM as published ↑"]
    assert published[2:] == [
        ["fill", "22.00", "–"],
        ["bicubic-all", "–", "–"],
        ["ours", "29.00", "–"],
    ]
    assert cost[2:] == [
        ["fill", "5.0", "8.0", "12", "0"],
        ["ours", "200.0", "390.0", "–", "304,190"],
    ]
    for table in (overview, ranges, clips, differences, published, cost):
        assert all(len(line) == len(table[0]) for line in table)
        assert all(set(cell) <= {"-", ":"} for cell in table[1])


def test_the_best_of_those_that_see_the_samples_is_bold():
    text = to_markdown(RESULT)
    assert "| ours | **26.23** | 0.00400 |" in text
    assert "| fill | 25.50 | **0.00300** |" in text
    assert "| bicubic-all | 35.00 | 0.00100 |" in text


def test_where_a_model_loses_is_said():
    fill, bicubic = shortfalls(RESULT, "ours")
    assert fill == (
        "`ours` is behind `fill` in the mean E_warp 0.00400 against 0.00300; and in PSNR on 1 of "
        "2 clips (b 29.00 against 31.00 dB)."
    )
    assert bicubic == "`ours` is behind `bicubic-all` in every mean; and in PSNR on 2 of 2 clips."
    better = [row("fill", "a", 20.0), row("telea", "a", 19.0), row("ours", "a", 21.0)]
    ahead = Result({**PROTOCOL, "baselines": ["fill", "telea"]}, better)
    assert shortfalls(ahead, "ours") == [
        "`ours` is behind `fill` or `telea` in no mean and on no clip."
    ]
    text = to_markdown(RESULT)
    assert f"- {fill}\n- {bicubic}" in text
    assert "- b: short\n- left out: c: damaged" in text


def test_every_column_says_its_direction_and_its_definition():
    for name, column in COLUMNS.items():
        assert column.better in ("higher", "lower")
        assert ("↑" if column.better == "higher" else "↓") in column.heading
        assert column.definition
        assert (column.better == "higher") == name.startswith(("psnr", "ssim", "jod", "cvvdp"))


def test_the_json_gives_back_the_result():
    text = to_json(RESULT)
    assert from_json(text) == RESULT
    data = json.loads(text)
    assert data["rows"][2] | {"psnr": 23.456, "clip": "a", "method": "ours"} == data["rows"][2]
    assert data["mean"]["fill"]["psnr"] == 25.5
    assert data["protocol"] == PROTOCOL
    # Without the cost, two runs must be equal.
    assert list(data) == [
        *("protocol", "rows", "mean", "interval", "difference", "notes", "failed", "cost")
    ]
    assert data["interval"]["fill"]["psnr"] == [20.0, 31.0]
    assert data["difference"]["ours - fill"]["psnr"] == [0.728, -2.0, 3.456]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"protocol": {}, "rows": []}',
        to_json(RESULT)[:-40],
        to_json(RESULT).replace('"psnr"', '"other"'),
        to_json(RESULT).replace('"eccentricity_bin"', '"bin"'),
        to_json(RESULT).replace('"ms_per_frame"', '"hours"'),
        to_json(Result(PROTOCOL, [])),
        "[" * 100_000,
    ],
)
def test_another_json_is_refused_in_one_line(text):
    with pytest.raises(InputError, match=r"x\.json: cannot be read .*expected what") as caught:
        from_json(text, "x.json")
    assert len(str(caught.value).splitlines()) == 1


def test_tables_go_between_the_marks_of_a_document():
    document = f"# Title\n\n{BEGIN_MARK}\nold\n{END_MARK}\n\nend\n"
    once = insert_tables(document, "| new |")
    assert once == f"# Title\n\n{BEGIN_MARK}\n\n| new |\n\n{END_MARK}\n\nend\n"
    assert insert_tables(once, "| new |") == once
    for other in ("", "no marks", f"{END_MARK} then {BEGIN_MARK}", BEGIN_MARK):
        assert insert_tables(other, "| new |") == "| new |\n"


# --- pictures ---------------------------------------------------------------------------------


def test_charts_are_pictures_of_the_figures():
    drawn = charts(RESULT)
    assert set(drawn) == {
        *("psnr-by-eccentricity.png", "psnr-over-time.png", "quality-against-cost.png")
    }
    for data in drawn.values():
        image = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        assert image.shape[0] > 300
        assert (image == (0x00, 0x72, 0xB2)).all(-1).sum() > 50  # the first method's colour
    assert charts(RESULT) == drawn
    assert "quality-against-cost.png" not in charts(Result(PROTOCOL, ROWS))


def test_charts_plot_means_over_the_clips(monkeypatch):
    from matplotlib.axes import Axes

    lines = {}
    original = Axes.plot

    def listen(self, x, y, **options):
        lines.setdefault(options["label"], []).append((list(x), list(y)))
        return original(self, x, y, **options)

    monkeypatch.setattr(Axes, "plot", listen)
    charts(RESULT)
    eccentricity, time, cost = lines["fill"]
    decibels = -10 * np.log10([0.01, 0.02, 0.0008])
    assert eccentricity[0] == [5.0, 15.0]
    assert eccentricity[1] == pytest.approx([(decibels[0] + decibels[2]) / 2, decibels[1]])
    assert time == ([0, 1], [25.0, 21.0])
    assert cost == ([8.0], [25.5])
    assert lines["ours"][0][0] == [5.0]  # no clip has pixels in its second ring


def test_matplotlib_is_named_when_it_is_missing(monkeypatch):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"pip install 'deepfovea\[eval\]'"):
        charts(RESULT)
    with pytest.raises(InputError, match=r"pip install 'deepfovea\[eval\]'"):
        error_map(torch.zeros(3, 4, 4), torch.zeros(3, 4, 4))


def test_an_error_map_is_dark_where_equal_and_brightest_from_its_limit_on():
    truth = torch.rand(3, 4, 6).clamp(0.3, 0.6)
    frame = truth.clone()
    frame[:, 0] += MAX_SHOWN_ERROR
    frame[:, 1] += 5.0  # seen as white
    frame[:, 2] += MAX_SHOWN_ERROR / 2
    light = error_map(frame, truth).sum(0)
    assert light[3].max() < light[2].min() < light[0].min()
    assert torch.equal(light[0], light[1])


def test_a_sheet_shows_samples_methods_original_and_errors_in_this_order():
    def flat(level):
        return torch.full((3, 32, 48), level)

    def panels(*methods):
        frames = {name: flat(0.2 * (i + 1)) for i, name in enumerate(methods)}
        return [Panels((2.0, 2.0), torch.zeros(3, 8, 12), frames, flat(0.8))] * 2

    def levels(data):
        """The grey level at the centre of every panel in the last row."""
        image = np.asarray(Image.open(io.BytesIO(data)))[-200]
        width = 480
        return [int(image[6 + k * (width + 6) + 240, 0]) for k in range(len(image) // (width + 6))]

    first = [0, 51, 102, 204]  # samples, fill, ours, original
    found = levels(render_sheet(panels("fill", "ours", "bicubic-all"), ["ours"]))
    assert found[:4] == first
    assert len(found) == 5
    assert len(levels(render_sheet(panels("fill", "ours", "other"), ["ours", "other"]))) == 7
    assert (
        levels(render_sheet(panels("fill", "bicubic-all"), []))[:4] == first
    )  # in a model's place
    assert levels(render_sheet(panels("fill"), []))[:3] == [0, 51, 204]


# --- the command line -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with results.json, table.md and plots of a video that no longer exists."""
    folder = tmp_path_factory.mktemp("run")
    videos = folder / "videos"
    (videos / "deep").mkdir(parents=True)
    media.write_video(videos / "deep" / "one.mp4", media.moving(4, 48, 64), pix_fmt="yuv444p")
    words = ["evaluate", str(videos), "--models=", "--baselines=fill,bicubic-all", "--frames=4"]
    words += ["--metrics=ssim", f"--json={folder}/results.json", f"--markdown={folder}/table.md"]
    assert main([*words, f"--plots={folder}/plots"]) == 0
    (videos / "deep" / "one.mp4").unlink()
    return folder


def test_a_run_leaves_its_files_and_nothing_else(run):
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert files == {
        *("results.json", "table.md", "plots/psnr-by-eccentricity.png"),
        *("plots/psnr-over-time.png", "plots/sheets/deep/one.mp4.png"),
    }


def test_tables_and_charts_are_rendered_again_without_a_run(run, tmp_path, capsys):
    document = tmp_path / "document.md"
    document.write_text(f"# Benchmark\n\n{BEGIN_MARK}\n{END_MARK}\n", encoding="utf-8")
    json_file = run / "results.json"
    copy = tmp_path / "copy.json"
    words = [f"--markdown={document}", f"--plots={tmp_path}/plots", f"--json={copy}"]
    assert main(["evaluate", str(json_file), *words]) == 0
    table = (run / "table.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out == table
    assert (
        document.read_text(encoding="utf-8")
        == f"# Benchmark\n\n{BEGIN_MARK}\n\n{table}\n{END_MARK}\n"
    )
    assert copy.read_text(encoding="utf-8") == json_file.read_text(encoding="utf-8")
    for chart in ("psnr-by-eccentricity.png", "psnr-over-time.png"):
        assert (tmp_path / "plots" / chart).read_bytes() == (run / "plots" / chart).read_bytes()
    assert not (tmp_path / "plots" / "sheets").exists()


def test_what_would_need_a_run_is_refused_beside_a_json(run, tmp_path, capsys):
    for words, complaint in (
        (["results.json", "--frames=5"], "--frames: received it together with"),
        (["results.json", "--models=stream,x"], "--models: received it together with"),
        (["table.md"], "expected what 'deepfovea evaluate DIR --json FILE' wrote"),
        (["plots/psnr-over-time.png"], "neither videos nor a JSON"),
    ):
        assert main(["evaluate", str(run / words[0]), *words[1:]]) == 2
        error = capsys.readouterr().err
        assert complaint in error
        assert len(error.splitlines()) == 1


def test_plots_that_cannot_be_made_are_refused_before_the_run(run, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("", encoding="utf-8")
    words = ["evaluate", str(run), "--models=", "--baselines=fill", "--metrics=psnr"]
    assert main([*words, f"--plots={tmp_path}/file"]) == 2
    assert "no folder for pictures" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main([*words, f"--plots={tmp_path}/plots"]) == 2
    assert "pip install 'deepfovea[eval]'" in capsys.readouterr().err
    assert not (tmp_path / "plots").exists()
