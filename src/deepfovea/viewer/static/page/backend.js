// Replaces the connection to a server: the same messages are answered by a worker in this page.
//
// As in session.py there is one current request, and a frame is begun only when the one before it is
// done. Frames of the video that are late are skipped, never queued.

import { gazeAt, parseTrack } from "./gaze_track.js";
import { load } from "./load.js";
import { usualBackend } from "./runner.js";
import { display, parseDensity } from "./sampling.js";
import { decodesH264, Source } from "./source.js";
import { title, viewOfModel } from "./views.js";

const MAX_IN_FLIGHT = 2; // frames that are sent and not yet painted
const MAX_THREADS = 4;
const CAMERA = { id: "camera", name: "camera" };
const LEAST_RATE = 10; // frames per second; below it, the automatic size becomes smaller
const MEASURED_FRAMES = 4; // frames between two changes of the automatic size
const LONG_SIDES = [1024, 768, 512, 384]; // longer sides of the network's output, pixels
const SERVICE_WORKER_MS = 5000; // how long the page waits for its service worker
const BROWSERS = "use Chrome or Edge 91, Firefox 114, Safari 16.4, or a newer one";
// The smallest WebAssembly module with a SIMD instruction: () -> v128, i8x16.splat of zero.
const SIMD_MODULE = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 8, 1, 6, 0, 65, 0, 253, 15, 11,
]);

export class Backend {
  // handlers: open(), text(object), frame(header, {view: ImageBitmap}), closed(reason)
  constructor(handlers) {
    this.handlers = handlers;
    this.request = {
      model: null, video: null, gaze: [0.5, 0.5], timestamp: 0, playing: true, speed: 1,
      density: "published", pixels_per_degree: 25, blue_noise: true, jitter: "none", views: ["reconstruction"], track: null, size: "auto", backend: "wasm",
    };
    this.actions = { reset: false, seek: null, steps: 0 };
    this.files = new Map(); // the visitor's own videos
    this.others = new Set(); // views of the methods that the worker has loaded
    this.track = this.trackText = null;
    this.lastDensity = "published"; // the last one that could be sampled
    this.sent = this.acknowledged = 0;
    this.changed = true; // whether something other than the gaze has changed since the last frame
    this.wake = () => {};
    this.run().catch((error) => this.fail(error));
  }

  fail(error) {
    this.handlers.text({ error: error.message });
    this.handlers.closed(error.message);
  }

  send(changes) {
    const { step, reset, seek, acknowledged, ...values } = changes;
    if (acknowledged !== undefined) this.acknowledged = acknowledged;
    if (step) {
      this.actions.steps += 1;
      values.playing = false;
    }
    if (reset) this.actions.reset = true;
    if (seek !== undefined) {
      this.actions.seek = seek;
      this.actions.steps = 0; // steps before a seek have no effect any more
    }
    if (values.density !== undefined && !parseDensity(values.density)) delete values.density;
    const gazeOnly = Object.keys(values).every((key) => ["gaze", "timestamp"].includes(key));
    if (step || reset || seek !== undefined || !gazeOnly) this.changed = true;
    if (values.gaze) this.moved = true;
    Object.assign(this.request, values);
    this.wake();
  }

  // Open a video of the visitor's, which stays on this machine; returns its identifier.
  async addVideo(file) {
    this.files.clear();
    const id = `file-${file.name}`;
    this.files.set(id, file);
    this.videoId = null; // so that it is opened even if its name is the same
    this.send({ video: id, track: null, seek: 0 });
    return id;
  }

