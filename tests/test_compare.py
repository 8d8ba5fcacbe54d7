"""Claims about two results side by side, and about a result in other tools' formats."""

import csv
import dataclasses
import io
import re

import pytest
from test_tables import PROTOCOL, RESULT, ROWS

from deepfovea.cli import main
from deepfovea.config import InputError
from deepfovea.evaluate import Result, compare, to_csv, to_json, to_latex


def shifted(decibels, protocol=PROTOCOL):
    rows = [
        dataclasses.replace(row, values={**row.values, "psnr": row.psnr + decibels}) for row in ROWS
    ]
    return Result(protocol, rows)


def test_a_comparison_is_paired_and_says_what_is_none(tmp_path, capsys):
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, result in zip(paths, (RESULT, shifted(0.25)), strict=True):
        path.write_text(to_json(result), encoding="utf-8")
    assert main(["evaluate", "--compare", *map(str, paths)]) == 0
    text = capsys.readouterr().out
    assert "| PSNR ↑, dB | 25.50 | 25.75 | +0.25 [+0.25, +0.25] |" in text
    assert "- PSNR: B is better (+0.25 dB, [+0.25, +0.25])." in text
    assert "- E_warp: no difference is shown (+0.00000, [+0.00000, +0.00000] holds 0)." in text
    assert main(["evaluate", "--compare", *map(str, paths), "--csv", "x.csv"]) == 2
    assert main(["evaluate"]) == 2
    assert "expected DIR" in capsys.readouterr().err


def test_other_protocols_and_strangers_are_refused_and_other_weights_named():
    with pytest.raises(InputError, match=r"with frames None and 8; expected two of the same"):
        compare(RESULT, shifted(1.0, {**PROTOCOL, "frames": 8}))
    strangers = Result(PROTOCOL, [dataclasses.replace(row, clip="z") for row in ROWS])
    with pytest.raises(InputError, match="without a common clip"):
        compare(RESULT, strangers)
    text = compare(RESULT, shifted(1.0, {**PROTOCOL, "models": {"ours": "1" * 64}}))
    assert "`ours`, of other weights:" in text
    fewer = Result(PROTOCOL, [row for row in ROWS if row.clip == "a" and row.method != "fill"])
    text = compare(RESULT, fewer)
    assert "only A has the clips b: not compared" in text
    assert "only A has the methods fill: not compared" in text
    assert "one clip, which says nothing about others" in text


def test_csv_holds_every_figure_and_an_empty_cell_for_none():
    rows = list(csv.DictReader(io.StringIO(to_csv(RESULT))))
    assert len(rows) == len(ROWS)
    assert [(r["method"], r["clip"], float(r["psnr"])) for r in rows] == [
        (row.method, row.clip, row.psnr) for row in ROWS
    ]
    assert rows[1]["psnr_published"] == ""
    assert rows[3]["ssim_fovea"] == ""


def test_the_latex_table_has_the_means_the_best_bold_and_nothing_unescaped():
    text = to_latex(RESULT)
    assert r"ours & \textbf{26.23} {\scriptsize [23.46, 29.00]} & 0.00400" in text
    assert r"E\_warp $\downarrow$" in text
    assert "The best of those is bold." in text
    body = re.search(r"\\begin\{tabular\}\{(l?r+)\}(.*)\\bottomrule", text, re.S)
    lines = [line for line in body[2].splitlines() if line.endswith(r"\\")]
    assert len(lines) == 4
    assert {len(re.split(r"(?<!\\)&", line)) for line in lines} == {len(body[1])}
    assert not re.search(r"(?<!\\)[_%#]", body[2])
