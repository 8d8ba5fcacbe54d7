"""Claims about live gaze: what arrives by each protocol is where the eye looked, when it did; what
is lost, late or malformed does no harm; what was shown can be replayed."""

import json
import math
import os
import socket
import struct
import subprocess
import sys
import time

import numpy as np
import pytest

import deepfovea
from deepfovea import InputError, LiveGaze
from deepfovea.gaze import DEFAULT_DISPLAY, GazeTrack, synthetic
from deepfovea.gaze.live import (
    GazeEstimate,
    GazeRecording,
    LiveSample,
    fit_calibration,
    read_calibration,
    write_calibration,
)
from deepfovea.gaze.live.clock import OneWayClock, RoundTripClock
from deepfovea.gaze.live.datagram import parse_json
from deepfovea.gaze.live.lsl import find_eyes, read_position
from deepfovea.gaze.live.saccade import SaccadeDetector
from deepfovea.gaze.live.sample import Reading
from tests.pupil_device import PupilDevice

PATIENCE = 15  # s, on a busy machine; met in well under a second otherwise


def until(holds):
    """Wait until something holds, and return it."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := holds():
            return found
        time.sleep(0.005)
    raise AssertionError("it never came to hold")


class Sender:
    """Sends UDP packets to a LiveGaze."""

    def __init__(self, gaze):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.address = "127.0.0.1", gaze.port

    def __call__(self, packet):
        data = packet if isinstance(packet, bytes) else json.dumps(packet).encode()
        self.socket.sendto(data, self.address)


@pytest.fixture
def udp():
    with LiveGaze("udp:0") as gaze:
        yield gaze, Sender(gaze)


# ---- UDP and OSC ----


def test_json_over_udp_gives_position_times_and_validity(udp):
    gaze, send = udp
    assert gaze.look().position == (0.5, 0.5)  # nothing yet: the centre
    before = time.perf_counter()
    send({"time": 12.5, "x": 0.25, "y": 0.75, "confidence": 0.9, "other": "ignored"})
    sample = gaze.wait(PATIENCE)
    assert sample.position == (0.25, 0.75)
    assert sample.valid
    assert sample.tracker_seconds == 12.5
    assert before <= sample.own_seconds <= sample.received_seconds <= time.perf_counter()
    assert gaze.look(sample.own_seconds).position == (0.25, 0.75)
    assert gaze.look(sample.own_seconds).sample == sample
    for packet in ({"x": 0.5, "y": 0.5, "confidence": 0.1}, {"valid": False}, {"blink": 1}):
        send(packet)
        sample = gaze.wait(PATIENCE, sample)
        assert not sample.valid
    assert gaze.counts == (4, 3, 0, 0)


@pytest.mark.parametrize(
    ("units", "sent", "position"),
    [("ndc", (-1.0, 1.0), (0, 0)), ("norm_up", (0.25, 0.25), (0.25, 0.75)),
     ("px", (-0.5, 99.5), (0, 1)), (None, (1.5, -2.0), (1.5, -2.0))],
)  # fmt: skip
def test_units_are_those_of_files(units, sent, position):
    with LiveGaze("udp:0", units=units, screen_size=(100, 200)) as gaze:
        Sender(gaze)({"x": sent[0], "y": sent[1]})
        assert gaze.wait(PATIENCE).position == pytest.approx(position)


MALFORMED = [
    b"", b"\xff\xfe\x00", b"[", b"3", b'"x"', b"null", b'{"x": "0.1", "y": 0.2}', b'{"x": 0.1}',
    b'{"x": true, "y": 0.2}', b'{"x": [1], "y": 0.2}', b'{"x": 0.1, "y": 0.2, "valid": "yes"}',
    b'{"x": 0.1, "y": 0.2, "time": NaN}', b'{"x": 0.1, "y": 0.2, "time": 1e999}',
    b"[" * 50_000, b'{"x": 1' + b"0" * 400 + b', "y": 0}', os.urandom(1400),
]  # fmt: skip


def test_a_malformed_packet_is_counted_and_changes_nothing(udp, caplog):
    gaze, send = udp
    send({"x": 0.25, "y": 0.75})
    first = gaze.wait(PATIENCE)
    for packet in MALFORMED:
        send(packet)
    until(lambda: gaze.counts.malformed == len(MALFORMED))
    assert gaze.newest == first
    assert len(caplog.records) == 1  # however many there are
    send([{"x": 0.1, "y": 0.2}, {"x": math.nan, "y": 0.2}])
    until(lambda: gaze.counts.received == 3)
    assert not gaze.newest.valid


def test_a_sample_of_a_list_that_is_malformed_takes_the_others_along(udp):
    """A packet is used completely or not at all."""
    with pytest.raises(ValueError, match="without x or y"):
        list(parse_json(b'[{"x": 1, "y": 1}, {"x": 2}]', 0.6))


def test_late_and_dropped_samples_never_move_the_gaze_back(udp):
    gaze, send = udp
    for number in (1, 2, 3, 7, 5, 6, 7, 8):  # 4 is dropped, 5, 6 and the second 7 are late
        send({"time": 100 + 0.004 * number, "x": number / 10, "y": 0.5})
    until(lambda: gaze.counts.received == 8)
    assert gaze.counts.out_of_order == 3
    assert gaze.newest.position == (0.8, 0.5)


def test_a_source_that_vanishes_is_a_loss_and_is_followed_when_it_returns(udp):
    """This includes a clock that starts again, as after a restart of a game."""
    gaze, send = udp
    for number in range(20):
        send({"time": 5000 + 0.004 * number, "x": 0.9, "y": 0.9})
    until(lambda: gaze.counts.received == 20)
    last = gaze.newest.own_seconds
    positions = [gaze.look(last + after).position[0] for after in (0.09, 0.175, 0.26)]
    assert positions == pytest.approx([0.9, 0.7, 0.5])
    for number in range(20):
        send({"time": 0.004 * number, "x": 0.1, "y": 0.2})
    until(lambda: gaze.counts.received == 40)
    assert gaze.newest.position == (0.1, 0.2)
    assert gaze.counts.out_of_order < 10
    assert gaze.newest.own_seconds > last


def test_osc_messages_and_bundles():
    builder = pytest.importorskip("pythonosc.osc_message_builder")
    bundles = pytest.importorskip("pythonosc.osc_bundle_builder")

    def message(address, *values):
        made = builder.OscMessageBuilder(address)
        for value in values:
            made.add_arg(value, "d" if isinstance(value, float) else None)
        return made.build()

    with LiveGaze("osc:0") as gaze:
        send = Sender(gaze)
        send(message("/gaze", 0.25, 0.75).dgram)
        sample = gaze.wait(PATIENCE)
        assert (sample.position, sample.valid) == ((0.25, 0.75), True)
        bundle = bundles.OscBundleBuilder(bundles.IMMEDIATELY)
        bundle.add_content(message("/engine/head", 1.0))
        bundle.add_content(message("/engine/gaze", 0.5, 0.25, 77.125, 0.3))
        send(bundle.build().dgram)
        sample = gaze.wait(PATIENCE, sample)
        assert (sample.position, sample.valid) == ((0.5, 0.25), False)
        assert sample.tracker_seconds == 77.125
        for packet in (b"", b"/gaze", b"#bundle\0junk", message("/gaze", "a", "b").dgram,
                       message("/gaze", 0.1).dgram, os.urandom(300)):  # fmt: skip
            send(packet)
        until(lambda: gaze.counts.malformed == 6)
        assert gaze.newest == sample


def test_the_track_is_the_one_a_recording_would_give(udp):
    """Blinks, loss and return: the live gaze equals GazeTrack.at of the same samples."""
    gaze, _ = udp
    rng = np.random.default_rng(3)
    time_seconds = np.cumsum(rng.uniform(0.002, 0.02, 300))
    track = GazeTrack(time_seconds, rng.uniform(0, 1, (300, 2)), rng.uniform(size=300) > 0.2)
    valid = track.valid.copy()
    valid[100:160] = False  # a blink of more than half a second
    track = GazeTrack(time_seconds, track.position, valid)
    for number, (seconds, (x, y), ok) in enumerate(zip(time_seconds, track.position, valid)):  # noqa: B905
        gaze._deliver(Reading(x, y, bool(ok), seconds, seconds, seconds))
        until_then = GazeTrack(
            time_seconds[: number + 1], track.position[: number + 1], valid[: number + 1]
        )
        if number:
            now = seconds + rng.uniform(0, 0.3)
            assert gaze.look(now).position == pytest.approx(until_then.at([now])[0], abs=1e-9)


def test_memory_is_constant_at_a_thousand_samples_a_second(udp):
    gaze, _ = udp
    for number in range(5000):
        t = number / 1000
        gaze._deliver(Reading(0.5, 0.5, True, t + 0.001 * (number % 3), t))
    assert len(gaze._samples) <= 510
    assert gaze.counts == (5000, 0, 0, 0)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("mouse:1",), "expected lsl"),
        (("udp:70000",), "PORT from 0 to 65535"),
        (("udp:",), "PORT from 0 to 65535"),
        (("udp:0", "px"), "--gaze-screen"),
        (("udp:0", "mm"), "one of px, norm"),
        (("lsl:a'b",), "no quotes"),
        (("pupil:127.0.0.1", "px"), "its pixels are known"),
    ],
)
def test_bad_sources_are_one_clear_line(arguments, expected):
    text, *units = arguments
    with pytest.raises(InputError, match=expected) as caught:
        LiveGaze(text, units=units[0] if units else None)
    assert "\n" not in str(caught.value)


def test_a_port_that_is_taken_is_told(udp):
    gaze, _ = udp
    with pytest.raises(InputError, match=f"port {gaze.port} .*choose another port"):
        LiveGaze(f"udp:{gaze.port}")


# ---- clocks ----


def test_offset_and_drift_are_found_under_delays_that_vary():
    """100 s at 100 Hz; the tracker's clock gains 80 ppm; delays of 1 ms and an exponential 3 ms."""
    rng = np.random.default_rng(0)
    own = np.arange(10_000) / 100 + 50
    sent = (own - 50) * (1 + 80e-6) + 7000
    received = own + 0.001 + rng.exponential(0.003, own.size)
    clock = OneWayClock()
    mapped = np.array([clock.to_own(*pair) for pair in zip(sent, received, strict=True)])
    error = mapped - own
    assert clock.drift == pytest.approx(-80e-6, abs=5e-6)
    # the smallest delay, 1 ms, cannot be measured from one side
    assert np.abs(error[2000:] - 0.001).max() < 0.0005
    assert (mapped <= received).all()


