"""Puts the figures of the JSON files beside this one into docs/speed.md.

python benchmarks/page.py
"""

import json
import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "speed.md"


def read(name):
    return json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))


def table(columns, rows):
    """A table in Markdown; all columns but the first are aligned to the right."""
    lines = [columns, ["---", *["--:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bench():
    measured = read("bench")
    columns = ["model, engine", "ms, median", "ms, p95", "frames/s", "MiB", "GMAC", "share"]
    rows = [
        [
            f"`{row['model']}`, {row['engine']}",
            f"{row['ms_p50']:.1f}",
            f"{row['ms_p95']:.1f}",
            f"{row['frames_per_second']:.1f}",
            f"{row['peak_mib']:.0f}",
            f"{row['gmac']:.2f}",
            f"{100 * row['matmul_share']:.0f} %",
        ]
        for row in measured["rows"]
    ]
    rate = measured["matmul_gmac_per_second"]
    return f"{table(columns, rows)}\n\n{measured['threads']} threads; 100 % are {rate:.0f} GMAC/s."


def size():
    rows = read("size")["rows"]
    engines = list(dict.fromkeys(row["engine"] for row in rows))
    sizes = sorted({(row["height"], row["width"]) for row in rows})
    at = {(row["height"], row["width"], row["engine"]): row["ms_p50"] for row in rows}
    lines = [
        [f"{h}×{w} → {4 * h}×{4 * w}", *(f"{at[h, w, engine]:.0f}" for engine in engines)]
        for h, w in sizes
    ]
    chart = "![Milliseconds per frame against megapixels of output](../benchmarks/size.png)"
    return f"{chart}\n\n{table(['ms, median', *engines], lines)}"


def pipeline():
    measured = read("pipeline")
    rows = [
        [stage, f"{milliseconds:.1f}", f"{measured['core_ms'][stage]:.1f}"]
        for stage, milliseconds in measured["ms"].items()
    ]
    return (
        f"{table(['per frame', 'ms', 'core-ms'], rows)}\n\n"
        f"Together: {measured['of_the_slowest']:.2f} times the slowest stage alone. It would be "
        f"{measured['least_of_the_slowest']:.2f}, were both cores busy all the time."
    )


def memory():
    measured = read("memory")
    return (
        f"{measured['frames']} frames of {measured['size']}: {measured['mib'][0]:.0f} MiB at the "
        f"first, {measured['mib'][-1]:.0f} MiB near the last; largest after the first tenth "
        f"{100 * measured['grown']:+.1f} % against the end of that tenth."
    )


def encoding():
    rows = [
        [
            row["setting"],
            f"{row['core_ms_per_frame']:.1f}",
            f"{row['kb_per_frame']:.1f}",
            f"{row['psnr_yuv']:.2f} ({row['psnr_yuv_worst_frame']:.2f})",
            f"{row['psnr_rgb']:.2f}",
            f"{row['ssim']:.4f}",
        ]
        for row in read("encoding")["rows"]
    ]
    columns = ["x264", "core-ms", "KB", "PSNR of YUV (worst frame), dB", "of RGB, dB", "SSIM"]
    return table(columns, rows)


def sensitivity():
    measured = read("sensitivity")
    columns = ["compared", "largest", "99.99th percentile", "PSNR between, dB", "PSNR changes by"]
    texts = []
    for model, clips in measured["models"].items():
        rows = []
        for name in next(iter(clips.values())):
            of_clips = [clip[name] for clip in clips.values() if name in clip]
            between = min(row["psnr_between"] for row in of_clips)
            rows.append(
                [
                    name if len(of_clips) == len(clips) else f"{name} ({len(of_clips)} clips)",
                    f"{max(row['largest'] for row in of_clips):.1e}",
                    f"{max(row['percentile_99_99'] for row in of_clips):.1e}",
                    "equal" if between > 199.0 else f"{between:.1f}",
                    f"{max(abs(row['psnr_change']) for row in of_clips):.4f}",
                ]
            )
        texts.append(f"`{model}`, {len(clips)} clips:\n\n{table(columns, rows)}")
    return "\n\n".join(texts)


def start():
    measured = read("start")
    rows = [["`deepfovea --help`", f"{measured['help_seconds']:.2f}"]]
    rows += [
        [f"first frame, {engine}", f"{seconds:.2f}"]
        for engine, seconds in measured["first_frame_seconds"].items()
    ]
    return table(["", "s"], rows)


def deform_conv():
    rows = []
    for row in read("deform_conv")["rows"]:
        line = [row["way"], f"{row['difference']:.0e}"]
        for what in ("forward", "forward and backward"):
            line += [f"{row[what]:.2f}", f"{row[f'{what}, times faster']:.1f}×"]
        rows.append(line)
    columns = ["", "largest difference", "forward, s", "", "forward and backward, s", ""]
    return table(columns, rows)


def gpu():
    if not (HERE / "gpu.json").exists():
        return "Nothing was measured on a GPU yet."
    return gpu_tables(read("gpu"))


def gpu_tables(measured):
    """The results of gpu.py as Markdown."""
    parts = measured["parts"]
    texts = [f"{measured['device']}, PyTorch {measured['torch']}."]
    rates = parts.get("roofline", {}).get("rates")
    if rates:
        products = ", ".join(
            f"{rate['multiply_adds_per_second'] / 1e12:.1f} in {dtype}"
            for dtype, rate in rates.items()
        )
        one = rates["float32"]
        texts[0] += (
            f" Measured limits: copies {one['bytes_per_second'] / 1e9:.0f} GB/s; from one small "
            f"operation to the next {1e6 * one['launch_seconds']:.1f} µs, in a graph "
            f"{1e6 * one['replay_seconds']:.1f} µs; matrix products, in 10¹² multiply-adds a "
            f"second, {products}. The limit of a row is the longest of the times that they allow."
        )
    columns = ["model, engine", "output", "batch", "ms, median", "ms, p95", "PSNR to float32, dB"]
    columns += ["MiB", "limit, ms"]
    rows = []
    for row in parts.get("inference", {}).get("rows", []):
        line = [f"`{row['model']}`, {row['engine']}, {row['dtype']}"]
        line += [f"{4 * row['height']}×{4 * row['width']}", str(row["batch"])]
        if "error" in row:
            rows.append([*line, "failed", *[""] * 4])
            continue
        limit = max(row["least_ms"], key=row["least_ms"].get)
        line += [f"{row['ms_p50']:.2f}", f"{row['ms_p95']:.2f}", f"{row['psnr_to_float32']:.1f}"]
        line += ["" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"]
        rows.append([*line, f"{limit}, {row['least_ms'][limit]:.2f}"])
    if rows:
        texts.append(table(columns, rows))
    rows = [
        [
            f"`{row['recipe']}`, {row['precision']}",
            str(row["batch"]),
            "failed" if "error" in row else f"{row['crops_per_second']:.0f}",
        ]
        for row in parts.get("throughput", {}).get("rows", [])
    ]
    if rows:
        texts.append(table(["training", "batch", "crops per second"], rows))
    rows = [
        [str(row["workers"]), f"{row['crops_per_second']:.0f}"]
        for row in parts.get("feed", {}).get("rows", [])
    ]
    if rows:
        texts.append(table(["processes that make data", "crops per second"], rows))
    return "\n\n".join(texts)


PARTS = (bench, size, pipeline, memory, encoding, start, deform_conv, sensitivity, gpu)


def render(text):
    """Return the page with new tables."""
    for part in PARTS:
        name = part.__name__
        between = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        try:
            content = part()
        except FileNotFoundError:
            content = "*Not measured yet.*"
        text, count = re.subn(
            between, lambda m, c=content: f"{m[1]}{c}\n{m[2]}", text, count=1, flags=re.DOTALL
        )
        if not count:
            raise SystemExit(f"{PAGE}: no marks <!-- {name} --> and <!-- /{name} -->")
    return text


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
