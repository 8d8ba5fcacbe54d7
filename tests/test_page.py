"""Claims about the page without a server: its sampling, its network and its display."""

import base64
import contextlib
import json
import math
import shutil
import subprocess
import time

import media
import numpy as np
import pytest
import torch
from firefox import FIREFOX, firefox
from viewing import CHROMIUM, chromium, serving

from deepfovea.checkpoint import load, save_model
from deepfovea.cli import main
from deepfovea.config import JITTERS, Density, InputError
from deepfovea.files_to_files import to_tensor
from deepfovea.fovea import blue_noise_ranks, downsample, jitter_sequence, sample
from deepfovea.gaze import DisplayGeometry, read_track
from deepfovea.generators.stream.net import StreamConfig, StreamNet, StreamState
from deepfovea.reconstructor import Reconstructor
from deepfovea.runtime.export import MAX_BEYOND
from deepfovea.viewer import page as page_module
from deepfovea.viewer.page import DRAWN, STATIC, build_page, fetch_runtime
from deepfovea.viewer.session import _fill

HEIGHT, WIDTH, COUNT = 96, 136, 24  # the low resolution, 24x34, is padded to 24x40
PATIENCE_MS = 120_000  # the runtime is compiled first, perhaps beside other work

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(
    NODE is None, reason="no node on the path (Debian: apt-get install nodejs)"
)


