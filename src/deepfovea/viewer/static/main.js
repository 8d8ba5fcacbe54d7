// Wires the page: what a person does becomes a change of the wish, what comes back is shown.

import { Connection } from "/connection.js";
import { Figures } from "/figures.js";
import { Stage } from "/stage.js";
import { Recorder, download } from "/track.js";
import { acceptDrops, upload } from "/upload.js";

const MAX_TRACK_BYTES = 2 ** 20;
const GAZE_INTERVAL_MS = 4; // no pointer needs more, and the server allows 500 messages a second

const at = (id) => document.getElementById(id);
const recorder = new Recorder();
const figures = new Figures(document);
let hello = null; // what the server has
let video = null; // the one shown
let dropped = null; // name of the one dropped
let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
let scrubbing = false;

// ---- out: the wish ----

let waiting = null; // the newest gaze, not yet sent
let gazeSent = 0;

function sendGaze() {
  if (!waiting) return;
  const wait = gazeSent + GAZE_INTERVAL_MS - performance.now();
  if (wait > 0) {
    setTimeout(sendGaze, wait);
    return;
  }
  connection.send(waiting);
  waiting = null;
  gazeSent = performance.now();
}

const stage = new Stage(at("stage"), {
  onGaze(gaze, stamp) {
    waiting = { gaze, stamp };
    sendGaze();
  },
  onPaint(header, now) {
    connection.send({ shown: header.number });
    figures.add(header, now);
    recorder.add(header);
  },
  onViews: (views) => connection.send({ views }),
});

function setPlaying(value) {
  playing = value;
  showPlaying();
  connection.send({ playing });
}

function showPlaying() {
  at("play").classList.toggle("paused", !playing);
  at("play").setAttribute("aria-label", playing ? "Pause" : "Play");
  at("play").title = playing ? "Pause (space)" : "Play (space)";
}

function step() {
  playing = false;
  showPlaying();
  connection.send({ step: true });
}

function density() {
  const kind = at("density").value;
  for (const label of document.querySelectorAll("[data-density]")) {
    label.hidden = !label.dataset.density.split(" ").includes(kind);
  }
  const numbers = { budget: ["percent"], uniform: ["percent"], degrees: ["inner", "outer", "ppd"] };
  at("outer").setCustomValidity(
    Number(at("outer").value) > Number(at("inner").value) ? "" : "more than the fovea's");
  if ((numbers[kind] ?? []).some((id) => !at(id).checkValidity())) return null;
  const text = {
    published: "published",
    budget: `budget:${at("percent").value}`,
    uniform: `uniform:${at("percent").value}`,
    degrees: `0.98,0.15,${at("inner").value},${at("outer").value}deg`,
  }[kind];
  const changes = { density: text };
  if (kind === "degrees") changes.pixels_per_degree = Number(at("ppd").value);
  return changes;
}

// All that the page shows as chosen, for a server that does not know it yet.
function everything() {
  return {
    playing,
    speed: Number(at("speed").value),
    blue_noise: at("blue-noise").checked,
    views: stage.views(),
    gaze: stage.gaze,
    ...density(),
  };
}

// ---- in: texts and frames ----

const connection = new Connection({
  open() {
    say("");
  },
  text(message) {
    if (message.error) say(message.error, true);
    if (message.hello) greet(message.hello);
    if (message.video) open(message.video);
    if (message.holds) hold(message.holds);
  },
  frame(header, pictures) {
    at("notice").hidden = true;
    showPosition(header.seconds);
    stage.show(header, pictures);
  },
  closed(reason) {
    notice(at("status").classList.contains("alarm") ? at("status").textContent
      : `No connection to the server${reason ? `: ${reason}` : ""}. It is tried again while this page is open.`);
    figures.forget();
  },
});

function greet(greeting) {
  hello = greeting;
  const options = (names) => names.map(([value, text]) => new Option(text, value));
  at("model").replaceChildren(...options(hello.models.map((name) => [name, name])));
  at("video").replaceChildren(...options(hello.videos.map(({ id, name }) => [id, name])));
  at("video-label").hidden = hello.videos.length < 2;
  following(false);
  connection.send(everything());
  notice("Loading …");
}

function open(opened) {
  video = opened;
  stage.size = [video.width, video.height];
  stage.layout();
  const name = video.id === dropped?.id ? dropped.name : video.name;
  if (![...at("video").options].some((option) => option.value === video.id)) {
    // A client keeps one dropped video; the one before is gone.
    const known = new Set(hello.videos.map(({ id }) => id));
    for (const option of [...at("video").options]) if (!known.has(option.value)) option.remove();
    at("video").add(new Option(name, video.id));
  }
  at("video").value = video.id;
  at("video-label").hidden = at("video").options.length < 2;
  at("title").textContent = name;
  at("size").textContent = `${video.width} × ${video.height}, ${+video.frame_rate.toFixed(2)}/s`;
  at("position").max = video.seconds ?? 1;
  at("position").disabled = video.seconds === null;
  figures.forget();
}

// Something could not be done: show what holds instead.
function hold(holds) {
  at("model").value = holds.model;
  at("video").value = holds.video;
  following(holds.tracked);
}

