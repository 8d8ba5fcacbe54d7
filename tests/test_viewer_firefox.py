"""The most important claims about the page, in Firefox."""

import time
from urllib.parse import urlsplit

import numpy as np
import pytest
from firefox import FIREFOX, firefox
from noise import (
    HEIGHT,
    LEFT,
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
from viewing import running_viewer

from deepfovea.gaze import read_track
from deepfovea.runtime.engine import BACKENDS, load_engine

pytest.importorskip("websockets", reason="websockets is not installed (it is in the extra viewer)")
pytestmark = [
    pytest.mark.skipif(
        FIREFOX is None, reason="no Firefox on the path (Debian: apt-get install firefox-esr)"
    ),
    pytest.mark.flaky(reruns=2),  # a browser may be slow while other tests run
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_noise(tmp_path_factory.mktemp("firefox"))


@pytest.fixture(scope="module")
def desk(folder):
    """The page, dark and paused, with a small fovea and no ring."""
    preferences = {
        "layout.css.prefers-color-scheme.content-override": 0,
        "ui.prefersReducedMotion": 1,
    }
    words = [folder / "noise.mp4", "--model", folder / "tiny.safetensors", "--device", "cpu"]
    with (
        running_viewer(*words, temporary=folder / "temporary") as url,
        firefox(folder, **preferences) as page,
    ):
        page.open(url, WINDOW["width"], WINDOW["height"])
        wait_until(lambda: page.evaluate("document.querySelector('#notice').hidden"))
        click(page, "#ring")
        put(page, "#density", "degrees")
        put(page, "#ppd", 20)
        put(page, "#outer", 1.3 * RADIUS / 20)
        put(page, "#inner", RADIUS / 20)
        yield page
        assert page.complaints == []
        hosts = {urlsplit(asked).netloc for asked in page.asked if not asked.startswith("data:")}
        assert hosts - {""} == {urlsplit(url).netloc}


@pytest.fixture
def page(desk):
    """The page at the first frame, with the stage visible and focused."""
    put(desk, "#position", 0)
    desk.evaluate("document.querySelector('#stage').focus()")
    return desk


def click(page, selector):
    page.evaluate(f"document.querySelector({selector!r}).click()")


def put(page, selector, value):
    """Set a value as a user does, with both events."""
    page.evaluate(
        f"""(() => {{
            const element = document.querySelector({selector!r});
            element.value = {str(value)!r};
            for (const type of ["input", "change"]) element.dispatchEvent(new Event(type));
        }})()"""
    )


def text(page, selector):
    return page.evaluate(f"document.querySelector({selector!r}).textContent")


def choose(page, view, arrangement="alone"):
    click(page, f"input[value={arrangement}]")
    put(page, "#first", view)


def place(page, selector, share=(0.5, 0.5)):
    """A position in an element, in coordinates of the window."""
    x, y, width, height = page.evaluate(
        f"""(() => {{
            const element = document.querySelector({selector!r});
            element.scrollIntoView({{ block: "nearest" }});
            const {{ x, y, width, height }} = element.getBoundingClientRect();
            return [x, y, width, height];
        }})()"""
    )
    return x + share[0] * width, y + share[1] * height


def look(page, gaze):
    x, y = place(page, "#stage", gaze)
    page.move(x, y - 3)  # it may have been there before, which would be no movement
    page.move(x, y)


def pixels(page):
    return from_data_url(page.evaluate("document.querySelector('#picture').toDataURL()"))


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
    put(page, "#second", "original")
    for here, there in ((LEFT, RIGHT), (RIGHT, LEFT)):
        look(page, here)
        page.press("r")  # the state is new: what is sharp was sampled now

        def errors(here=here, there=there):
            page.evaluate("document.querySelector('#handle').focus()")
            page.press("End")
            reconstruction = pixels(page)
            page.press("Home")
            error = np.abs(reconstruction - pixels(page)).mean(-1)
            page.evaluate("document.querySelector('#stage').focus()")
            return around(error, here).mean(), around(error, there).mean()

        wait_until(lambda errors=errors: 2.5 * errors()[0] < errors()[1])


def test_arrow_keys_and_touch_are_the_gaze_too(page):
    choose(page, "samples")
    look(page, LEFT)
    fovea_is_at(page, LEFT, away_from=RIGHT)
    page.evaluate("document.querySelector('#stage').focus()")
    for _ in range(6):
        page.press("Shift", "ArrowRight")
    fovea_is_at(page, RIGHT, away_from=LEFT)
    x, y = place(page, "#stage", LEFT)
    page.mouse(
        {"type": "pointerMove", "x": round(x), "y": round(y)},
        {"type": "pointerDown", "button": 0},
        {"type": "pointerUp", "button": 0},
        kind="touch",
    )
    fovea_is_at(page, LEFT, away_from=RIGHT)


def test_the_wipe_is_dragged(page):
    choose(page, "samples", "wipe")
    put(page, "#second", "original")
    look(page, LEFT)
    # A busy page may update its layout late.
    x, y = settled(lambda: place(page, "#handle", (0.5, 0.4)))
    to, _ = place(page, "#stage", (0.7, 0.5))
    hit = f"document.elementFromPoint({round(x)}, {round(y)}).id"
    wait_until(lambda: page.evaluate(hit) == "handle")
    page.mouse(
        {"type": "pointerMove", "x": round(x), "y": round(y)},
        {"type": "pointerDown", "button": 0},
        {"type": "pointerMove", "x": round(to), "y": round(y), "duration": 100},
        {"type": "pointerUp", "button": 0},
    )
    for _ in range(100):  # the page may be busy with frames
        at = int(page.evaluate("document.querySelector('#handle').ariaValueNow"))
        if at != 50:
            break
        time.sleep(0.05)
    settled(lambda: pixels(page))
    at = int(page.evaluate("document.querySelector('#handle').ariaValueNow"))
    assert at == pytest.approx(70, abs=1)
    settled(lambda: pixels(page))
    both, edge = pixels(page), round(at / 100 * WIDTH)
    page.evaluate("document.querySelector('#handle').focus()")
    page.press("End")
    left = pixels(page)
    page.press("Home")
    right = pixels(page)
    assert np.abs(left - right).mean() > 20
    np.testing.assert_array_equal(both[:, : edge - 3], left[:, : edge - 3])
    np.testing.assert_array_equal(both[:, edge + 3 :], right[:, edge + 3 :])


def test_seek_step_and_play(page, folder):
    choose(page, "original")

    def shows(number):
        expected = frame_of_video(folder, number)
        wait_until(lambda: np.abs(pixels(page) - expected).mean() < 12)  # others: above 50

    put(page, "#position", f"{30 / RATE:.3f}")
    shows(30)
    assert text(page, "#clock") == "0:01.2 / 0:02.0"
    page.press(".")
    shows(31)
    put(page, "#position", "0.2")
    shows(5)
    page.press(" ")
    wait_until(lambda: float(page.evaluate("document.querySelector('#position').value")) > 0.3)
    page.press(" ")
    assert page.evaluate("document.querySelector('#play').ariaLabel") == "Play"


def test_a_recorded_gaze_reads_back_and_plays(page, folder):
    choose(page, "samples")
    put(page, "#speed", "0")
    if text(page, "#record") != "Record gaze":
        click(page, "#record")  # an earlier attempt failed; its file does not count
    before = set(folder.glob("gaze*.csv"))
    look(page, LEFT)
    fovea_is_at(page, LEFT, away_from=RIGHT)
    click(page, "#record")

    def step_to(number):
        # Wait for the frame before the next action, as a busy server may be late.
        page.press(".")
        at = "Number(document.querySelector('#position').value)"
        wait_until(lambda: page.evaluate(at) == pytest.approx(number / RATE))

    for number in (1, 2, 3):
        step_to(number)
    look(page, RIGHT)
    fovea_is_at(page, RIGHT, away_from=LEFT)
    step_to(4)
    click(page, "#record")

    def saved():
        return [file for file in set(folder.glob("gaze*.csv")) - before if file.stat().st_size]

    file = wait_until(saved)[0]
    track = read_track(file, frame_size=(HEIGHT, WIDTH), frame_rate=RATE)
    np.testing.assert_allclose(track.at([1 / RATE])[0], LEFT, atol=0.02)
    np.testing.assert_allclose(track.at([4 / RATE])[0], RIGHT, atol=0.02)
    page.files("#track", file)
    wait_until(lambda: page.evaluate("!document.querySelector('#untrack').hidden"))
    for frame, here, there in ((4, RIGHT, LEFT), (1, LEFT, RIGHT)):
        put(page, "#position", frame / RATE)
        fovea_is_at(page, here, away_from=there)
    click(page, "#untrack")


def test_full_screen_and_back(page):
    page.press("3")
    tags = "[...document.querySelectorAll('.tag')].map((tag) => tag.textContent)"
    beside = ["samples", "original", "filled, no network", "reconstruction"]
    wait_until(lambda: page.evaluate(tags) == beside)
    covers = """(() => {
        const { x, y, width, height } = document.querySelector("#stage").getBoundingClientRect();
        return x === 0 && y === 0 && width === innerWidth && height === innerHeight;
    })()"""
    # Without the focus a key is not enough for a full screen, and the stage fills the window.
    for enter in (lambda: page.press("f"), lambda: click(page, "#full")):
        enter()
        wait_until(lambda: page.evaluate(covers))
        assert page.evaluate(tags) == ["reconstruction"]
        page.press("f")
        wait_until(lambda: not page.evaluate(covers))
        assert page.evaluate("document.fullscreenElement === null")
        wait_until(lambda: page.evaluate(tags) == beside)
    page.press("2")


def test_live_figures(page, folder):
    choose(page, "reconstruction")
    step = 0

    def has_percentile():
        nonlocal step
        step += 1
        look(page, (0.3 + 0.01 * (step % 40), 0.5))
        return text(page, "#latency95") != "–"

    wait_until(has_percentile)
    assert 0 < float(text(page, "#latency")) <= float(text(page, "#latency95"))
    assert 5 < float(text(page, "#psnr")) < 60
    assert text(page, "#model-name") == "tiny.safetensors"
    fastest = load_engine(folder / "tiny.safetensors", "auto", "cpu").name
    assert text(page, "#engine") == f"{BACKENDS[fastest].title}, cpu"


def test_at_phone_width_in_the_dark(page):
    page.size(360, 740)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    wide = page.evaluate(
        """[...document.querySelectorAll("button, select, input:not(.hidden-file), .button")]
            .filter((e) => e.checkVisibility() && e.getBoundingClientRect().right > 360)
            .map((e) => e.id)"""
    )
    assert wide == []
    picture = page.picture()
    assert picture.shape == (740, 360, 3)
    assert np.median(picture[:40, :200]) < 60
    page.size(WINDOW["width"], WINDOW["height"])
