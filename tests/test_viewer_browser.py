"""Claims about the page in a real browser: actions of the user change the pixels."""

import base64
import io
import re
from contextlib import contextmanager
from urllib.parse import urlsplit

import media
import numpy as np
import pytest
from noise import (
    HEIGHT,
    LEFT,
    PATIENCE,
    RADIUS,
    RATE,
    RIGHT,
    WIDTH,
    WINDOW,
    around,
    frame_of_video,
    from_data_url,
    known,
    make_noise,
    settled,
    wait_until,
)
from PIL import Image
from viewing import CHROMIUM, accessibility_faults, chromium, running_viewer

from deepfovea.cli import main
from deepfovea.config import BEST_SAMPLING
from deepfovea.gaze import read_track
from deepfovea.video import VideoReader

pytest.importorskip("playwright", reason="playwright is not installed (it is in the extra dev)")
pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None, reason="no chromium on the path (Debian: apt-get install chromium)"
    ),
    pytest.mark.flaky(reruns=2),  # a browser may be slow while other tests run
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_noise(tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def address(folder):
    with running_viewer(
        folder / "noise.mp4",
        "--model",
        folder / "tiny.safetensors",
        "--engine",
        "torch",
        temporary=folder / "temporary",
    ) as url:
        yield url
    assert not list((folder / "temporary").iterdir())  # nothing of the uploads is left


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


def wait_for_frames(page):
    page.locator("#notice").wait_for(state="hidden")


@contextmanager
def opened(browser, address, **options):
    """A page that shows frames. It must not log errors or contact other hosts.

    It starts paused, as for users who have set their system to reduced motion.
    """
    options = {"viewport": WINDOW, "reduced_motion": "reduce"} | options
    page = browser.new_page(**options)
    page.set_default_timeout(1e3 * PATIENCE)
    complaints, hosts = [], set()
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    try:
        page.goto(address)
        wait_for_frames(page)
        yield page
    finally:
        page.close()
    assert [text for text in complaints if "400 (Bad Request)" not in text] == []  # no video
    assert hosts - {""} == {urlsplit(address).netloc}  # blobs have none


@pytest.fixture(scope="module")
def desk(browser, address):
    """One page for all tests that do not need a new one."""
    with opened(browser, address, has_touch=True) as page:
        small_fovea(page)
        yield page


@pytest.fixture
def page(desk):
    """The page, paused at the first frame, without a ring, with a small fovea at the pointer."""
    if desk.locator("#untrack").is_visible():
        desk.click("#untrack")
    if desk.locator("#play").get_attribute("aria-label") == "Pause":
        press(desk, " ")
    desk.fill("#position", "0")
    return desk


def small_fovea(page):
    page.uncheck("#ring")
    page.select_option("#density", "degrees")
    for name, value in (("ppd", 20), ("outer", 1.3 * RADIUS / 20), ("inner", RADIUS / 20)):
        page.fill(f"#{name}", f"{value:.2f}")


def press(page, key):
    page.locator("#stage").press(key)


def choose(page, view, arrangement="alone"):
    page.check(f"input[value={arrangement}]", force=True)
    page.select_option("#first", view)


def pixels(page):
    """The stage's canvas as it is, in pixels of the video, float [H, W, 3]."""
    return from_data_url(page.evaluate("document.querySelector('#picture').toDataURL()"))


def look(page, gaze):
    page.locator("#stage").scroll_into_view_if_needed()
    box = page.locator("#stage").bounding_box()
    x, y = box["x"] + gaze[0] * box["width"], box["y"] + gaze[1] * box["height"]
    page.mouse.move(x, y - 3)  # it may have been there before, which would be no movement
    page.mouse.move(x, y)


def fovea_is_at(page, gaze, away_from):
    def condition():
        samples = pixels(page)
        return known(samples, gaze) > 0.85 and known(samples, away_from) < 0.4

    return wait_until(condition)


def test_samples_and_picture_follow_the_pointer(page):
    choose(page, "samples")
    for here, there in ((LEFT, RIGHT), (RIGHT, LEFT)):
        look(page, here)
        fovea_is_at(page, here, away_from=there)
    choose(page, "reconstruction", "wipe")
    page.select_option("#second", "original")
    for here, there in ((LEFT, RIGHT), (RIGHT, LEFT)):
        look(page, here)
        press(page, "r")  # the state is new: what is sharp was sampled now
        page.wait_for_timeout(300)

        def errors(here=here, there=there):
            page.locator("#handle").press("End")
            reconstruction = pixels(page)
            page.locator("#handle").press("Home")
            error = np.abs(reconstruction - pixels(page)).mean(-1)
            return around(error, here).mean(), around(error, there).mean()

        wait_until(lambda errors=errors: 2.5 * errors()[0] < errors()[1])


def test_arrow_keys_and_touch_are_the_gaze_too(page):
    choose(page, "samples")
    look(page, LEFT)
    fovea_is_at(page, LEFT, away_from=RIGHT)
    for _ in range(6):
        press(page, "Shift+ArrowRight")
    fovea_is_at(page, RIGHT, away_from=LEFT)
    for _ in range(4):
        press(page, "Shift+ArrowUp")
    fovea_is_at(page, (0.8, 0.0), away_from=LEFT)
    box = page.locator("#stage").bounding_box()
    x, y = (
        box[side] + share * box[length]
        for side, length, share in (("x", "width", LEFT[0]), ("y", "height", LEFT[1]))
    )
    page.touchscreen.tap(x, y)
    fovea_is_at(page, LEFT, away_from=RIGHT)


def test_the_wipe_shows_one_frame_on_both_sides(page):
    choose(page, "samples", "wipe")
    page.select_option("#second", "original")
    look(page, LEFT)
    handle = page.locator("#handle")
    box, stage = handle.bounding_box(), page.locator("#stage").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    settled(lambda: pixels(page))
    page.mouse.down()
    page.mouse.move(stage["x"] + 0.7 * stage["width"], box["y"] + 60, steps=4)
    page.mouse.up()
    assert handle.get_attribute("aria-valuenow") == "70"
    both, edge = pixels(page), round(0.7 * WIDTH)
    handle.press("End")
    left = pixels(page)
    handle.press("Home")
    right = pixels(page)
    assert np.abs(left - right).mean() > 20
    np.testing.assert_array_equal(both[:, : edge - 2], left[:, : edge - 2])
    np.testing.assert_array_equal(both[:, edge + 2 :], right[:, edge + 2 :])
    handle.press("Home")
    for _ in range(3):
        handle.press("ArrowRight")
    assert handle.get_attribute("aria-valuenow") == "6"


def test_seek_step_and_play(page, folder):
    choose(page, "original")

    def shows(number):
        expected = frame_of_video(folder, number)
        wait_until(lambda: np.abs(pixels(page) - expected).mean() < 6)

    page.fill("#position", f"{30 / RATE:g}")
    shows(30)
    assert page.inner_text("#clock") == "0:01.2 / 0:02.0"
    press(page, ".")
    shows(31)
    page.click("#step")
    shows(32)
    page.fill("#position", "0.2")
    shows(5)
    assert page.locator("#play").get_attribute("aria-label") == "Play"
    page.select_option("#speed", "0.25")
    page.click("#play")
    wait_until(lambda: float(page.input_value("#position")) > 0.3)
    press(page, " ")
    assert page.locator("#play").get_attribute("aria-label") == "Play"
    still = settled(lambda: pixels(page))
    assert page.input_value("#position") != "0"
    page.wait_for_timeout(300)
    np.testing.assert_array_equal(pixels(page), still)


def test_density_blue_noise_and_model(page):
    choose(page, "samples")
    look(page, LEFT)

    def sampled():
        return float(page.inner_text("#sampled").split()[0])

    page.select_option("#density", "uniform")
    page.fill("#percent", "40")
    wait_until(lambda: abs(sampled() - 40) < 4)
    assert page.is_checked("#blue-noise") == (BEST_SAMPLING.noise == "blue")
    assert page.input_value("#jitter") == BEST_SAMPLING.jitter
    first = settled(lambda: pixels(page))
    page.uncheck("#blue-noise")
    wait_until(lambda: not np.array_equal(pixels(page), first))
    # Grey noise leaves gaps that even draws of the same number do not.
    plain = settled(lambda: pixels(page))
    page.check("#blue-noise")
    wait_until(lambda: not np.array_equal(pixels(page), plain))
    even = settled(lambda: pixels(page))

    def unevenness(picture):
        cells = (picture.max(-1) > 15).reshape(HEIGHT // 16, 16, WIDTH // 16, 16).mean((1, 3))
        return cells.std()

    assert unevenness(even) < 0.7 * unevenness(plain)
    page.select_option("#jitter", "halton")  # whose first offset is not zero
    page.click("#reset")
    wait_until(lambda: not np.array_equal(pixels(page), even))
    page.select_option("#jitter", "none")
    page.select_option("#density", "budget")
    page.fill("#percent", "20")
    wait_until(lambda: abs(sampled() - 20) < 3)
    page.fill("#percent", "")  # not yet a number: nothing is sent, and there is no error
    page.fill("#percent", "30")
    wait_until(lambda: abs(sampled() - 30) < 4)
    page.uncheck("#blue-noise")
    page.select_option("#density", "degrees")
    page.select_option("#model", "stream")
    wait_until(lambda: page.inner_text("#model-name") == "stream")
    page.select_option("#model", "tiny.safetensors")
    wait_until(lambda: page.inner_text("#model-name") == "tiny.safetensors")


def test_side_by_side_and_full_screen(page):
    page.check("input[value=beside]", force=True)
    tags = ["samples", "original", "filled, no network", "reconstruction"]
    wait_until(lambda: page.locator(".tag").all_inner_texts() == tags)
    page.select_option("#other", "model:stream")
    tags[2] = "stream"
    wait_until(lambda: page.locator(".tag").all_inner_texts() == tags)
    wait_until(lambda: "stream" in page.inner_text("#psnr-others"))
    page.select_option("#other", "model:paper")
    wait_until(lambda: page.inner_text("#status").startswith("paper: received it beside tiny"))
    wait_until(lambda: page.input_value("#other") == "model:stream")  # which is still shown
    page.wait_for_timeout(300)
    press(page, "f")
    wait_until(lambda: page.evaluate("document.fullscreenElement?.id") == "stage")
    assert page.locator(".tag").all_inner_texts() == ["reconstruction"]
    press(page, "f")
    wait_until(lambda: page.locator(".tag").all_inner_texts() == tags)
    assert page.evaluate("!document.fullscreenElement")


LEAST_MEAN = """async () => {
    const canvas = document.querySelector("#picture");
    const select = document.querySelector("#first");
    let least = 255;
    for (const view of ["filled", "accumulated", "error", "original"]) {
        select.value = view;
        select.dispatchEvent(new Event("change"));
        const text = select.selectedOptions[0].textContent;
        while (document.querySelector(".tag").textContent !== text) {
            await new Promise(requestAnimationFrame);
            const { width, height } = canvas;
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            least = Math.min(least, data.reduce((a, b) => a + b) / data.length);
        }
    }
    return least;
}"""


def test_a_picture_that_is_chosen_while_paused_replaces_the_one_before_it(page):
    """Until there is one, the one before stays: the stage is never black."""
    choose(page, "reconstruction")
    wait_until(lambda: page.locator(".tag").all_inner_texts() == ["reconstruction"])
    assert page.evaluate(LEAST_MEAN) > 80  # opaque and black is 64


def test_a_clip_is_a_webm_of_what_is_shown(page, folder):
    choose(page, "original")
    wait_until(lambda: page.locator(".tag").all_inner_texts() == ["original"])
    page.locator("#clip").dispatch_event("click")
    for _ in range(5):
        before = page.input_value("#position")
        press(page, ".")
        wait_until(lambda before=before: page.input_value("#position") != before)
        page.wait_for_timeout(100)
    last = settled(lambda: pixels(page))
    with page.expect_download() as download:
        page.locator("#clip").dispatch_event("click")
    assert download.value.suggested_filename == "deepfovea.webm"
    download.value.save_as(folder / "clip.webm")
    with VideoReader(folder / "clip.webm") as reader:
        clip = [
            np.asarray(Image.fromarray(frame.image).resize((WIDTH, HEIGHT))) for frame in reader
        ]
    assert len(clip) > 3
    assert np.abs(clip[-1] - last).mean() < 8 < np.abs(clip[0] - last).mean()


def test_a_recorded_gaze_reads_back_and_plays(page, folder):
    choose(page, "samples")
    page.locator("#stage").focus()
    look(page, LEFT)
    fovea_is_at(page, LEFT, away_from=RIGHT)
    # Not with the mouse, which would scroll the stage away from the pointer.
    page.locator("#record").dispatch_event("click")
    # In single steps, so that no clock runs during this test.
    for gaze, other, until in ((LEFT, RIGHT, 12), (RIGHT, LEFT, 25)):
        look(page, gaze)
        fovea_is_at(page, gaze, away_from=other)
        while (position := float(page.input_value("#position"))) < until / RATE - 1e-6:
            page.keyboard.press(".")
            wait_until(lambda before=position: float(page.input_value("#position")) > before)
    settled(lambda: pixels(page))
    with page.expect_download() as download:
        page.locator("#record").dispatch_event("click")
    track_file = folder / "gaze.csv"
    download.value.save_as(track_file)
    size = (HEIGHT, WIDTH)
    track = read_track(track_file, frame_size=size, frame_rate=RATE)
    np.testing.assert_allclose(track.at([0.25])[0], LEFT, atol=0.02)
    np.testing.assert_allclose(track.at([0.95])[0], RIGHT, atol=0.02)
    video, model = str(folder / "noise.mp4"), str(folder / "tiny.safetensors")
    command = ["reconstruct", video, "--simulate", "--model", model, "--gaze", str(track_file)]
    assert main([*command, "-o", str(folder / "out.mp4"), "--frames", "3"]) == 0

    page.set_input_files("#track", track_file)
    page.locator("#untrack").wait_for()
    for seconds, here, there in ((0.95, RIGHT, LEFT), (0.25, LEFT, RIGHT)):
        page.fill("#position", str(seconds))
        fovea_is_at(page, here, away_from=there)
    look(page, RIGHT)  # the track is followed, not the pointer
    page.wait_for_timeout(300)
    fovea_is_at(page, LEFT, away_from=RIGHT)
    page.click("#untrack")
    look(page, (0.81, 0.5))
    fovea_is_at(page, RIGHT, away_from=LEFT)
    (folder / "bad.csv").write_text("time,left\n0,1\n", encoding="utf-8")
    page.set_input_files("#track", folder / "bad.csv")
    wait_until(lambda: "gaze track: received the columns" in page.inner_text("#status"))
    page.locator("#track").wait_for(state="attached")
    assert page.locator("#untrack").is_hidden()


def drop(page, name, data):
    page.evaluate(
        """([name, base64]) => {
            const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([bytes], name));
            for (const type of ["dragenter", "dragover", "drop"]) {
                document.body.dispatchEvent(
                    new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
            }
        }""",
        [name, base64.b64encode(data).decode()],
    )


def test_a_video_can_be_dropped_and_nothing_else(page, folder):
    grey = [np.full((HEIGHT, WIDTH, 3), 90 + i, np.uint8) for i in range(4)]
    video = media.write_video(folder / "grey.mp4", grey)
    choose(page, "original")
    drop(page, "<b>grey</b>.mp4", video.read_bytes())
    wait_until(lambda: page.inner_text("#title") == "<b>grey</b>.mp4")
    wait_until(lambda: pixels(page).std() < 3)
    assert page.locator("#videos label").all_inner_texts() == ["noise.mp4", "<b>grey</b>.mp4"]
    page.get_by_role("radio", name="noise.mp4").check(force=True)
    wait_until(lambda: pixels(page).std() > 20)
    assert page.inner_text("#title") == "noise.mp4"
    drop(page, "notes.txt", b"no video")
    wait_until(lambda: "received no video" in page.inner_text("#status"))
    press(page, ".")
    wait_until(lambda: page.input_value("#position") == str(1 / RATE))  # and it goes on


def test_live_figures(browser, address):
    with opened(browser, address, reduced_motion="no-preference") as page:
        look(page, (0.3, 0.5))
        wait_until(lambda: page.inner_text("#latency") != "–")
        assert page.inner_text("#latency95") == "–"  # of so few it would be the slowest
        for i in range(40):
            look(page, (0.3 + 0.01 * i, 0.5))
            page.wait_for_timeout(50)
        wait_until(lambda: page.inner_text("#latency95") != "–")
        figure = {
            name: float(re.search(r"[\d.]+", page.inner_text(f"#{name}"))[0])
            for name in ("fps", "latency", "latency95", "psnr", "sampled", "server")
        }
        assert 0 < figure["fps"] < 1.2 * RATE
        assert 0 < figure["latency"] <= figure["latency95"] < 1e3 * PATIENCE
        assert 5 < figure["psnr"] < 60
        assert 15 < figure["sampled"] <= 100
        assert page.inner_text("#model-name") == "tiny.safetensors"
        assert page.inner_text("#engine") == "PyTorch, cpu"
        drawn = page.evaluate("document.querySelector('#plot').toDataURL()")
        image = Image.open(io.BytesIO(base64.b64decode(drawn.partition(",")[2])))
        rates, latencies = np.split(np.asarray(image.convert("RGBA")).astype(int), 2)
        for half, (red, green, blue) in ((rates, (10, 111, 105)), (latencies, (164, 72, 11))):
            marks = np.abs(half[..., :3] - [red, green, blue]).max(-1) < 8
            assert (marks & (half[..., 3] > 200)).sum() > 4  # in the colours of the page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_at_phone_width(browser, address, tmp_path, scheme):
    with opened(
        browser, address, viewport={"width": 360, "height": 740}, color_scheme=scheme
    ) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        narrow = page.evaluate(
            """[...document.querySelectorAll("button, select, input:not(.hidden-file), .button")]
                .filter((e) => e.checkVisibility() && e.getBoundingClientRect().right > 360)
                .map((e) => e.id)"""
        )
        assert narrow == []
        ground, ink = page.evaluate(
            """["backgroundColor", "color"].map((name) =>
                getComputedStyle(document.body)[name].match(/\\d+/g).map(Number))"""
        )
        dark = sum(ground) < sum(ink)
        assert dark == (scheme == "dark")
        picture = Image.open(io.BytesIO(page.screenshot()))
        top = np.asarray(picture.convert("L"))[:40, :200]
        assert (np.median(top) < 60) == dark


def test_as_many_samples_spread_evenly(page):
    choose(page, "samples")
    page.check("input[value=gaze]", force=True)
    look(page, LEFT)
    fovea_is_at(page, LEFT, away_from=RIGHT)
    settled(lambda: pixels(page))
    page.wait_for_timeout(400)  # the figures follow a little later
    before = float(page.inner_text("#sampled").split()[0])
    page.check("input[value=even]", force=True)
    wait_until(lambda: known(pixels(page), LEFT) < 0.6)
    wait_until(lambda: abs(float(page.inner_text("#sampled").split()[0]) - before) < 2)
    page.check("input[value=all]", force=True)
    wait_until(lambda: page.inner_text("#sampled") == "100.0 %")
    page.check("input[value=gaze]", force=True)
    fovea_is_at(page, LEFT, away_from=RIGHT)
    assert page.input_value("#density") == "degrees"  # what was chosen before


def test_the_inset_keeps_away_from_the_gaze(page):
    choose(page, "original", "inset")
    page.select_option("#second", "reconstruction")
    corners = {"left": (0.16, 0.84), "right": (0.84, 0.84)}
    for gaze, corner in ((LEFT, "right"), (RIGHT, "left")):
        look(page, gaze)
        page.wait_for_timeout(300)
        shown = settled(lambda: pixels(page))
        choose(page, "reconstruction", "alone")
        alone = settled(lambda: pixels(page))
        choose(page, "original", "inset")
        page.select_option("#second", "reconstruction")
        changed = {
            name: np.abs(around(shown, at) - around(alone, at)).mean()
            for name, at in corners.items()
        }
        assert max(changed, key=changed.get) == corner


def test_the_controls_stay_in_the_window(page):
    for width, height in ((1440, 900), (1280, 720), (1024, 768)):
        page.set_viewport_size({"width": width, "height": height})
        for arrangement in ("inset", "wipe", "beside"):
            page.check(f"input[value={arrangement}]", force=True)
            controls = page.locator(".watch :is(button, select, input):visible")
            outside = controls.evaluate_all(
                """(controls) => controls.filter((e) => {
                    const { right, bottom } = e.getBoundingClientRect();
                    return right > innerWidth || bottom + scrollY > innerHeight;
                }).map((e) => e.id)"""
            )
            assert outside == [], (width, height, arrangement)
    page.set_viewport_size(WINDOW)


def test_axe_finds_nothing_and_keys_are_told(browser, address):
    with opened(browser, address, color_scheme="dark") as page:
        page.locator("details").evaluate_all("(all) => all.forEach((one) => { one.open = true; })")
        choose(page, "samples", "wipe")
        page.select_option("#density", "degrees")
        page.fill("#outer", "1")
        told = "Periphery from, °: 1; expected a number from 0.1 to 90, larger than the fovea's 2."
        assert page.inner_text("#density-note").startswith(told)
        press(page, "Shift+ArrowLeft")
        assert page.inner_text("#gaze-spoken") == "Gaze 40 % from the left, 50 % from the top"
        assert accessibility_faults(page) == ""
        page.emulate_media(color_scheme="light")
        page.set_viewport_size({"width": 390, "height": 844})
        assert accessibility_faults(page) == ""


def test_every_control_has_a_name(page):
    choose(page, "samples", "wipe")
    nameless = page.evaluate(
        """[...document.querySelectorAll(
            "button, select, input, [role=slider], #stage, progress")]
            .filter((e) => !(e.getAttribute("aria-label") || e.labels?.length
                             || e.textContent.trim()))
            .map((e) => e.id)"""
    )
    assert nameless == []
    for name in ("Play", "Single step", "Reset its state", "Record gaze"):
        assert page.get_by_role("button", name=name, exact=True).count() == 1
    for name in ("Position in the video", "Wipe between the two pictures"):
        assert page.get_by_role("slider", name=name).count() == 1
    for name in ("Speed", "Left", "Right", "Density", "Model"):
        assert page.get_by_role("combobox", name=name).count() == 1
