"""Makes docs/viewer.png: the page in Chromium, driven as in the tests, before a drawn scene.

python docs/screenshot.py [--output docs/viewer.png] [--phone phone.png] [--dark dark.png]
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import media  # noqa: E402
from viewing import chromium, running_viewer  # noqa: E402

HEIGHT, WIDTH, FRAMES, RATE = 432, 640, 60, 25
PAN = 2  # pixels per frame


def scene(height, width):
    """A harbour at dusk: gradients, straight edges, small lights and letters."""
    random = np.random.default_rng(3)
    rise = np.linspace(0, 1, height)[:, None, None]
    top, low = np.array([28, 34, 84.0]), np.array([250, 158, 96.0])
    sky = Image.fromarray(
        np.broadcast_to(top + (low - top) * rise**1.3, (height, width, 3)).astype(np.uint8)
    )
    draw = ImageDraw.Draw(sky)
    horizon = int(0.68 * height)
    sun = (int(0.36 * width), int(0.5 * height))
    draw.ellipse([sun[0] - 46, sun[1] - 46, sun[0] + 46, sun[1] + 46], fill=(255, 226, 164))
    for depth, colour, least, most in (
        (0, (120, 92, 122), 40, 120),
        (1, (72, 62, 100), 60, 190),
        (2, (36, 38, 66), 40, 250),
    ):
        x = -20
        while x < width:
            across, up = int(random.integers(34, 84)), int(random.integers(least, most))
            draw.rectangle([x, horizon - up, x + across, horizon], fill=colour)
            if depth == 2:
                for row in range(horizon - up + 8, horizon - 10, 12):
                    for column in range(x + 6, x + across - 8, 11):
                        if random.random() < 0.6:
                            light = 150 + int(random.integers(0, 105))
                            fill = (light, int(0.82 * light), int(0.45 * light))
                            draw.rectangle([column, row, column + 4, row + 6], fill=fill)
            elif random.random() < 0.4:
                draw.line([x + across // 2, horizon - up - 26, x + across // 2, horizon - up],
                          fill=colour, width=3)  # fmt: skip
            x += across + int(random.integers(0, 14))
    picture = np.asarray(sky).astype(float)
    depth = height - horizon
    mirrored = picture[horizon - depth : horizon][::-1] * [0.55, 0.6, 0.72]
    for row in range(depth):
        shift = int(4 * np.sin(row / 2.7) + 2 * np.sin(row / 1.1))
        picture[horizon + row] = np.roll(mirrored[row], shift, axis=0)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(0.6)
    )


def with_sign(picture):
    """A sign in front, that the camera keeps in view."""
    draw = ImageDraw.Draw(picture)
    left, top, right, bottom = (
        int(0.47 * WIDTH),
        int(0.49 * HEIGHT),
        int(0.83 * WIDTH),
        int(0.62 * HEIGHT),
    )
    for leg in (left + 30, right - 36):
        draw.rectangle([leg, bottom, leg + 6, bottom + 40], fill=(24, 26, 36))
    draw.rectangle([left, top, right, bottom], fill=(13, 59, 58), outline=(95, 227, 208), width=3)
    middle = ((left + right) / 2, (top + bottom) / 2)
    font = ImageFont.load_default(size=31)
    draw.text(middle, "DeepFovea++", fill=(225, 255, 250), font=font, anchor="mm")
    return np.asarray(picture)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "viewer.png")
    parser.add_argument("--phone", type=Path)
    parser.add_argument("--dark", type=Path)
    options = parser.parse_args()
    wide = scene(HEIGHT, WIDTH + PAN * FRAMES)
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
    page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    page.goto(url)
    page.locator("#notice").wait_for(state="hidden", timeout=60_000)
    page.select_option("#speed", "0.5")
    for _ in range(6):
        page.locator("#handle").press("ArrowLeft")
    page.evaluate("document.activeElement.blur()")
    box = page.locator("#stage").bounding_box()
    for step in range(60):  # the gaze wanders to the letters
        x = box["x"] + box["width"] * (0.84 - 0.0033 * step)
        page.mouse.move(x, box["y"] + box["height"] * 0.555)
        page.wait_for_timeout(150)
    page.screenshot(path=output)
    with Image.open(output) as picture:
        small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    if output.stat().st_size > 380_000:
        small.save(output, optimize=True)
    print(f"{output}: {output.stat().st_size / 1e3:.0f} kB")
    page.close()


if __name__ == "__main__":
    main()
