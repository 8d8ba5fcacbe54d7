"""Claims about the report for the browser: it shows figures, sorts, and wipes between frames."""

import io
import json
import re
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from PIL import Image
from test_tables import PROTOCOL, RESULT, ROWS
from viewing import CHROMIUM, chromium

from deepfovea.evaluate import Result, Row
from deepfovea.evaluate.contact_sheets import Panels
from deepfovea.evaluate.html import frame_files, to_html


def panel(level):
    frames = {"fill": torch.full((3, 8, 12), 0.2), "a/ours": torch.full((3, 8, 12), level)}
    return Panels((1.0, 1.0), torch.zeros(3, 2, 3), frames, torch.ones(3, 8, 12))


@pytest.fixture
def report(tmp_path):
    """A folder with the page and frames of a clip whose names are awkward."""
    clip = "deep/<b>.mp4"
    for name, data in frame_files(clip, [panel(0.5), panel(0.8), panel(0.9)]).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    rows = [
        Row(method, clip, 3, 0.2, {"psnr": psnr, "e_warp": warp})
        for method, psnr, warp in (("fill", 9.5, 0.1), ("a/ours", 21.0, None))
    ]
    result = Result({**PROTOCOL, "models": {"a/ours": "0"}, "baselines": ["fill"]}, rows)
    (tmp_path / "index.html").write_text(
        to_html(result, ["psnr-over-time.png"], tmp_path), encoding="utf-8"
    )
    return tmp_path


def test_it_holds_every_figure_and_nothing_is_taken_for_markup(report):
    page = (report / "index.html").read_text(encoding="utf-8")
    assert "<b>" not in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])
    files = data["deep/<b>.mp4"]
    assert list(files) == ["samples", "fill", "a/ours", "original"]
    image = np.asarray(Image.open(report / unquote(files["a/ours"])))
    assert (image == 204).all()  # the frame in the middle
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)
    page = to_html(RESULT, [], report)
    for row in ROWS:
        assert f">{row.psnr:.2f}</td>" in page
    assert "is behind <code>bicubic-all</code>" in page
    assert '<td>ours − fill</td><td data-value="0.728">≈ +0.73<small>-2.00 to +3.46' in page
    assert "<strong>26.23</strong>" in page
    assert "<code>bicubic-all</code> sees all low-resolution pixels" in page  # not the bold one
    assert json.loads(re.search(r'id="data">(.*?)</script>', page)[1]) == {}


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path")
def test_it_sorts_and_wipes_in_a_browser(report):
    pytest.importorskip("playwright", reason="playwright is not installed (it is in the extra dev)")
    with chromium() as browser:
        page = browser.new_page()
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((report / "index.html").as_uri())
        first = "document.querySelector('table.sortable tbody').rows[0].cells[0].textContent"
        for head, expected in (("PSNR", "fill"), ("PSNR", "a/ours"), ("E_warp", "fill")):
            page.locator("th button", has_text=head).first.click()
            assert page.evaluate(first) == expected
        page.select_option("#left", "fill")
        page.select_option("#right", "original")
        page.locator("#position").fill("25")
        page.wait_for_function("document.getElementById('over').complete")
        pixels = np.asarray(Image.open(io.BytesIO(page.locator("#wipe").screenshot())).convert("L"))
        row = pixels[len(pixels) // 2]
        assert abs(int(row[0]) - 51) < 4
        assert row[-2] > 250
        assert errors == []
