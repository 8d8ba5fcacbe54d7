"""Claims about the viewer with a live eye tracker: it samples where the eye looks, calibrates, and
records what can be scored again exactly."""

import json
import re
import shutil
import socket
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import uvicorn
from test_viewer import HOST, hello, next_frame, run, serving, viewer, watch
from viewing import (
    CHROMIUM,
    COUNT,
    DISC,
    HEIGHT,
    RATE,
    WIDTH,
    chromium,
    make_catalog,
)

import deepfovea
from deepfovea import LiveGaze, cli
from deepfovea.gaze.live import POINTS, GazeRecording, read_calibration
from deepfovea.gaze.live.sample import Reading
from deepfovea.viewer import server
from deepfovea.viewer.live import LiveViewing
from deepfovea.viewer.server import make_app
from deepfovea.viewer.session import Catalog

QUIET = {"playing": False, "density": DISC}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("live")


@pytest.fixture(scope="module")
def plain(folder):
    return make_catalog(folder, models=("tiny",))


@pytest.fixture
def tracked(plain, tmp_path):
    """A catalog with a simulated tracker, whose gaze is set, and a recording."""
    recording = GazeRecording(tmp_path / "gaze.csv", RATE)
    with LiveGaze("udp:0") as gaze:
        live = LiveViewing(gaze, recording, "0")
        yield Catalog(plain.videos, plain.models, plain.load, live=live)


def look_at(catalog, x, y, valid=True):
    now = time.perf_counter()
    catalog.live.gaze._deliver(Reading(x, y, valid, now))


@contextmanager
def looking(catalog, x, y):
    """Let the tracker report this gaze 200 times a second."""
    stop = threading.Event()

    def send():
        while not stop.wait(0.005):
            look_at(catalog, x, y)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_still_frame_follows_the_tracker_and_a_choice_of_the_page_comes_first(tracked):
    with looking(tracked, 0.25, 0.5), viewer(tracked, gaze=[0.1, 0.1], **QUIET) as one:
        while (frame := one.frame()[0])["gaze"] != [0.25, 0.5]:
            pass  # the first may come before the tracker
        assert frame["timestamp"] is None
        assert frame["live"]["valid"]
    with viewer(tracked, gaze=[0.1, 0.1], **QUIET) as one:
        with looking(tracked, 0.75, 0.5):
            while one.frame()[0]["gaze"] != [0.75, 0.5]:
                pass
        while (frame := one.frame()[0])["gaze"] != [0.5, 0.5]:  # no more samples: to the centre
            assert frame["gaze"][1] == 0.5
        assert one.silent(0.2)
        one.say(live=False)
        frame = one.frame()[0]
        assert (frame["gaze"], frame["live"]) == ([0.1, 0.1], None)
        one.say(live=True, track="time,x,y\n0,24,32\n1,24,32\n")
        assert one.frame()[0]["gaze"] == pytest.approx([24.5 / WIDTH, 32.5 / HEIGHT])


def test_what_was_shown_is_recorded_and_scores_the_same_again(tracked, folder, tmp_path, caplog):
    """evaluate --gaze with the recording gives the PSNR of the frames that were shown."""
    shown, scores = {}, []
    with viewer(tracked, speed=0.0, density=DISC, jitter="none") as one:
        for number in range(1, COUNT + 1):
            look_at(tracked, 0.05 * number, 0.3)
            frame, _ = one.frame(acknowledge=False)
            one.say(acknowledged=min(number, COUNT - 2))  # so that no further one is begun
            shown[frame["seconds"]] = frame["gaze"]
            scores.append(frame["psnr"])
    tracked.live.close()
    path, video = tracked.live.recording.path, tracked.videos["0"][0]
    track = deepfovea.read_track(
        path, frame_size=(HEIGHT, WIDTH), frame_rate=RATE, frame_count=COUNT
    )
    assert not caplog.records
    assert [track.at([seconds])[0].tolist() for seconds in shown] == list(shown.values())
    rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    assert len(rows) == len(shown) == COUNT
    assert all(float(row[4]) <= float(row[3]) for row in rows)  # samples before they were asked for

    clips = tmp_path / "clips"
    clips.mkdir()
    shutil.copy(video, clips)
    words = ["--models", folder / "tiny.safetensors", "--baselines", "", "--metrics", "psnr"]
    words += ["--gaze", path, "--density", DISC, "--noise", "blue", "--jitter", "none"]
    words += ["--engine", "torch", "--frames", COUNT, "--json", tmp_path / "scores.json"]
    assert cli.main(["evaluate", str(clips), *map(str, words)]) == 0
    (row,) = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))["rows"]
    assert row["psnr"] == pytest.approx(np.mean(scores), abs=1e-3)


