// A live eye tracker: its state, the five-point calibration, and whether it is followed.

import { download } from "./track.js";

const LOOK_MS = 1200; // how long each target is shown before the gaze is measured
const SHOWN_EVERY_MS = 250;
const WINDOW_MS = 10_000;
const LOOPBACK = ["127.0.0.1", "localhost", "[::1]"];

const element = (name, properties = {}, children = []) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};

const wait = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

export class Live {
  // stage: shows the targets; send(changes): changes the request; showStatus(text, alarm);
  // degrees(): pixels of the video per degree, as set on the page.
  constructor({ stage, send, showStatus, degrees }) {
    Object.assign(this, { stage, send, showStatus, degrees });
    this.card = null;
    this.shownAt = 0;
    this.latencies = []; // [time in ms, latency from the eye in ms] of each sample's first frame
    this.lastTaken = 0;
  }

  // Call it with the server's greeting; hello.live is null without a tracker.
  start(hello) {
    this.live = hello.live;
    this.token = hello.token;
    if (!this.live || this.card) return;
    this.follow = element("input", { type: "checkbox", id: "follow-tracker", checked: true });
    this.follow.onchange = () => this.send({ live: this.follow.checked });
    this.button = element("button", { type: "button", id: "calibrate", textContent: "Calibrate" });
    this.button.onclick = () => this.calibrate();
    this.state = element("dd", { id: "tracker-state", textContent: "–" });
    this.latency = element("dd", { id: "eye-to-photon", textContent: "–" });
    this.latency.title = "From the tracker's time of the sample to the refresh of the first frame "
      + "made with it, ten seconds, median and 95th percentile; on the server's computer only, "
      + "whose clock both read";
    this.residual = element("dd", { id: "calibration-residual", textContent: "–" });
    const line = (name, value) =>
      element("div", {}, [element("dt", { textContent: name }), value]);
    this.card = element("section", { className: "card", id: "live-card" }, [
      element("h2", { id: "live-title", textContent: "Eye tracker" }),
      element("p", { className: "quiet", textContent: this.live.source }),
      element("dl", { className: "lines" }, [
        line("newest sample", this.state), line("eye to photon", this.latency), line("calibration", this.residual)]),
      element("div", { className: "fields" }, [
        element("label", { className: "check" }, [this.follow, " Follow it"]), this.button]),
    ]);
    if (this.live.recording) {
      this.card.append(element("p", { className: "quiet",
        textContent: `Recorded as ${this.live.recording} when the server ends.` }));
    }
    this.card.setAttribute("aria-labelledby", "live-title");
    document.querySelector("aside").append(this.card);
  }

  // Whether the gaze should follow the tracker, if there is one.
  followed() {
    return this.follow?.checked ?? true;
  }

  // Call it when a frame is on the screen; header.live describes the gaze that it was made with.
  add(header, now) {
    if (!this.card || !header.live) return;
    const { valid, age_ms: age, taken_unix_ms: taken } = header.live;
    if (taken !== null && taken > this.lastTaken + 0.5) { // not another frame of the same sample
      this.latencies.push([now, performance.timeOrigin + now - taken]);
      this.lastTaken = taken;
    }
    if (now < this.shownAt + SHOWN_EVERY_MS) return;
    this.shownAt = now;
    this.latencies = this.latencies.filter(([time]) => time > now - WINDOW_MS);
    const sorted = this.latencies.map(([, ms]) => ms).sort((a, b) => a - b);
    if (sorted.length && LOOPBACK.includes(location.hostname)) {
      const [median, high] = [0.5, 0.95].map((q) => sorted[Math.floor(q * sorted.length)]);
      this.latency.textContent = `${median.toFixed(0)} ms, p95 ${high.toFixed(0)} ms`;
    }
    this.state.textContent = age === null ? "none yet"
      : `${valid ? "" : "eye lost, "}${age < 1000 ? `${age.toFixed(0)} ms` : `${(age / 1000).toFixed(1)} s`} old`;
  }

  async calibrate() {
    const [width, height] = this.stage.size;
    const target = element("div", { className: "target" });
    target.setAttribute("role", "img");
    this.button.disabled = true;
    this.stage.root.append(target);
    const measured = [];
    try {
      for (const [number, [x, y]] of this.live.points.entries()) {
        const pane = this.stage.panes()[0];
        target.style.left = `${pane.x + x * pane.w}px`;
        target.style.top = `${pane.y + y * pane.h}px`;
        target.setAttribute("aria-label", `Target ${number + 1} of ${this.live.points.length}`);
        this.showStatus(`Look at the dot: ${number + 1} of ${this.live.points.length}`);
        await wait(LOOK_MS);
        measured.push((await this.ask({ measure: true })).measured);
      }
      const fitted = await this.ask({ targets: this.live.points, measured, width, height,
        pixels_per_degree: this.degrees() });
      const { mean, max } = fitted.residual_deg;
      this.residual.textContent = `${mean.toFixed(2)}° mean, ${max.toFixed(2)}° at most`;
      this.showStatus("");
      download(JSON.stringify(fitted, null, 1), "gaze-calibration.json", "application/json");
    } catch (error) {
      this.showStatus(error.message, true);
    }
    target.remove();
    this.button.disabled = false;
  }

  async ask(question) {
    const answer = await fetch(`calibrate?token=${encodeURIComponent(this.token)}`, {
      method: "POST", body: JSON.stringify(question),
    });
    const values = await answer.json();
    if (!answer.ok) throw new Error(values.error);
    return values;
  }
}
