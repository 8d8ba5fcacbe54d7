// Connects the page's parts: controls change the request, and received frames are shown.

import { Backend } from "./backend.js";
import { Figures } from "./figures.js";
import { Gallery } from "./gallery.js";
import { Live } from "./live.js";
import { Stage } from "./stage.js";
import { startClip } from "./clip.js";
import { Recorder, download } from "./track.js";
import { acceptDrops } from "./upload.js";
import { isOfModel, viewOfModel } from "./views.js";

const MAX_TRACK_BYTES = 2 ** 20;
const GAZE_INTERVAL_MS = 4; // no pointer needs more, and the server allows 500 messages a second
const SIGN_OF_LIFE_MS = 5000;

const byId = (id) => document.getElementById(id);
const recorder = new Recorder();
const figures = new Figures(document);
let hello = null; // the server's greeting: its videos, models and settings
let video = null; // the video that is shown
let uploaded = null; // { id, name, file } of the video that this page has uploaded
let track = null; // the text of the gaze track that is followed
let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
let scrubbing = false;

// ---- sent: changes of the request ----

let pendingGaze = null; // the newest gaze, not yet sent
let gazeSentAt = 0;
let acknowledged = 0; // number of the last frame painted

// After a sleep the server may have given the connection up without this page hearing of it:
// what is sent then tells. Says nothing new otherwise.
setInterval(() => backend.send({ acknowledged }), SIGN_OF_LIFE_MS);

function sendGaze() {
  if (!pendingGaze) return;
  const wait = gazeSentAt + GAZE_INTERVAL_MS - performance.now();
  if (wait > 0) {
    setTimeout(sendGaze, wait);
    return;
  }
  backend.send(pendingGaze);
  pendingGaze = null;
  gazeSentAt = performance.now();
}

const stage = new Stage(byId("stage"), {
  onGaze(gaze, timestamp) {
    pendingGaze = { gaze, timestamp };
    sendGaze();
  },
  onPaint(header, now) {
    acknowledged = header.number;
    backend.send({ acknowledged });
    figures.add(header, now);
    live.add(header, now);
    recorder.add(header);
  },
  onViews: (views) => backend.send({ views }),
  onKey([x, y]) {
    byId("gaze-spoken").textContent =
      `Gaze ${Math.round(100 * x)} % from the left, ${Math.round(100 * y)} % from the top`;
  },
});

function setPlaying(value) {
  playing = value;
  showPlaying();
  backend.send({ playing });
}

function showPlaying() {
  byId("play").classList.toggle("paused", !playing);
  byId("play").setAttribute("aria-label", playing ? "Pause" : "Play");
  byId("play").title = playing ? "Pause (space)" : "Play (space)";
}

function step() {
  playing = false;
  showPlaying();
  backend.send({ step: true });
}

function expectedOf(input) {
  const range = `a number from ${input.min} to ${input.max}`;
  return input.validity.customError ? `${range}, larger than the fovea's ${byId("inner").value}` : range;
}

function densityChanges() {
  const kind = byId("density").value;
  for (const label of document.querySelectorAll("[data-density]")) {
    label.hidden = !label.dataset.density.split(" ").includes(kind);
  }
  const numbers = { budget: ["percent"], uniform: ["percent"], degrees: ["inner", "outer", "ppd"] };
  byId("outer").setCustomValidity(
    Number(byId("outer").value) > Number(byId("inner").value) ? "" : "smaller than the fovea");
  const wrong = (numbers[kind] ?? []).map(byId).find((input) => !input.checkValidity());
  for (const id of Object.values(numbers).flat()) byId(id).removeAttribute("aria-invalid");
  if (wrong) {
    const name = wrong.closest("label").firstChild.textContent.trim();
    byId("density-note").textContent = `${name}: ${wrong.value === "" ? "no number" : wrong.value}; `
      + `expected ${expectedOf(wrong)}. Until then the one before is used.`;
    wrong.setAttribute("aria-invalid", "true");
    return null;
  }
  byId("density-note").textContent = "";
  const even = byId("percent").value === "100" ? "all" : "even";
  for (const input of spreads) input.checked = input.value === (kind === "uniform" ? even : "gaze");
  const text = {
    published: "published",
    budget: `budget:${byId("percent").value}`,
    uniform: `uniform:${byId("percent").value}`,
    degrees: `0.98,0.15,${byId("inner").value},${byId("outer").value}deg`,
  }[kind];
  const changes = { density: text };
  if (kind === "degrees") changes.pixels_per_degree = Number(byId("ppd").value);
  return changes;
}