def test_calibration_from_the_page(tracked, plain, tmp_path, monkeypatch):
    monkeypatch.setattr("deepfovea.viewer.live.MEASURE_SECONDS", 0.05)

    def tracker(x, y):
        return 0.2 + 0.5 * x, 0.9 - 0.7 * y

    with serving(tracked, tmp_path) as (client, _), watch(client) as socket:
        told = hello(socket)
        assert told["live"]["points"] == [list(point) for point in POINTS]
        assert told["live"]["recording"] == "gaze.csv"

        def ask(question, token=told["token"]):
            content = question if isinstance(question, bytes) else json.dumps(question)
            return client.post(f"/calibrate?token={token}", content=content)

        assert ask({"measure": True}, "wrong").status_code == 403
        answer = ask({"measure": True})
        assert (answer.status_code, "no valid sample" in answer.json()["error"]) == (400, True)
        measured = []
        for x, y in POINTS:
            time.sleep(0.06)  # so that only the new look counts
            look_at(tracked, *tracker(x, y))
            measured.append(ask({"measure": True}).json()["measured"])
        size = {"width": WIDTH, "height": HEIGHT, "pixels_per_degree": 25}
        answer = ask({"targets": POINTS, "measured": measured, **size})
        assert answer.json()["residual_deg"] == {"mean": 0, "max": 0}
        (tmp_path / "c.json").write_text(answer.text, encoding="utf-8")
        assert read_calibration(tmp_path / "c.json")(*tracker(0.3, 0.8)) == pytest.approx(
            (0.3, 0.8)
        )
        look_at(tracked, *tracker(0.25, 0.75))
        assert tracked.live.gaze.newest.position == pytest.approx((0.25, 0.75))
        for bad in (b"", b"[1]", b"{}", b"x" * 20_000, {"targets": [], "measured": [], **size},
                    {"targets": POINTS, "measured": measured, **size, "width": 0},
                    {"targets": POINTS, "measured": measured}):  # fmt: skip
            answer = ask(bad)
            assert answer.status_code == 400
            assert answer.json()["error"].startswith("calibration: received ")
            assert "; expected " in answer.json()["error"]
    with serving(plain, tmp_path) as (client, _), watch(client) as socket:
        told = hello(socket)
        assert told["live"] is None
        answer = client.post(f"{HOST}/calibrate?token={told['token']}", content="{}")
        assert answer.status_code == 403
        assert next_frame(socket)[0]["live"] is None