  async run() {
    const lacking = missing();
    if (lacking) throw new Error(`This browser lacks ${lacking}, which the network needs: ${BROWSERS}`);
    this.page = await (await load("page.json")).json();
    const { models, videos, size } = this.page;
    if (await isolate()) return; // the page reloads, with the headers that threads need
    this.threads = self.crossOriginIsolated
      ? Math.min(MAX_THREADS, navigator.hardwareConcurrency || 1) : 1;
    const backend = await usualBackend();
    Object.assign(this.request, { model: models[0].name, video: videos[0]?.file ?? CAMERA.id, size, backend });
    this.handlers.open();
    this.handlers.text({ hello: {
      models: models.map(({ name }) => name),
      videos: videos.map(({ file, name, picture }) => ({ id: file, name, picture })),
      max_upload_bytes: Infinity,
      sampling: this.page.sampling,
      live: null,
      local: true,
      camera: Boolean(navigator.mediaDevices?.getUserMedia),
      sizes: ["auto", ...LONG_SIDES],
      size,
      backends: navigator.gpu ? ["wasm", "webgpu"] : null,
      backend,
      download_bytes: this.page[backend === "webgpu" ? "webgpu_download_bytes" : "download_bytes"],
    } });
    if (!self.crossOriginIsolated) {
      this.handlers.text({ note: "The network runs with one thread, which is slower. Threads need a page from https or "
        + "localhost, and a browser that allows it a service worker." });
    }
    for (;;) {
      await this.due();
      await this.render();
    }
  }

  // Wait until the next frame is due.
  async due() {
    while (!this.isDue()) await new Promise((resolve) => { this.wake = resolve; });
  }

  isDue() {
    if (this.sent - this.acknowledged >= MAX_IN_FLIGHT) return false;
    if (this.changed || !this.source) return true;
    const { playing, speed } = this.request;
    if (!playing && !this.source.live) return Boolean(this.moved);
    return speed === 0 || this.source.fresh || this.source.ended;
  }

  async render() {
    const request = { ...this.request };
    const { actions } = this;
    this.actions = { reset: false, seek: null, steps: 0 };
    this.changed = this.moved = false;
    const [opened, loaded] = await Promise.all([this.openVideo(request), this.openModel(request)]);
    if (!this.source) {
      await new Promise((resolve) => { this.wake = resolve; });
      return;
    }
    const { source } = this;
    if (actions.seek !== null && !(opened && actions.seek === 0)) {
      await source.seek(actions.seek);
      actions.reset = true;
    }
    if (request.playing && request.speed > 0) {
      await source.play(request.speed);
    } else {
      source.pause();
      const steps = request.playing && !opened ? 1 : actions.steps;
      for (let i = 0; i < steps; i++) if (!(await source.step())) await source.seek(0);
    }
    const added = await this.openOthers(request);
    const [width, height] = this.workingSize(request.size);
    const { seconds, frame } = source;
    const image = await this.take();
    if (!image) return;
    const track = this.openTrack(request.track);
    const gaze = track ? gazeAt(track, seconds) : this.request.gaze; // the newest
    const timestamp = track ? null : this.request.timestamp;
    const density = parseDensity(request.density);
    const message = {
      image, width, height, gaze, density, views: request.views, blueNoise: request.blue_noise, model: this.model,
      display: display(source.width, source.height, request.pixels_per_degree),
      jitter: request.jitter,
      reset: opened || loaded || added || actions.reset || this.resized,
    };
    const first = message.reset;
    this.resized = false;
    const answer = await this.ask(message, [image]);
    if (answer.failed) {
      throw new Error(`The network failed (${answer.failed}). Load the page again; a smaller frame needs less memory.`);
    }
    if (answer.refused) {
      this.handlers.text({ error: `density: ${answer.refused}` });
      this.request.density = this.lastDensity;
      return;
    }
    this.lastDensity = request.density;
    this.sent += 1;
    const even = density.center === density.periphery;
    const unit = density.unit === "deg"
      ? request.pixels_per_degree / source.width : answer.header.scale / width;
    this.handlers.frame({
      ...answer.header,
      number: this.sent,
      frame, seconds, gaze, timestamp,
      inner: even ? 0 : density.inner * unit,
      outer: even ? 0 : density.outer * unit,
      model: this.model,
      engine: answer.header.backend === "WebGPU" ? "WebGPU"
        : `WASM, ${this.threads === 1 ? "1 thread" : `${this.threads} threads`}`,
      live: null,
    }, answer.pictures);
    if (answer.header.note) {
      this.handlers.text({ note: answer.header.note });
      this.showBackend(answer.header.backend);
    }
    if (!first && !answer.header.comparing) this.fitSize(answer.header, request.size);
  }