def test_a_late_packet_does_not_move_the_clock_and_a_new_clock_does():
    clock = OneWayClock()
    for n in range(100):
        clock.to_own(n / 100, 20 + n / 100)
    assert clock.to_own(0.5, 20 + 3.0) is None  # 2.5 s late
    assert clock.to_own(900.0, 20 + 3.01) is None  # a damaged time
    assert clock.to_own(3.02, 23.02) == pytest.approx(23.02)
    mapped = [clock.to_own(500 + n / 100, 24 + n / 100) for n in range(20)]
    assert mapped[:9] == [None] * 9
    assert mapped[9:] == pytest.approx([24 + n / 100 for n in range(9, 20)])


def test_round_trips_give_offset_and_drift():
    rng = np.random.default_rng(1)
    clock = RoundTripClock()
    assert clock.to_own(1.0) is None
    for own in range(0, 200, 10):
        tracker = own * (1 + 50e-6) + 1e6
        clock.add(tracker, own - tracker + rng.normal(0, 0.0002))
    for own in (190.0, 205.0):
        assert clock.to_own(own * (1 + 50e-6) + 1e6) == pytest.approx(own, abs=0.0005)


# ---- Lab Streaming Layer ----

OUTLET = """
import pylsl, sys, time
kind = sys.argv[1]
pairs, source = {
    "xdf": ([("gx", "ScreenX", "both", "normalized"), ("gy", "ScreenY", "both", "normalized"),
             ("c", "Confidence", "both", "normalized")], "a"),
    "eyelink": ([("leftEyeX", "", "", ""), ("leftEyeY", "", "", ""), ("rightEyeX", "", "", ""),
                 ("rightEyeY", "", "", "")], "b"),
}[kind]
info = pylsl.StreamInfo(sys.argv[2], "Gaze", len(pairs), 100, "double64", source + sys.argv[2])
channels = info.desc().append_child("channels")
for label, type_, eye, unit in pairs:
    channel = channels.append_child("channel")
    for key, value in zip(("label", "type", "eye", "unit"), (label, type_, eye, unit)):
        channel.append_child_value(key, value)
outlet, number = pylsl.StreamOutlet(info), 0
while True:
    number += 1
    values = [0.25, 0.75, 0.9 if number % 4 else 0.2] if kind == "xdf" else [99.5, 74.5, 0, 0]
    outlet.push_sample(values, pylsl.local_clock() - 0.020)  # an eye of 20 ms ago
    time.sleep(0.01)
"""


