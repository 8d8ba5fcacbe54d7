"""Makes docs/viewer.png: the viewer in Chromium, controlled as in the tests, with a drawn scene.

python docs/screenshot.py [--output docs/viewer.png] [--phone phone.png] [--dark dark.png]
"""

import argparse
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import media  # noqa: E402
from viewing import chromium, running_viewer  # noqa: E402

from deepfovea.viewer.scene import skyline, with_sign  # noqa: E402

HEIGHT, WIDTH, FRAMES, RATE = 432, 640, 60, 25
PAN = 2  # pixels per frame
STEPS = 24


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "viewer.png")
    parser.add_argument("--phone", type=Path)
    parser.add_argument("--dark", type=Path)
    options = parser.parse_args()
    wide = skyline(HEIGHT, WIDTH + PAN * FRAMES)
    lefts = range(0, PAN * FRAMES, PAN)
    frames = [with_sign(wide.crop((left, 0, left + WIDTH, HEIGHT))) for left in lefts]
    with tempfile.TemporaryDirectory() as folder:
        video = media.write_video(
            Path(folder, "harbour.mp4"), frames, rate=RATE, options={"crf": "14"}
        )
        with running_viewer(video) as url, chromium() as browser:
            shoot(browser, url, options.output, (1280, 800), "light")
            if options.phone:
                shoot(browser, url, options.phone, (390, 844), "light")
            if options.dark:
                shoot(browser, url, options.dark, (1280, 800), "dark")


def shoot(browser, url, output, size, scheme):
    page = browser.new_page(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, reduced_motion="reduce"
    )
    page.set_default_timeout(60_000)
    page.goto(url)
    page.locator("#notice").wait_for(state="hidden")
    page.check("input[value=wipe]", force=True)
    for _ in range(6):
        page.locator("#handle").press("ArrowLeft")
    page.evaluate("document.activeElement.blur()")
    box = page.locator("#stage").bounding_box()
    for step in range(STEPS):  # the gaze moves to the letters, one frame per step
        x = box["x"] + box["width"] * (0.84 - 0.2 * step / STEPS)
        page.mouse.move(x, box["y"] + box["height"] * 0.555)
        at = page.input_value("#position")
        page.keyboard.press(".")
        while page.input_value("#position") == at:
            page.wait_for_timeout(20)
    # Figures of speed would be those of this machine; the page hides them after ten seconds.
    page.locator("#latency", has_text="–").wait_for()
    page.screenshot(path=output)
    with Image.open(output) as picture:
        small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    if output.stat().st_size > 380_000:
        small.save(output, optimize=True)
    print(f"{output}: {output.stat().st_size / 1e3:.0f} kB")
    page.close()


if __name__ == "__main__":
    main()