  // Open the requested video, if it is another one; returns whether it was opened. If it cannot be
  // shown, the earlier one stays.
  async openVideo({ video }) {
    if (video === this.videoId) return false;
    try {
      const described = this.page.videos.find(({ file }) => file === video);
      const address = described?.webm && !decodesH264() ? described.webm : video;
      const blob = video === CAMERA.id ? null : this.files.get(video) ?? await (await load(address)).blob();
      const onChange = () => this.wake();
      const source = await Source.open({ blob, rate: described?.rate, onChange });
      this.source?.close();
      Object.assign(this, { source, videoId: video, resized: true, measured: [] });
      this.track = this.trackText = null; // read again, as its positions depend on the video's size
      this.handlers.text({ video: {
        id: video,
        name: this.nameOf(video),
        width: source.width,
        height: source.height,
        frame_rate: source.rate,
        frames: null,
        seconds: source.duration,
      } });
      return true;
    } catch (error) {
      this.handlers.text({ error: `${this.nameOf(video)}: ${error.message}` });
      this.request.video = this.videoId ?? null;
      if (this.videoId) {
        this.showCurrent();
      } else {
        this.videoId = this.request.video; // there is no earlier one: wait for another choice
      }
      return false;
    }
  }

  nameOf(id) {
    return this.page.videos.find(({ file }) => file === id)?.name ?? this.files.get(id)?.name ?? CAMERA.name;
  }

  // The picture of the video that is shown now; null if there is none, so that another can be chosen.
  async take() {
    try {
      return await this.source.take();
    } catch (error) {
      this.resized = true; // so that the next picture begins anew
      this.handlers.text({ error: `${this.nameOf(this.videoId)}: ${error.message}` });
      return null;
    }
  }

  // The gaze track to follow; null for the pointer.
  openTrack(text) {
    if (text === this.trackText) return this.track;
    this.track = null;
    this.trackText = text;
    try {
      if (text !== null) this.track = parseTrack(text, this.source);
    } catch (error) {
      this.request.track = this.trackText = null;
      this.handlers.text({ error: error.message });
      this.showCurrent();
    }
    return this.track;
  }

  // Where WebGPU was left, show that WASM is in use, so that WebGPU can be chosen again.
  showBackend(name) {
    if (name !== "WASM" || this.backend === "wasm" || this.request.backend !== this.backend) return;
    this.backend = this.request.backend = "wasm";
    this.showCurrent();
  }

  // A request could not be followed: tell the page which settings are in use.
  showCurrent() {
    const { model, backend, video, track, views } = this.request;
    this.handlers.text({ current: { model, backend, video, views, tracked: track !== null } });
  }

  async openModel({ model: name, backend }) {
    if (name === this.model && backend === this.backend) return false;
    if (!this.worker) {
      this.worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    }
    const { file } = this.page.models.find((model) => model.name === name);
    const answer = await this.ask({ open: { model: file, threads: this.threads, backend } });
    if (answer.failed) {
      if (!this.model) throw new Error(`${name}: ${answer.failed}`);
      this.handlers.text({ error: `${name}: ${answer.failed}. ${this.model} stays in use.` });
      Object.assign(this.request, { model: this.model, backend: this.backend });
      this.showCurrent();
      return false;
    }
    Object.assign(this, { model: name, backend });
    return true;
  }