@pytest.fixture
def lsl_outlet(tmp_path, monkeypatch):
    """Start an outlet in another process; both search for streams only on this machine."""
    pytest.importorskip("pylsl")
    config = tmp_path / "lsl.cfg"
    config.write_text(
        "[multicast]\nResolveScope = machine\n[lab]\nKnownPeers = {127.0.0.1}\n[log]\nlevel = -3\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("LSLAPICFG", str(config))
    started = []

    def start(*arguments):
        started.append(subprocess.Popen([sys.executable, "-c", OUTLET, *arguments]))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_real_lsl_outlet_is_followed_and_found_again(lsl_outlet):
    name = f"deepfovea-{os.getpid()}"
    process = lsl_outlet("xdf", name)
    with LiveGaze(f"lsl:{name}") as gaze:
        assert gaze.wait(PATIENCE) is not None
        until(lambda: gaze.counts.received > 30)
        newest = gaze.newest
        assert newest.measured == (0.25, 0.75)
        # its stamp says 20 ms before it was sent; both clocks are this machine's
        assert newest.received_seconds - newest.own_seconds > 0.015
        assert abs(time.perf_counter() - newest.own_seconds) < 1.0
        assert 0.15 < gaze.counts.lost / gaze.counts.received < 0.35  # the low confidence
        process.kill()
        process.wait()
        newest = gaze.newest
        lsl_outlet("xdf", name)
        assert gaze.wait(PATIENCE, newest).own_seconds > newest.own_seconds


def test_channels_of_eyelink_are_pixels_of_the_screen(lsl_outlet):
    """One eye is found; the other one is 0, 0."""
    name = f"deepfovea-eyelink-{os.getpid()}"
    lsl_outlet("eyelink", name)
    with LiveGaze(f"lsl:{name}", screen_size=(100, 200)) as gaze:
        assert gaze.wait(PATIENCE).position == pytest.approx((0.5, 0.75))


def channels(*labels, **more):
    return [
        {"label": label, **{key: more[key][i] for key in more}} for i, label in enumerate(labels)
    ]


@pytest.mark.parametrize(
    ("found", "values", "expected"),
    [
        (channels("confidence", "norm_pos_x", "norm_pos_y", "diameter0_2d"),  # Pupil Capture
         [0.9, 0.2, 0.3, 5.0], ("norm_up", (0.2, 0.3), True)),
        (channels("confidence", "norm_pos_x", "norm_pos_y"), [0.5, 0.2, 0.3],
         ("norm_up", (0.2, 0.3), False)),
        (channels("a", "b", "c", "d", type=["ScreenX", "ScreenY"] * 2, unit=["pixels"] * 4,
                  eye=["left", "left", "right", "right"]),
         [10, 20, 30, 60], ("px", (20, 40), True)),
        (channels("left_gaze_point_on_display_area_x", "left_gaze_point_on_display_area_y",
                  "left_gaze_point_validity", "right_gaze_point_on_display_area_x",
                  "right_gaze_point_on_display_area_y", "right_gaze_point_validity"),
         [0.1, 0.2, 0, 0.3, 0.4, 1], ("norm", (0.3, 0.4), True)),
        (channels("", ""), [0.1, 0.2], ("", (0.1, 0.2), True)),
        (channels("", ""), [math.nan, 0.2], ("", None, False)),
        (channels("leftEyeX", "leftEyeY"), [-32768, -32768], ("px", None, False)),
    ],
)  # fmt: skip
def test_channels_are_found_by_their_meta_data(found, values, expected):
    eyes = find_eyes(found)
    x, y, valid = read_position(values, eyes, 0.6)
    units, position, is_valid = expected
    assert (eyes.units, valid) == (units, is_valid)
    assert (math.isnan(x) and math.isnan(y)) if position is None else (x, y) == position


def test_channels_that_hold_no_position_are_refused():
    assert find_eyes(channels("gaze_point_3d_x", "gaze_point_3d_y", "gaze_point_3d_z")) is None


# ---- Pupil Labs ----


def gaze_payload(x, y, worn=255, more=b""):
    return struct.pack("!ffB", x, y, worn) + more


def test_a_pupil_device_is_followed_on_its_clock_and_found_again():
    pytest.importorskip("pupil_labs.realtime_api")
    payloads = [
        gaze_payload(800, 300),
        gaze_payload(800, 300, worn=0),
        b"\1\2\3",  # malformed
        gaze_payload(600, 200, more=struct.pack("!ff", 1000, 400)),  # one for each eye
        gaze_payload(800, 300, more=bytes(56)),  # with the state of the eyes
    ]
    device = PupilDevice(payloads, clock_offset=1.7e9 + 0.25)
    position = pytest.approx((800.5 / 1600, 300.5 / 1200))
    try:
        with LiveGaze(f"pupil:127.0.0.1:{device.port}") as gaze:
            assert gaze.wait(PATIENCE) is not None
            until(lambda: gaze.counts.received > 40 and gaze.counts.malformed > 5)
            assert 0.2 < gaze.counts.lost / gaze.counts.received < 0.3  # a quarter is not worn
            sample = until(lambda: gaze.newest if gaze.newest.valid else None)
            assert sample.measured == position
            assert abs(sample.tracker_seconds - sample.own_seconds - device.offset) < 0.005
            port = device.port
            device.close()
            newest = gaze.newest
            device = PupilDevice(payloads, clock_offset=1.7e9 + 9.0, port=port)
            assert gaze.wait(PATIENCE, newest) is not None
            sample = until(lambda: gaze.newest if gaze.newest.valid else None)
            assert sample.measured == position
    finally:
        device.close()


def test_a_pupil_device_is_found_on_the_network():
    pytest.importorskip("pupil_labs.realtime_api")
    zeroconf = pytest.importorskip("zeroconf")
    device = PupilDevice([gaze_payload(800, 300)])
    service = zeroconf.ServiceInfo(
        "_http._tcp.local.",
        f"PI monitor:test:{os.getpid()}._http._tcp.local.",
        addresses=[socket.inet_aton("127.0.0.1")],
        port=device.port,
        server="neon.local.",
    )
    with zeroconf.Zeroconf(interfaces=["127.0.0.1"]) as network:
        network.register_service(service)
        try:
            with LiveGaze("pupil") as gaze:
                assert gaze.wait(PATIENCE).measured == pytest.approx((800.5 / 1600, 300.5 / 1200))
        finally:
            network.unregister_all_services()
            device.close()


# ---- calibration ----


def test_an_affine_error_of_the_tracker_is_undone(tmp_path, udp):
    rng = np.random.default_rng(0)
    matrix, shift = np.array([[0.8, 0.1], [-0.05, 1.2]]), np.array([0.07, -0.2])
    targets = np.array([(0.5, 0.5), (0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.9)])
    calibration = fit_calibration(targets @ matrix.T + shift, targets)
    assert calibration.residual_deg.max() < 1e-9
    gaze, send = udp
    gaze.calibration = calibration
    send(dict(zip("xy", matrix @ (0.3, 0.6) + shift, strict=True)))
    sample = gaze.wait(PATIENCE)
    assert sample.position == pytest.approx((0.3, 0.6))
    assert sample.measured == pytest.approx(tuple(matrix @ (0.3, 0.6) + shift))

    write_calibration(tmp_path / "c.json", calibration)
    assert np.array_equal(read_calibration(tmp_path / "c.json").affine, calibration.affine)
    # one degree at the centre is 1 / 25.6 of a degree's pixels; noise comes out in degrees
    ppd = DEFAULT_DISPLAY.pixels_per_degree
    noise = rng.normal(0, 0.5, (5, 2)) * ppd / (DEFAULT_DISPLAY.width_px, DEFAULT_DISPLAY.height_px)
    residual = fit_calibration(targets + noise, targets).residual_deg
    assert 0.05 < residual.mean() < 1.0


@pytest.mark.parametrize(
    ("measured", "expected"),
    [([[0.1, 0.1]] * 5, "point or line"), ([[n / 9, n / 9] for n in range(5)], "point or line"),
     ([[0.1, math.nan]] * 5, "nan"), ([[0, 0], [1, 1]], "three or more")],
)  # fmt: skip
def test_an_eye_that_did_not_follow_is_no_calibration(measured, expected):
    targets = [(0.5, 0.5), (0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.9)][: len(measured)]
    with pytest.raises(InputError, match=expected):
        fit_calibration(measured, targets)


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"affine": [[1, 0], [0, 1]]}', '{"affine": "x"}',
             '{"affine": [[1, 0, NaN], [0, 1, 0]]}', '{"affine": [[1, 1, 0], [1, 1, 0]]}'],
)  # fmt: skip
def test_another_file_is_no_calibration(tmp_path, text):
    (tmp_path / "c.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"c\.json: received"):
        read_calibration(tmp_path / "c.json")


# ---- saccades ----


def simulated_saccades(rate_hz, seed=1, seconds=20.0):
    track = synthetic(seed, seconds, rate_hz=rate_hz)
    detector = SaccadeDetector()
    found = 0
    for t, (x, y) in zip(track.time_seconds.tolist(), track.position.tolist(), strict=True):
        before = detector.in_saccade
        detector.add(LiveSample((x, y), (x, y), True, t, t, None))
        found += detector.in_saccade and not before
    return found, detector


@pytest.mark.parametrize("rate_hz", [250, 500])
def test_saccades_are_found_and_their_landing_is_guessed(rate_hz):
    """Tested on a simulated eye, whose saccades have the profile that the fit assumes."""
    found, detector = simulated_saccades(rate_hz)
    assert 30 <= found <= 80  # 20 s of fixations of 0.1 to 0.8 s; the smallest are not seen
    error = detector.error
    assert error.saccades > 25
    assert error.predicted_deg < 0.5 * error.newest_deg


def test_landing_points_are_used_only_where_asked_for(udp):
    with LiveGaze("udp:0", predict_landing=True) as predicting:
        plain, _ = udp
        track = synthetic(1, 2.0, rate_hz=500)
        differ = 0
        for t, (x, y) in zip(track.time_seconds.tolist(), track.position.tolist(), strict=True):
            for gaze in (plain, predicting):
                gaze._deliver(Reading(x, y, True, t, t, t))
            assert plain.look(t).position == (x, y)
            look = predicting.look(t)
            assert look.predicted == (look.position != (x, y))
            differ += look.predicted
            if look.predicted:  # a tracker lost during a saccade is a loss like any other
                assert predicting.look(t + 0.3).position == (0.5, 0.5)
        assert 10 < differ < 0.3 * track.time_seconds.size
        assert plain.prediction_error == predicting.prediction_error  # told either way
        predicting._deliver(Reading(math.nan, math.nan, False, t + 0.002, t + 0.002, t + 0.002))
        assert not predicting.look(t + 0.002).predicted


# ---- recordings ----


def test_a_recording_replays_exactly(tmp_path, caplog):
    """Frames at 24 Hz with both clocks: some skipped, one shown twice, a rewind, a blink."""
    path = tmp_path / "gaze.csv"
    recording = GazeRecording(path, 24.0)
    rng = np.random.default_rng(2)
    shown = {}
    frames = [*range(40), *range(10), 39, *range(48, 60), 60, 60]
    for count, number in enumerate(frames):
        position = tuple(rng.uniform(0, 1, 2))
        sample = LiveSample(
            position, position, bool(count % 5), count / 90, count / 80, 7e5 + count
        )
        recording.add(number / 24, GazeEstimate(position, count / 70, sample))
        shown[number] = position
    recording.close()
    track = deepfovea.read_track(path, frame_size=(96, 128), frame_rate=24.0, frame_count=61)
    assert not caplog.records
    at = track.at(track.frame_times(np.arange(61), np.arange(61) / 24))
    for number in range(61):
        last = max(n for n in shown if n <= number)  # the screen kept that frame
        assert tuple(at[number]) == shown[last]
    rows = path.read_text(encoding="utf-8").splitlines()
    assert rows[0].split(",")[4:6] == ["sample own clock [s]", "sample tracker clock [s]"]
    assert len(rows) == 62
    with pytest.raises(InputError, match="exists already"):
        GazeRecording(path, 24.0)


def test_nothing_shown_is_nothing_written(tmp_path):
    GazeRecording(tmp_path / "gaze.csv", 24.0).close()
    assert not list(tmp_path.iterdir())


def test_the_folder_of_a_recording_is_made_with_it(tmp_path):
    recording = GazeRecording(tmp_path / "new" / "deep" / "gaze.csv", 24.0)
    assert not list(tmp_path.iterdir())
    recording.add(0.0, GazeEstimate((0.5, 0.5), 0.0, None))
    recording.close()
    assert recording.path.is_file()
    with pytest.raises(InputError, match=r"gaze\.csv is a file"):  # said at the start
        GazeRecording(recording.path / "gaze.csv", 24.0)