def test_the_options_of_view(plain, folder, tmp_path, capsys, monkeypatch):
    served = {}

    def serve(catalog, **options):
        served.update(options, live=catalog.live)
        look_at(catalog, 0.5, 0.5)
        sample = catalog.live.gaze.newest
        served["position"] = sample.position
        catalog.live.record("0", 0.0, (0.5, 0.5), catalog.live.gaze.look())

    monkeypatch.setattr(server, "serve", serve)
    video, model = plain.videos["0"][0], folder / "tiny.safetensors"
    (tmp_path / "c.json").write_text('{"affine": [[0.5, 0, 0.1], [0, 1, 0]]}', encoding="utf-8")
    record = tmp_path / "gaze.csv"
    words = [video, "--model", model, "--gaze", "udp:0", "--record-gaze", record]
    code, out, err = run(
        capsys, *words, "--gaze-calibration", tmp_path / "c.json", "--gaze-offset", "-20",
        "--gaze-units", "px", "--gaze-screen", "10x20",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert served["max_clients"] == 1
    assert served["position"] == pytest.approx((0.35, 0.5))
    assert "gaze: 1 sample, 0 of them lost" in out
    assert f"wrote {record}" in out
    assert served["live"].gaze._offset == -0.02
    for bad, expected in (
        (words, "exists already"),
        ([video, "--gaze-units", "px"], "--gaze-units: received it without --gaze"),
        ([video, "--predict-landing"], "--predict-landing: received it without --gaze"),
        ([*words[:3], "--gaze", "320,240"], "expected lsl"),
        ([*words[:-1], video, "--overwrite"], str(video)),
        ([*words[:-1], record / "gaze.csv"], f"{record}: no folder for outputs"),
    ):
        code, _, err = run(capsys, *bad, "--model", model)
        assert (code, err.count("\n")) == (2, 1), err
        assert expected in err
    assert record.read_text(encoding="utf-8").count("\n") == 2
    deeper = tmp_path / "new" / "gaze.csv"
    assert run(capsys, *words[:-1], deeper, "--model", model)[0] == 0
    assert deeper.read_text(encoding="utf-8").count("\n") == 2


@contextmanager
def listening(catalog, folder):
    """Run a real server in a thread; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(make_app(catalog, folder), log_level="warning", lifespan="off")
        one = uvicorn.Server(config)
        thread = threading.Thread(target=one.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            one.should_exit = True
            thread.join()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path")
def test_the_page_calibrates_with_five_targets(tracked, tmp_path):
    """A simulated eye looks at the dot on the page; the tracker's error is an affine map."""
    at, stop = [0.5, 0.5], threading.Event()

    def track():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            while not stop.wait(0.01):
                look = {"x": 0.3 + 0.4 * at[0], "y": 0.2 + 0.5 * at[1]}
                address = "127.0.0.1", tracked.live.gaze.port
                sender.sendto(json.dumps(look).encode(), address)

    thread = threading.Thread(target=track)
    thread.start()
    try:
        with listening(tracked, tmp_path) as url, chromium() as browser:
            page = browser.new_page(reduced_motion="reduce")
            complaints = []
            page.add_init_script(  # less patience with the eye than 1.2 s a target
                "const wait = setTimeout; window.setTimeout = (f, ms) => wait(f, Math.min(ms, 700))"
            )
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto(url)
            page.locator("#tracker-state", has_text=re.compile("^[0-9]+ ms old")).wait_for()
            latency = page.locator("#eye-to-photon", has_text=re.compile("^[0-9]+ ms, p95"))
            latency.wait_for()  # sent without a time: from the arrival of the packet
            assert 0 < int(latency.text_content().split()[0]) < 10_000
            with page.expect_download(timeout=60_000) as saved:
                page.click("#calibrate")
                while page.is_disabled("#calibrate"):
                    place = page.evaluate("""() => {
                      const dot = document.querySelector(".target"), pane = picture();
                      return dot && [(parseFloat(dot.style.left) - pane.x) / pane.w,
                                     (parseFloat(dot.style.top) - pane.y) / pane.h];
                      function picture() {
                        const {clientWidth: w, clientHeight: h} = document.querySelector("#stage");
                        const side = Math.min(w, h * 1.5);
                        return {x: (w - side) / 2, y: (h - side / 1.5) / 2, w: side, h: side / 1.5};
                      }
                    }""")
                    at[:] = place or at
            saved.value.save_as(tmp_path / "c.json")
            residual = page.text_content("#calibration-residual")
            assert re.match(r"0\.00° mean, 0\.\d\d° at most", residual)
            found = read_calibration(tmp_path / "c.json")
            assert found(0.4, 0.4) == pytest.approx((0.25, 0.4), abs=0.01)
            page.uncheck("#follow-tracker")
            assert complaints == []
    finally:
        stop.set()
        thread.join()