  // Have the methods ready that are shown beside the reconstruction; whether there is a new one, with
  // which all begin anew, so that it is fair. One that cannot be loaded is not asked for any more.
  async openOthers(request) {
    const wanted = new Map();
    const { models, accumulated } = this.page;
    for (const view of request.views) {
      const file = view === "accumulated" ? accumulated
        : models.find(({ name }) => view === viewOfModel(name) && name !== this.model)?.file;
      if (file) wanted.set(view, file);
    }
    this.others = new Set([...this.others].filter((view) => wanted.has(view)));
    let added = false;
    for (const [view, file] of wanted) {
      if (this.others.has(view)) continue;
      const answer = await this.ask({ open: {
        model: file, view, threads: this.threads, backend: view === "accumulated" ? "wasm" : request.backend,
      } });
      if (!answer.failed) {
        this.others.add(view);
        added = true;
        continue;
      }
      request.views = request.views.filter((each) => each !== view);
      this.request.views = this.request.views.filter((each) => each !== view);
      this.handlers.text({ error: `${title(view)}: ${answer.failed}` });
      this.showCurrent();
    }
    return added;
  }

  ask(message, transferred = []) {
    return new Promise((resolve) => {
      this.worker.onmessage = ({ data }) => resolve(data);
      this.worker.onerror = (event) => {
        resolve({ failed: `the worker does not start (${event.message || "no module workers"})` });
      };
      this.worker.postMessage(message, transferred);
    });
  }

  // The size of the network's output, [width, height]: of the video's shape, and not larger.
  workingSize(size) {
    const { width, height } = this.source;
    const wanted = size === "auto" ? (this.longSide ??= LONG_SIDES[1]) : Number(size);
    const share = Math.min(1, wanted / Math.max(width, height));
    const round = (side) => Math.max(32, 4 * Math.round((side * share) / 4));
    const working = [round(width), round(height)];
    if (String(working) !== this.working) this.resized = true;
    this.working = String(working);
    return working;
  }

  // Adapt the automatic size: as large as the frame rate allows.
  fitSize({ sampling_ms: sampling, network_ms: network, compared_ms: compared, pictures_ms: pictures }, size) {
    if (size !== "auto") return;
    (this.measured ??= []).push(sampling + network + compared + pictures);
    if (this.measured.length < MEASURED_FRAMES) return;
    const ms = [...this.measured].sort((a, b) => a - b)[this.measured.length >> 1];
    this.measured = [];
    const at = LONG_SIDES.indexOf(this.longSide);
    const budget = 1000 / LEAST_RATE;
    const larger = at > 0 && (LONG_SIDES[at - 1] / LONG_SIDES[at]) ** 2 * ms < 0.8 * budget;
    const most = Math.max(this.source.width, this.source.height);
    if (ms > budget && at < LONG_SIDES.length - 1) this.longSide = LONG_SIDES[at + 1];
    else if (larger && this.longSide < most) this.longSide = LONG_SIDES[at - 1];
  }
}

// The name of what the browser lacks; null if it lacks nothing.
function missing() {
  if (!self.WebAssembly) return "WebAssembly";
  if (!WebAssembly.validate(SIMD_MODULE)) return "SIMD in WebAssembly";
  return self.OffscreenCanvas ? null : "OffscreenCanvas";
}

// Let a service worker serve this page, so that it works offline and may use threads. Returns whether
// the page reloads for it.
async function isolate() {
  const workers = navigator.serviceWorker; // none without https, nor in some private windows
  if (!workers) return false;
  try {
    const registration = await workers.register("service-worker.js");
    const first = !workers.controller && !registration.active;
    if (first) { // wait, so that the service worker keeps the files that are loaded from now on
      await new Promise((resolve) => {
        workers.addEventListener("controllerchange", resolve, { once: true });
        setTimeout(resolve, SERVICE_WORKER_MS); // it may be blocked, or storage may be full
      });
    }
    if (self.crossOriginIsolated || sessionStorage.getItem("isolated")) return false;
    sessionStorage.setItem("isolated", "tried"); // do not try again if it has no effect
    if (first && !workers.controller) return false;
    location.reload();
    return true;
  } catch {
    return false;
  }
}