def run_in_node(folder, script, *modules):
    """Run a script beside modules of the page; return what it prints."""
    for name in modules:
        shutil.copy(STATIC / "page" / name, folder)
    (folder / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    (folder / "test.js").write_text(script, encoding="utf-8")
    return subprocess.run([NODE, "test.js"], cwd=folder, check=True, capture_output=True).stdout


SAMPLING = """
import fs from "node:fs";
import * as s from "./sampling.js";
const bytes = (name) => Uint8Array.from(fs.readFileSync(name)).buffer;
const ranks = s.readRanks(bytes("blue_noise.npy"));
const rgba = new Uint8Array(bytes("frame.rgba"));
const parts = [];
for (const one of JSON.parse(fs.readFileSync("cases.json"))) {
  const { gaze, density, seed, frame, blue, height, width, jitter } = one;
  const [h, w] = [height / 4, width / 4];
  const display = s.display(width, height, 23.7);
  const probability = s.densityMap(gaze, h, w, s.parseDensity(density), display);
  const mask = s.drawMask(probability, h, w, { seed, frame, ranks: blue ? ranks : null });
  const low = s.downsample(rgba, height, width, s.jitterOffset(jitter, frame));
  parts.push(mask, s.applyMask(low, mask));
}
for (const part of parts) fs.appendFileSync("result.bin", new Uint8Array(part.buffer));
"""


@needs_node
def test_sampling_equals_pythons_bit_for_bit(tmp_path):
    height, width = 4 * 90, 4 * 131  # more than a tile of the blue noise
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    densities = ("published", "uniform:13.7", "uniform:100", "0.93,0.07,3.3,47.9")
    densities += ("budget:3", "budget:25.5", "0.98,0.15,2,5deg", "0.9,0.1,1.5,7.25deg")
    gazes = ((40.3, 33.3), (-0.5, 1e6), (130.123456789, 0.0))
    cases = [
        {
            "gaze": gaze,
            "density": density,
            "seed": (0, 7, 2**32 - 1)[i % 3],
            "frame": (0, 15, 16, 70_001)[(i + j) % 4],
            "blue": blue,
            "jitter": JITTERS[(i + j) % 3],
            "height": height,
            "width": width,
        }
        for i, gaze in enumerate(gazes)
        for j, density in enumerate(densities)
        for blue in (False, True)
    ]
    (tmp_path / "cases.json").write_text(json.dumps(cases), encoding="utf-8")
    (tmp_path / "frame.rgba").write_bytes(
        np.concatenate([image, np.full((height, width, 1), 255, np.uint8)], -1).tobytes()
    )
    np.save(tmp_path / "blue_noise.npy", blue_noise_ranks())
    run_in_node(tmp_path, SAMPLING, "sampling.js")
    received = np.fromfile(tmp_path / "result.bin", np.float32)
    distance = 23.7 / np.radians(1)  # to the display, pixels
    geometry = DisplayGeometry(2 * np.degrees(np.arctan(width / 2 / distance)), width, height)
    expected = []
    for case in cases:
        offset = jitter_sequence(case["jitter"], case["frame"], 1)
        samples, mask = sample(
            downsample(to_tensor(image)[None], jitter=offset)[None],
            torch.tensor([[case["gaze"]]]),
            Density.parse(case["density"]),
            seed=case["seed"],
            first_frame=case["frame"],
            blue_noise=case["blue"],
            geometry=geometry,
        )
        assert mask.mean() > 0
        expected += [mask.numpy().ravel(), samples.numpy().ravel()]
    np.testing.assert_array_equal(received, np.concatenate(expected))


FILL = """
import fs from "node:fs";
import { fillFrame } from "./fill.js";
const { h, w, jitter } = JSON.parse(fs.readFileSync("case.json"));
const read = (name) => new Float32Array(Uint8Array.from(fs.readFileSync(name)).buffer);
const frame = fillFrame(read("samples"), read("mask"), h, w, jitter);
fs.writeFileSync("frame", new Uint8Array(frame.buffer));
"""


@needs_node
@pytest.mark.parametrize("jitter", [None, (0.5, -0.25)])
def test_holes_are_filled_as_in_python(tmp_path, jitter):
    mask = (torch.rand(1, 37, 50) < 0.1).float()
    samples = mask * torch.rand(3, 37, 50)
    case = {"h": 37, "w": 50, "jitter": jitter}
    (tmp_path / "case.json").write_text(json.dumps(case), encoding="utf-8")
    for name, values in (("samples", samples), ("mask", mask)):
        (tmp_path / name).write_bytes(values.numpy().tobytes())
    run_in_node(tmp_path, FILL, "fill.js")
    received = np.fromfile(tmp_path / "frame", np.float32).reshape(3, 148, 200)
    np.testing.assert_allclose(received, _fill(samples, mask, jitter).numpy(), atol=1e-5)


RUNNER = """
import { Runner } from "./runner.js";
const network = (value, fails) => ({
    frames: 0,
    reset() { this.frames = 0; },
    async step() {
        if (fails?.(this.frames)) throw new Error("out of memory");
        this.frames += 1;
        return { values: [value] };
    },
});
const told = [];
for (const [gpu, backend] of [
    [network(0.5), "webgpu"], [network(0.6), "webgpu"], [network(0.5, (n) => n === 6), "webgpu"],
]) {
    const runner = Object.assign(new Runner(), {
        gpu, backend, wasm: network(0.5), lost: new Promise(() => {}), compared: 0, note: null });
    const frames = [];
    for (let i = 0; i < 8; i++) frames.push((await runner.step()).values[0]);
    told.push([frames, runner.name, runner.takeNote(), runner.wasm.frames, runner.takeNote()]);
}
console.log(JSON.stringify(told));
"""


@needs_node
def test_a_gpu_that_differs_or_fails_is_left(tmp_path):
    answer = run_in_node(tmp_path, RUNNER, "runner.js", "network.js")
    good, differs, fails = json.loads(answer)
    assert good == [[0.5] * 8, "WebGPU", None, 4, None]
    note = "WebGPU gives frames that differ from WASM's by 0.10. WASM goes on."
    assert differs == [[0.5] * 8, "WASM", note, 8, None]
    note = "WebGPU failed (out of memory). WASM goes on."
    assert fails == [[0.5] * 8, "WASM", note, 2, None]  # WASM begins anew


USUAL = """
import { usualBackend } from "./runner.js";
const offering = (adapter) => ({ requestAdapter: async () => adapter });
const told = [];
for (const gpu of [
    undefined, offering(null), { requestAdapter: async () => { throw new Error("blocked"); } },
    offering({ info: { isFallbackAdapter: true } }), offering({ isFallbackAdapter: true }),
    offering({ info: { isFallbackAdapter: false } }), offering({ info: {} }),
]) told.push(await usualBackend(gpu));
console.log(JSON.stringify(told));
"""


@needs_node
def test_a_gpu_is_the_default_but_not_a_processor_in_its_place(tmp_path):
    answer = run_in_node(tmp_path, USUAL, "runner.js", "network.js")
    assert json.loads(answer) == ["wasm"] * 5 + ["webgpu"] * 2


TRACK = """
import fs from "node:fs";
import { gazeAt, parseTrack } from "./gaze_track.js";
const { text, times } = JSON.parse(fs.readFileSync("track.json"));
const track = parseTrack(text, { width: 640, height: 360 });
console.log(JSON.stringify(times.map((seconds) => gazeAt(track, seconds))));
"""


@needs_node
def test_a_gaze_track_is_followed_as_in_python(tmp_path):
    random = np.random.default_rng(1)
    steps = random.uniform(0.01, 0.06, 60)
    steps[20] = 0.7  # a gap: held, then back to the centre
    rows = np.column_stack(
        [np.cumsum(steps), random.uniform(0, 639, 60), random.uniform(0, 359, 60)]
    )
    text = "time,x_px,y_px\n" + "".join(f"{t:.6f},{x:.3f},{y:.3f}\n" for t, x, y in rows)
    (tmp_path / "gaze.csv").write_text(text, encoding="utf-8")
    times = np.arange(0, rows[-1, 0] + 1, 1 / 90)
    (tmp_path / "track.json").write_text(
        json.dumps({"text": text, "times": times.tolist()}), encoding="utf-8"
    )
    answer = run_in_node(tmp_path, TRACK, "gaze_track.js")
    track = read_track(tmp_path / "gaze.csv", frame_size=(360, 640), frame_rate=90)
    np.testing.assert_allclose(json.loads(answer), track.at(times), atol=1e-12)


@pytest.mark.parametrize("name", DRAWN)
def test_a_drawn_video_moves_and_can_be_repeated(name):
    frames = np.stack(list(DRAWN[name](96, 128, 24))).astype(float)
    assert frames.shape == (24, 96, 128, 3)
    steps = np.abs(frames - np.roll(frames, 1, 0)).mean((1, 2, 3))  # the first: from the last
    assert steps.max() > 1
    assert steps[0] <= steps.max()
    assert np.abs(frames[0] - frames[12]).mean() > 5


def test_bad_requests_write_nothing(tmp_path, capsys, monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(page_module.urllib.request, "urlopen", unreachable)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("mine", encoding="utf-8")
    (taken / "empty.mp4").touch()
    new = ["page", "-o", str(tmp_path / "new")]
    for arguments, words in (
        (["page", "-o", str(taken)], "--overwrite"),
        (["page", "-o", str(taken), "--overwrite"], "holds no page"),
        ([*new, "--size", "wide"], "expected one of auto, 384"),
        ([*new, "--model", "paper"], "expected a stream network"),
        ([*new, "--model", "stream", "--model", "stream"], "expected different names"),
        ([*new, "--video", str(taken / "mine.txt")], "expected .mp4 or .webm"),
        ([*new, "--video", str(taken / "empty.mp4")], "empty.mp4"),
        (new, "cannot be fetched (no route to host)"),
    ):
        assert main(arguments) == 2
        assert words in capsys.readouterr().err
    assert sorted(file.name for file in taken.iterdir()) == ["empty.mp4", "mine.txt"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["taken"]


# ---- in a browser ----


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the page in sub/page, with a small demo video, stream and a tiny model."""
    try:
        fetch_runtime()
    except InputError as error:
        pytest.skip(str(error))
    root = tmp_path_factory.mktemp("host")
    torch.manual_seed(0)
    save_model(root / "tiny.safetensors", StreamNet(StreamConfig(8, 8, 4, 4)), {})
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DEMO", "FURTHER"):
            patch.setattr(page_module, f"{name}_SIZE", (HEIGHT, WIDTH))
            patch.setattr(page_module, f"{name}_FRAMES", COUNT)
        (root / "sub").mkdir()
        video = media.write_video(root / "100 %.mp4", media.moving(12, 48, 80))
        models = ["stream", str(root / "tiny.safetensors")]
        page = build_page(root / "sub" / "page", models, videos=[video])
    assert page.first_visit < min(8e6, page.first_visit_webgpu)
    return root


@pytest.fixture(scope="module")
def address(folder):
    with serving(folder) as url:
        yield f"{url}sub/page/"


@pytest.fixture(scope="module")
def context():
    pytest.importorskip("playwright", reason="playwright is not installed (it is in the extra dev)")
    if CHROMIUM is None:
        pytest.skip("no chromium on the path (Debian: apt-get install chromium)")
    with chromium() as browser:
        context = browser.new_context(reduced_motion="reduce")
        context.set_default_timeout(PATIENCE_MS)
        yield context


def wait_for_frames(page):
    page.wait_for_function("document.querySelector('#psnr').textContent !== '–'")


def choose_video(page, name):
    page.get_by_role("radio", name=name).check(force=True)


FRAMES = """async ({ height, width, count, gaze, jitter, states }) => {
    const ort = await import(new URL("runtime/ort.wasm.min.mjs", document.baseURI));
    const { Network } = await import(new URL("network.js", document.baseURI));
    const s = await import(new URL("sampling.js", document.baseURI));
    const load = async (name) => (await fetch(name)).arrayBuffer();
    ort.env.wasm.wasmPaths = new URL("runtime/", document.baseURI).href;
    ort.env.wasm.numThreads = 1;
    const ranks = s.readRanks(await load("blue_noise.npy"));
    const network = await Network.open(ort, new Uint8Array(await load("models/stream.onnx")));
    const [h, w] = [height / 4, width / 4];
    const rgba = new Uint8Array(await load("../../frames.rgba"));
    const all = [];
    for (let t = 0; t < count; t++) {
        const offset = s.jitterOffset(jitter, t);
        const low = s.downsample(rgba.subarray(4 * height * width * t), height, width, offset);
        const p = s.densityMap(gaze, h, w, s.PUBLISHED);
        const mask = s.drawMask(p, h, w, { frame: t, ranks });
        const frame = await network.step(s.applyMask(low, mask), mask, h, w, offset ?? undefined);
        all.push(mask, frame.values.slice());
        for (const name of states) all.push(network.state[name].data.slice());
    }
    const blob = new Blob(all);
    return new Promise((resolve) => {
        const reader = new FileReader();
        reader.onload = () => resolve(reader.result);
        reader.readAsDataURL(blob);
    });
}"""


@pytest.fixture(scope="module")
def visited(address, context):
    """The page, shown and at rest, for what only runs its modules."""
    page = context.new_page()
    page.goto(address)
    wait_for_frames(page)
    yield page
    page.close()


@pytest.mark.parametrize("jitter", ["none", "quad", "halton"])
def test_frames_equal_pytorchs(folder, visited, jitter):
    images = media.moving(COUNT, HEIGHT, WIDTH)
    opaque = np.full((COUNT, HEIGHT, WIDTH, 1), 255, np.uint8)
    rgba = np.concatenate([np.stack(images), opaque], -1)
    (folder / "frames.rgba").write_bytes(rgba.tobytes())
    gaze = (12.0, 9.5)
    size = {"height": HEIGHT, "width": WIDTH, "count": COUNT, "gaze": gaze, "jitter": jitter}
    url = visited.evaluate(
        FRAMES, size | {"states": [f"state_{name}" for name in StreamState._fields]}
    )
    received = torch.frombuffer(
        bytearray(base64.b64decode(url.partition(",")[2])), dtype=torch.float
    )
    network = load("stream")
    reconstructor = Reconstructor(network, blue_noise=True)
    state = network.initial_state(torch.zeros(1, 3, HEIGHT // 4, WIDTH // 4))
    shapes = [
        (1, 1, HEIGHT // 4, WIDTH // 4),
        (1, 3, HEIGHT, -(-WIDTH // 32) * 32),
        *(part.shape for part in state),
    ]
    steps = received.view(COUNT, -1).split([math.prod(shape) for shape in shapes], 1)
    for t, image in enumerate(images):
        offset = jitter_sequence(jitter, t, 1)
        low = downsample(to_tensor(image)[None], jitter=offset)[0]
        told = torch.zeros(1, 2) if offset is None else offset  # always an input
        samples, mask = sample(
            low[None, None], torch.tensor([[gaze]]), first_frame=t, blue_noise=True
        )
        now = [part[t].view(shape) for part, shape in zip(steps, shapes, strict=True)]
        drawn, shown, *after = now
        assert torch.equal(drawn, mask[0]), t
        # A step from the page's own state, all of it.
        with torch.inference_mode():
            frame, state = network(samples, mask, state, jitter=told[None])
        shown = shown[0, :, :, :WIDTH].clamp(0, 1)
        assert (shown - frame[0, 0].clamp(0, 1)).abs().max() < 1e-3, t
        for name, ours, theirs in zip(StreamState._fields, state, after, strict=True):
            # As in export: where two motions fit equally well, the processor's rounding chooses.
            beyond = ((ours - theirs).abs() >= 1e-3 * max(1.0, ours.abs().max())).float().mean()
            assert beyond <= MAX_BEYOND, (t, name)
        state = StreamState(*after)
        # The clip, each with its own state: in single pixels rounding may choose another motion.
        alone = reconstructor(low, gaze, jitter=tuple(told[0].tolist()))
        assert (shown - alone).square().mean() < 1e-6, t  # 60 dB


def test_a_picture_that_comes_late(address, context):
    """A browser that has no picture yet is asked again; the page outlives one that never comes."""
    page = context.new_page()
    page.goto(address)
    wait_for_frames(page)
    page.evaluate("""() => {
        const real = self.createImageBitmap;
        self.createImageBitmap = (from) => (from instanceof HTMLVideoElement && self.missing-- > 0
            ? Promise.reject(new Error("none")) : real(from));
    }""")
    page.evaluate("self.missing = 3")
    at = page.input_value("#position")
    page.click("#step")
    page.wait_for_function(f"document.querySelector('#position').value !== '{at}'")
    page.evaluate("self.missing = Infinity")
    page.click("#step")
    page.locator("#status.alarm").wait_for()
    first, second = (f"{name} (drawn)" for name in list(DRAWN)[:2])
    assert page.inner_text("#status").startswith(f"{first}: shows no picture")
    page.evaluate("self.missing = 0")
    choose_video(page, second)
    page.wait_for_function(f"document.querySelector('#title').textContent === '{second}'")
    wait_for_frames(page)
    page.close()


def test_a_visit(folder, address, context):
    """The page runs with threads from a subfolder; then offline, with the visitor's own video."""
    page = context.new_page()
    complaints, hosts = [], set()
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: hosts.add(request.url.partition("/sub/page/")[0]))
    page.goto(address)
    wait_for_frames(page)
    assert page.evaluate("self.crossOriginIsolated")
    assert page.inner_text("#engine").startswith("WASM, ")
    assert 10 < float(page.inner_text("#psnr")) < 60
    names = [*(f"{name} (drawn)" for name in DRAWN), "100 %.mp4"]
    assert page.locator("#videos label").all_inner_texts() == names
    for picture in page.locator("#videos img").all():
        picture.scroll_into_view_if_needed()  # until then a browser may leave it
        page.wait_for_function(
            "(picture) => picture.naturalWidth > 0", arg=picture.element_handle()
        )
    context.set_offline(True)
    page.reload()
    wait_for_frames(page)

    def sampled():
        return float(page.inner_text("#sampled").split()[0])

    page.select_option("#density", "uniform")
    page.fill("#percent", "100")
    page.wait_for_function("document.querySelector('#sampled').textContent === '100.0 %'")
    at = page.input_value("#position")
    page.click("#step")
    page.wait_for_function(f"document.querySelector('#position').value !== '{at}'")
    context.set_offline(False)
    page.check("input[value=beside]", force=True)
    for view, tag in (("accumulated", "carried, no network"), ("model:tiny", "tiny")):
        page.select_option("#other", view)
        page.locator(".tag", has_text=tag).wait_for()
        page.locator("#psnr-others", has_text=tag.split(",")[0]).wait_for()
    page.check("input[value=inset]", force=True)
    for name in DRAWN:
        choose_video(page, f"{name} (drawn)")
        page.wait_for_function(f"document.querySelector('#title').textContent === '{name} (drawn)'")
    choose_video(page, "100 %.mp4")
    page.wait_for_function("document.querySelector('#size').textContent.startsWith('80 × 48')")
    context.set_offline(True)
    page.set_input_files(
        "#upload",
        media.write_video(folder / "own.webm", media.moving(12, 64, 96), codec="libvpx-vp9"),
    )
    page.wait_for_function("document.querySelector('#size').textContent.startsWith('96 × 64')")
    (folder / "broken.mp4").write_bytes(bytes(1000))
    page.set_input_files("#upload", folder / "broken.mp4")
    page.locator("#status.alarm").wait_for()
    assert "cannot be decoded" in page.inner_text("#status")
    assert page.inner_text("#size").startswith("96 × 64")  # the one before stays
    context.set_offline(False)
    page.close()
    assert complaints == []
    assert {host for host in hosts if not host.startswith("blob:")} == {
        address.partition("/sub/page/")[0]
    }


def test_what_cannot_be_shown_is_told(folder, address, context):
    page = context.new_page()
    page.add_init_script("WebAssembly.validate = () => false")
    page.goto(address)
    page.locator(
        "#notice", has_text="lacks SIMD in WebAssembly, which the network needs"
    ).wait_for()
    page.close()
    newcomer = context.browser.new_context(reduced_motion="reduce")  # whose page keeps no file yet
    newcomer.set_default_timeout(PATIENCE_MS)
    page = newcomer.new_page()
    page.goto(address)
    wait_for_frames(page)
    page.click("#camera")
    page.locator("#status", has_text="camera: no picture").wait_for()
    page.click("#dismiss")
    model = folder / "sub" / "page" / "models" / "tiny.onnx"
    hidden = model.rename(folder / "tiny.onnx")
    try:
        page.select_option("#model", "tiny")
        page.locator("#status", has_text="stream stays in use").wait_for()
        assert "the host answered 404" in page.inner_text("#status")
        assert page.input_value("#model") == "stream"
        page.click("#dismiss")
        page.select_option("#first", "model:tiny")
        page.locator("#status", has_text="tiny: models/tiny.onnx: the host answered 404").wait_for()
        assert page.input_value("#first") == "samples"  # which is still shown
    finally:
        hidden.rename(model)
    page.select_option("#model", "tiny")
    page.wait_for_function("document.querySelector('#model-name').textContent === 'tiny'")
    newcomer.close()


OPENS_NO_VIDEO = """
Object.defineProperty(HTMLMediaElement.prototype, "readyState", { get: () => 0 });
"""


def test_a_video_that_never_opens_is_told(address, context):
    """As in a browser that lacks the decoder, and neither shows a picture nor reports an error."""
    page = context.new_page()
    page.add_init_script(OPENS_NO_VIDEO)
    page.goto(address)
    told = f"{next(iter(DRAWN))} (drawn): cannot be decoded by this browser; try MP4"
    page.locator("#status", has_text=told).wait_for()
    page.close()


OFFERS_A_GPU = """
const gpu = { requestAdapter: async () => ({ info: { isFallbackAdapter: false } }) };
Object.defineProperty(navigator, "gpu", { value: gpu });
"""


def test_a_gpu_that_is_gone_is_told_and_wasm_goes_on(address, context):
    """The page is offered a GPU and takes it; its worker, where the network runs, finds none."""
    page = context.new_page()
    page.add_init_script(OFFERS_A_GPU)
    page.goto(address)
    wait_for_frames(page)
    told = "WebGPU is not offered by this browser. WASM goes on."
    page.locator("#status", has_text=told).wait_for()
    assert page.inner_text("#engine").startswith("WASM, ")
    assert page.locator("#backend").is_visible()
    assert page.input_value("#backend") == "wasm"  # where WebGPU may be chosen again
    page.close()


@pytest.mark.parametrize("preferences", [{}, {"media.ffmpeg.enabled": False}])
def test_a_visit_in_firefox(address, tmp_path, preferences):
    """Also without the libraries of the system, and so without H.264."""
    pytest.importorskip("websockets", reason="websockets is not installed (extra viewer)")
    if FIREFOX is None:
        pytest.skip("no Firefox on the path (Debian: apt-get install firefox-esr)")
    with firefox(tmp_path, **preferences) as page:
        page.open(address, 1000, 700)
        text = "document.querySelector('#{}').textContent"
        until, psnr = time.monotonic() + PATIENCE_MS / 1e3, "–"
        while psnr == "–":
            assert time.monotonic() < until
            time.sleep(0.2)
            with contextlib.suppress(AssertionError):  # it loads once more for the headers
                psnr = page.evaluate(text.format("psnr"))
        assert page.evaluate("self.crossOriginIsolated")
        assert page.evaluate(text.format("engine")).startswith("WASM, ")
        assert 10 < float(psnr) < 60
        assert page.complaints == []
        if preferences:
            videos = {url.rpartition("/")[2] for url in page.asked if "/videos/" in url}
            assert videos == {"harbour.webm"}