const spreads = [...document.querySelectorAll("input[name=spread]")];
let gazeDensity = "published"; // the last density that followed the gaze
let gazeShare = 20; // the percentage of pixels that it sampled

// Choose where samples are taken: around the gaze, as many but evenly, or everywhere.
function spread(name) {
  const before = byId("density").value;
  if (before !== "uniform") {
    gazeDensity = before;
    if (figures.header) gazeShare = 100 * figures.header.sampled;
  }
  byId("density").value = name === "gaze" ? gazeDensity : "uniform";
  if (name !== "gaze") byId("percent").value = name === "all" ? "100" : gazeShare.toFixed(1);
  const changes = densityChanges();
  if (changes) backend.send(changes);
}

for (const input of spreads) input.onchange = () => spread(input.value);

// All settings of the page, for a new connection.
function allSettings() {
  return {
    playing,
    speed: Number(byId("speed").value),
    blue_noise: byId("blue-noise").checked,
    jitter: byId("jitter").value,
    views: stage.views(),
    gaze: stage.gaze,
    live: live.followed(),
    ...densityChanges(),
  };
}

// ---- received: messages and frames ----

const backend = new Backend({
  open() {
    showStatus("");
  },
  text(message) {
    if (message.error) showStatus(message.error, true);
    if (message.note) showStatus(message.note);
    if (message.hello) start(message.hello);
    if (message.video) openVideo(message.video);
    if (message.current) showCurrent(message.current);
  },
  frame(header, pictures) {
    byId("notice").hidden = true;
    showPosition(header.seconds);
    stage.show(header, pictures);
  },
  closed(reason) {
    showNotice(byId("status").classList.contains("alarm") ? byId("status").textContent
      : `No connection to the server${reason ? `: ${reason}.` : "; does deepfovea view still run?"}`
        + " It is tried again while this page is open.");
    figures.clear();
  },
});

const gallery = new Gallery(byId("videos"), (id) => {
  track = null;
  showTrackControls(false);
  backend.send({ video: id, track });
});

const live = new Live({
  stage, showStatus, send: (changes) => backend.send(changes),
  degrees: () => Number(byId("ppd").value),
});

function start(greeting) {
  if (!hello) {  // after a lost connection, the settings of the page stay
    byId("blue-noise").checked = greeting.sampling.blue_noise;
    byId("jitter").value = greeting.sampling.jitter;
  }
  hello = greeting;
  acknowledged = 0;
  offer(hello);
  live.start(hello);
  const place = video ? currentPlace() : savedPlace();
  const options = (names) => names.map(([value, text]) => new Option(text, value));
  byId("model").replaceChildren(...options(hello.models.map((name) => [name, name])));
  offerModels(hello.models);
  gallery.offer(hello.videos);
  const known = hello.videos.find(({ name }) => name === place?.video);
  const here = known ? { video: known.id, seek: place.seconds, track } : {};
  if (!known) track = null;
  if (hello.models.includes(place?.model)) here.model = byId("model").value = place.model;
  showTrackControls(track !== null);
  backend.send({ ...allSettings(), ...here });
  const megabytes = (hello.download_bytes ?? 0) / 1e6;
  showNotice(megabytes ? `Loading: ${megabytes.toFixed(1)} MB at the first visit …` : "Loading …");
  // When the connection ended, the server removed the uploaded video.
  if (video && video.id === uploaded?.id) uploadFile(uploaded.file, place.seconds);
}

const pictureSelects = ["first", "second", "other"].map(byId);

// Where there are several models, the pictures of each can be chosen beside those of another.
function offerModels(names) {
  for (const select of pictureSelects) {
    for (const option of [...select.options]) {
      if (isOfModel(option.value)) option.remove();
    }
    if (names.length < 2) continue;
    select.append(...names.map((name) => new Option(name, viewOfModel(name))));
  }
}

// Show the controls that this backend supports.
function offer({ densities, jitters, sizes, size, backends, backend: usual, camera, local }) {
  const keep = (id, values) => {
    if (!values) return;
    for (const option of [...byId(id).options]) if (!values.includes(option.value)) option.remove();
    byId(id).closest("label").hidden = values.length < 2;
  };
  keep("density", densities);
  keep("jitter", jitters);
  byId("camera").hidden = !camera;
  byId("privacy").hidden = !local;
  byId("working-label").hidden = !sizes;
  byId("backend-label").hidden = !backends;
  if (usual) byId("backend").value = usual;
  if (sizes && !byId("working").options.length) {
    const text = (value) => (value === "auto" ? "automatic" : `${value} pixels`);
    byId("working").replaceChildren(...sizes.map((value) => new Option(text(value), value)));
    byId("working").value = size;
  }
}

