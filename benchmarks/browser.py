"""Measures the speed of the page without a server, in Chromium on the same machine.

python benchmarks/browser.py [--model stream] [--sizes 512,1024] [--seconds 10] [--backend wasm]

Builds the page, serves it on this machine and reads the page's own figures while the drawn video
plays. These are the time from loading the page with a warm cache to the first picture (median of
several loads) and, for each size (longer side of the frame that the network makes), the frames per
second and the median milliseconds for sampling, for the network and for drawing.
"""

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from viewing import chromium, serving  # noqa: E402

from deepfovea.viewer.page import build_page  # noqa: E402

READ_EVERY_MS = 250
PATIENCE_MS = 300_000
SETTLE_MS = 5000
"""After its first load a browser goes on compiling WASM, which would slow the next one down."""
LOADS = 5
SHOWN = "document.querySelector('#psnr').textContent !== '–'"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="stream")
    parser.add_argument("--sizes", default="512,1024", help="of 384, 512, 768, 1024")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each size")
    parser.add_argument("--backend", default="wasm", choices=["wasm", "webgpu"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        build_page(Path(folder, "page"), [options.model])
        with serving(folder) as url, chromium() as browser:
            print(json.dumps(measure(browser, f"{url}page/", options), indent=1))


def measure(browser, address, options):
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(PATIENCE_MS)
    page.goto(address)
    page.wait_for_function(SHOWN)
    page.wait_for_timeout(SETTLE_MS)
    loads = [seconds_to_first_picture(page) for _ in range(LOADS)]
    result = {"first_picture_seconds": statistics.median(loads), "sizes": []}
    if page.locator("#backend").is_visible():
        page.select_option("#backend", options.backend)
    for size in options.sizes.split(","):
        page.select_option("#working", size)
        page.wait_for_function(
            f"parseInt(document.querySelector('#working-size').textContent) === {size}"
        )
        page.wait_for_timeout(3000)  # the page averages frames per second over two seconds
        rows = []
        until = time.perf_counter() + options.seconds
        while time.perf_counter() < until:
            page.wait_for_timeout(READ_EVERY_MS)
            rows.append(read(page))
        median = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
        result["sizes"].append({"frame": page.inner_text("#working-size")} | median)
    return result | {"engine": page.inner_text("#engine")}


def seconds_to_first_picture(page):
    started = time.perf_counter()
    page.reload()
    page.wait_for_function(SHOWN)
    return time.perf_counter() - started


def read(page):
    times = re.findall(r"(\w+)\s(\d+)", page.inner_text("#server"))
    rate = page.inner_text("#fps")
    return {"frames_per_second": float(rate) if rate != "–" else 0.0} | {
        f"{name}_ms": float(ms) for name, ms in times
    }


if __name__ == "__main__":
    main()