function say(text, alarm = false) {
  at("status").textContent = text;
  at("status").classList.toggle("alarm", alarm);
}

function notice(text) {
  at("notice").textContent = text;
  at("notice").hidden = false;
}

const minutes = (seconds) =>
  `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;

function showPosition(seconds) {
  const of = video.seconds === null ? "" : ` / ${minutes(video.seconds)}`;
  at("clock").textContent = minutes(seconds) + of;
  if (scrubbing) return;
  at("position").value = seconds;
  at("position").setAttribute("aria-valuetext", minutes(seconds) + of);
}

// ---- controls ----

at("play").onclick = () => setPlaying(!playing);
at("step").onclick = step;
at("reset").onclick = () => connection.send({ reset: true });
at("speed").onchange = () => connection.send({ speed: Number(at("speed").value) });
at("model").onchange = () => connection.send({ model: at("model").value });
at("video").onchange = () => connection.send({ video: at("video").value, track: null });
at("blue-noise").onchange = () => connection.send({ blue_noise: at("blue-noise").checked });
for (const id of ["density", "percent", "inner", "outer", "ppd"]) {
  at(id).addEventListener("input", () => {
    const changes = density();
    if (changes) connection.send(changes);
  });
}
at("position").oninput = () => {
  scrubbing = true;
  connection.send({ seek: Number(at("position").value) });
};
at("position").onchange = () => { scrubbing = false; };
at("ring").onchange = () => {
  stage.ring = at("ring").checked;
  stage.paintSoon();
};

const arrangements = [...document.querySelectorAll("input[name=arrangement]")];

function arrange(name = arrangements.find((input) => input.checked).value) {
  for (const input of arrangements) input.checked = input.value === name;
  at("first-label").hidden = name === "beside";
  at("first-label").firstElementChild.textContent = name === "wipe" ? "Left" : "Picture";
  at("second-label").hidden = name !== "wipe";
  stage.arrange({ arrangement: name, first: at("first").value, second: at("second").value });
}

for (const input of [...arrangements, at("first"), at("second")]) input.onchange = () => arrange();

// Full screen is the reconstruction alone; what was arranged before comes back afterwards.
let before = null;

async function toggleFull() {
  if (before) {
    if (document.fullscreenElement) await document.exitFullscreen();
    else leaveFull();
    return;
  }
  before = stage.arrangement;
  stage.arrange({ arrangement: "alone", first: "reconstruction" });
  try {
    await at("stage").requestFullscreen();
  } catch {
    at("stage").classList.add("covering"); // where it is not allowed: the whole window
  }
  at("stage").focus();
}

function leaveFull() {
  at("stage").classList.remove("covering");
  const name = before;
  before = null;
  arrange(name);
}

at("full").onclick = toggleFull;
document.addEventListener("fullscreenchange", () => {
  if (!document.fullscreenElement && before) leaveFull();
});

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest("input, select, button, summary");
  if (typing && !(typing.type === "range" && event.key === ".")) return;
  const actions = {
    " ": () => setPlaying(!playing),
    ".": step,
    f: toggleFull,
    r: () => at("reset").click(),
    1: () => arrange("wipe"),
    2: () => arrange("beside"),
    3: () => arrange("alone"),
    Escape: () => before && !document.fullscreenElement && leaveFull(),
  };
  if (!actions[event.key]) return;
  event.preventDefault();
  actions[event.key]();
});

// ---- gaze tracks ----

at("record").onclick = () => {
  const recording = recorder.rows !== null;
  at("record").setAttribute("aria-pressed", String(!recording));
  at("record").textContent = recording ? "Record gaze" : "Stop, save CSV";
  if (!recording) {
    recorder.start();
    say("Recording the gaze");
    return;
  }
  const csv = recorder.stop(video);
  say(csv ? "" : "Nothing was shown while recording", !csv);
  if (csv) download(csv, "gaze.csv");
};

at("track").onchange = async () => {
  const [file] = at("track").files;
  at("track").value = ""; // the same file may be chosen again
  if (!file) return;
  if (file.size > MAX_TRACK_BYTES) {
    say(`${file.name} is larger than 1 MiB`, true);
    return;
  }
  const track = await file.text();
  say("");
  following(true);
  connection.send({ track, seek: 0 });
};

at("untrack").onclick = () => {
  following(false);
  connection.send({ track: null });
};

function following(track) {
  at("untrack").hidden = !track;
  at("track-label").hidden = track;
}

// ---- videos ----

async function take(file) {
  if (!hello) return;
  if (file.size > hello.max_upload_bytes) {
    say(`${file.name} is larger than ${hello.max_upload_bytes / 2 ** 20} MiB`, true);
    return;
  }
  const progress = at("progress");
  progress.hidden = false;
  say(`Sending ${file.name}`);
  try {
    dropped = { name: file.name };
    dropped.id = await upload(file, hello.token, (share) => { progress.value = share; });
    if (video?.id === dropped.id) open(video);
    say("");
  } catch (error) {
    say(error.message, true);
  }
  progress.hidden = true;
}

at("upload").onchange = () => {
  const [file] = at("upload").files;
  at("upload").value = "";
  if (file) take(file);
};
acceptDrops(at("drop"), take);

showPlaying();
arrange();