// Video, model and position, to return to them after a reload or a lost connection.
function currentPlace() {
  const seconds = Number(byId("position").value);
  return { video: byId("title").textContent, model: byId("model").value, seconds };
}

function savedPlace() {
  try {
    return JSON.parse(sessionStorage.getItem("place"));
  } catch {
    return null; // storage is switched off
  }
}

function savePlace() {
  try {
    if (video) sessionStorage.setItem("place", JSON.stringify(currentPlace()));
  } catch {
    // storage is switched off, so a reload starts at the beginning
  }
}

// A tab that the browser puts aside to save memory is hidden, then frozen, and hears nothing more.
addEventListener("pagehide", savePlace);
document.addEventListener("visibilitychange", savePlace);
document.addEventListener("freeze", savePlace);

function openVideo(opened) {
  video = opened;
  stage.size = [video.width, video.height];
  stage.layout();
  const name = video.id === uploaded?.id ? uploaded.name : video.name;
  gallery.choose({ id: video.id, name });
  byId("title").textContent = name;
  byId("size").textContent = `${video.width} × ${video.height}, ${+video.frame_rate.toFixed(2)}/s`;
  byId("position").max = video.seconds ?? 1;
  byId("position").disabled = video.seconds === null;
  figures.clear();
}

// The server could not follow a request: show the settings that are in use instead.
function showCurrent(current) {
  byId("model").value = current.model;
  gallery.mark(current.video);
  if (current.backend) byId("backend").value = current.backend;
  if (!stage.views().every((view) => current.views.includes(view))) {
    for (const select of pictureSelects) select.value = stage[select.id]; // what is still shown
    arrange(stage.arrangement);
  }
  if (!current.tracked) track = null;
  showTrackControls(current.tracked);
}

function showStatus(text, alarm = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("alarm", alarm);
  byId("dismiss").hidden = !text;
}

function showNotice(text) {
  byId("notice").textContent = text;
  byId("notice").hidden = false;
}

const minutes = (seconds) =>
  `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;

function showPosition(seconds) {
  const of = video.seconds === null ? "" : ` / ${minutes(video.seconds)}`;
  byId("clock").textContent = minutes(seconds) + of;
  if (scrubbing) return;
  byId("position").value = seconds;
  byId("position").setAttribute("aria-valuetext", minutes(seconds) + of);
}

// ---- controls ----

byId("play").onclick = () => setPlaying(!playing);
byId("step").onclick = step;
byId("reset").onclick = () => backend.send({ reset: true });
byId("speed").onchange = () => backend.send({ speed: Number(byId("speed").value) });
byId("model").onchange = () => backend.send({ model: byId("model").value });
byId("blue-noise").onchange = () => backend.send({ blue_noise: byId("blue-noise").checked });
byId("working").onchange = () => backend.send({ size: byId("working").value });
byId("backend").onchange = () => backend.send({ backend: byId("backend").value });
byId("camera").onclick = () => {
  track = null;
  showTrackControls(false);
  backend.send({ video: "camera", track });
};
byId("jitter").onchange = () => backend.send({ jitter: byId("jitter").value });
for (const id of ["density", "percent", "inner", "outer", "ppd"]) {
  byId(id).addEventListener("input", () => {
    const changes = densityChanges();
    if (changes) backend.send(changes);
  });
}
byId("position").oninput = () => {
  scrubbing = true;
  backend.send({ seek: Number(byId("position").value) });
};
byId("position").onchange = () => { scrubbing = false; };
byId("ring").onchange = () => {
  stage.ring = byId("ring").checked;
  stage.paintSoon();
};

byId("lens").onchange = () => {
  stage.lens = byId("lens").checked;
  stage.lensAt = null;
  stage.paintSoon();
};
byId("dismiss").onclick = () => {
  showStatus("");
  byId("stage").focus({ preventScroll: true }); // as the button is hidden now
};

byId("save").onclick = () => {
  stage.picture()?.toBlob((blob) => download(blob, "deepfovea.png", "image/png"));
};

byId("clip").hidden = !window.MediaRecorder || !HTMLCanvasElement.prototype.captureStream;
let clip = null; // the MediaRecorder while a clip is recorded
byId("clip").onclick = () => {
  if (clip) {
    clip.stop();
    return;
  }
  try {
    clip = startClip(byId("picture"), (blob, suffix) => {
      download(blob, `deepfovea.${suffix}`, blob.type);
      clip = null;
      showClip();
    });
  } catch (error) {
    showStatus(`This browser cannot record a clip (${error.message})`, true);
  }
  showClip();
};

function showClip() {
  byId("clip").classList.toggle("recording", clip !== null);
  byId("clip").textContent = clip ? "Stop, save clip" : "Record clip";
}

const arrangements = [...document.querySelectorAll("input[name=arrangement]")];

function arrange(name = arrangements.find((input) => input.checked).value) {
  for (const input of arrangements) input.checked = input.value === name;
  byId("first-label").hidden = name === "beside";
  byId("other-label").hidden = name !== "beside";
  const labels = { wipe: ["Left", "Right"], inset: ["Inset", "Picture"] }[name] ?? ["Picture"];
  byId("first-label").firstElementChild.textContent = labels[0];
  byId("second-label").firstElementChild.textContent = labels[1] ?? "";
  byId("second-label").hidden = labels.length < 2;
  const [first, second, other] = pictureSelects.map(({ value }) => value);
  stage.arrange({ arrangement: name, first, second, other });
}

for (const input of [...arrangements, ...pictureSelects]) input.onchange = () => arrange();

// Full screen shows the reconstruction alone; afterwards the earlier arrangement returns.
let arrangementBefore = null;

async function toggleFull() {
  if (arrangementBefore) {
    if (document.fullscreenElement) await document.exitFullscreen();
    else leaveFull();
    return;
  }
  arrangementBefore = arrangements.find((input) => input.checked).value;
  stage.arrange({ arrangement: "alone", first: "reconstruction" });
  try {
    await byId("stage").requestFullscreen();
  } catch {
    byId("stage").classList.add("covering"); // full screen is not allowed: fill the window
  }
  byId("stage").focus();
}

function leaveFull() {
  byId("stage").classList.remove("covering");
  const name = arrangementBefore;
  arrangementBefore = null;
  arrange(name);
}

byId("full").onclick = toggleFull;
document.addEventListener("fullscreenchange", () => {
  if (!document.fullscreenElement && arrangementBefore) leaveFull();
});

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest("input, select, button, summary");
  if (typing && !(typing.type === "range" && event.key === ".")) return;
  const actions = {
    " ": () => setPlaying(!playing),
    ".": step,
    f: toggleFull,
    z: () => byId("lens").click(),
    r: () => byId("reset").click(),
    1: () => arrange("inset"),
    2: () => arrange("wipe"),
    3: () => arrange("beside"),
    4: () => arrange("alone"),
    Escape: () => arrangementBefore && !document.fullscreenElement && leaveFull(),
  };
  if (!actions[event.key]) return;
  event.preventDefault();
  actions[event.key]();
});

// ---- gaze tracks ----

byId("record").onclick = () => {
  const recording = recorder.rows !== null;
  byId("record").classList.toggle("recording", !recording);
  byId("record").textContent = recording ? "Record gaze" : "Stop, save CSV";
  if (!recording) {
    recorder.start();
    showStatus("Recording the gaze");
    return;
  }
  const csv = recorder.stop(video);
  showStatus(csv ? "" : "Nothing was shown while recording", !csv);
  if (csv) download(csv, "gaze.csv");
};

byId("track").onchange = async () => {
  const [file] = byId("track").files;
  byId("track").value = ""; // the same file may be chosen again
  if (!file) return;
  if (file.size > MAX_TRACK_BYTES) {
    showStatus(`${file.name} is larger than 1 MiB`, true);
    return;
  }
  track = await file.text();
  showStatus("");
  showTrackControls(true);
  backend.send({ track, seek: 0 });
};

byId("untrack").onclick = () => {
  track = null;
  showTrackControls(false);
  byId("track").focus(); // as this button is hidden now
  backend.send({ track });
};

function showTrackControls(isTracked) {
  byId("untrack").hidden = !isTracked;
  byId("track-label").hidden = isTracked;
}

// ---- videos ----

async function uploadFile(file, seconds = 0) {
  if (!hello) return;
  if (file.size > hello.max_upload_bytes) {
    showStatus(`${file.name} is larger than ${hello.max_upload_bytes / 2 ** 20} MiB`, true);
    return;
  }
  const progress = byId("progress");
  progress.hidden = false;
  showStatus(`${hello.local ? "Opening" : "Sending"} ${file.name}`);
  try {
    uploaded = { name: file.name, file };
    track = null;
    uploaded.id = await backend.addVideo(file, (share) => { progress.value = share; });
    if (video?.id === uploaded.id) openVideo(video);
    if (seconds) backend.send({ seek: seconds });
    showStatus("");
  } catch (error) {
    showStatus(error.message, true);
  }
  progress.hidden = true;
}

byId("upload").onchange = () => {
  const [file] = byId("upload").files;
  byId("upload").value = "";
  if (file) uploadFile(file);
};
acceptDrops(byId("drop"), (file) => uploadFile(file));

showPlaying();
arrange();
