// The live figures, which the page measures itself, and the plot of the last ten seconds.

import { title } from "./views.js";

const WINDOW_MS = 10_000;
const RATE_MS = 2_000;
const REFRESH_MS = 200;
const LEAST_FOR_P95 = 20; // latencies; of fewer, the 95th percentile would be the maximum

const quantile = (sorted, q) => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];

export class Figures {
  constructor(root) {
    this.byId = (id) => root.querySelector(`#${id}`);
    this.plot = this.byId("plot");
    this.painted = []; // [time in ms, frames per second up to then]
    this.latencies = []; // [time in ms, latency in ms]
    this.lastTimestamp = 0;
    setInterval(() => this.refresh(), REFRESH_MS);
  }

  // Call it when a frame is on the screen. Its latency counts if it is the first with its gaze.
  add(header, now) {
    const recent = this.painted.filter(([time]) => time > now - RATE_MS);
    recent.push([now]);
    const span = now - recent[0][0];
    const rate = span > 0 ? (1000 * (recent.length - 1)) / span : null;
    this.painted.push([now, rate]);
    if (header.timestamp && header.timestamp !== this.lastTimestamp) {
      this.latencies.push([now, now - header.timestamp]);
    }
    this.lastTimestamp = header.timestamp;
    this.header = header;
    this.filled = header.psnr_of.filled ?? this.filled; // not every frame has it
  }

  clear() {
    this.painted = [];
    this.latencies = [];
    this.filled = undefined;
  }

  // [median, 95th percentile] in milliseconds; null if there are too few latencies.
  latency() {
    const sorted = this.latencies.map(([, ms]) => ms).sort((a, b) => a - b);
    if (!sorted.length) return null;
    return [quantile(sorted, 0.5), sorted.length < LEAST_FOR_P95 ? null : quantile(sorted, 0.95)];
  }

  refresh() {
    const now = performance.now();
    this.painted = this.painted.filter(([time]) => time > now - WINDOW_MS);
    this.latencies = this.latencies.filter(([time]) => time > now - WINDOW_MS);
    const last = this.painted.at(-1);
    const latency = this.latency();
    const text = (id, value) => {
      if (this.byId(id).textContent !== value) this.byId(id).textContent = value;
    };
    const current = last && last[0] > now - RATE_MS ? last[1] : null;
    text("fps", current ? current.toFixed(1) : "–");
    text("latency", latency ? latency[0].toFixed(0) : "–");
    text("latency95", latency?.[1] ? latency[1].toFixed(0) : "–");
    const header = this.header;
    if (header) {
      text("psnr", header.psnr.toFixed(2));
      const others = Object.entries({ ...header.psnr_of, filled: this.filled })
        .map(([view, value]) => `${title(view).replace(", no network", "")}\u00a0${value?.toFixed(2) ?? "–"}`);
      text("psnr-others", others.join(", "));
      text("sampled", `${(100 * header.sampled).toFixed(1)} %`);
      text("model-name", header.model);
      text("engine", header.engine);
      const times = [
        ["sampling", header.sampling_ms], ["network", header.network_ms],
        ["compared", header.compared_ms || undefined], ["pictures", header.pictures_ms], ["in all", header.server_ms],
      ].filter(([, ms]) => ms !== undefined);
      text("server", times.map(([name, ms]) => `${name}\u00a0${ms.toFixed(0)}`).join(", "));
      text("working-size", header.size.join(" × "));
    }
    this.drawPlot(now, latency);
  }

  drawPlot(now, latency) {
    const density = window.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this.plot;
    if (!width) return;
    if (this.plot.width !== Math.round(width * density)) this.plot.width = Math.round(width * density);
    if (this.plot.height !== Math.round(height * density)) {
      this.plot.height = Math.round(height * density);
    }
    const context = this.plot.getContext("2d");
    context.setTransform(density, 0, 0, density, 0, 0);
    context.clearRect(0, 0, width, height);
    const style = getComputedStyle(this.plot);
    const colour = (name) => style.getPropertyValue(name).trim();
    const half = height / 2;
    const axis = (top, label, values, line, paint) => {
      const largest = Math.max(1, ...values.map(([, value]) => value)) * 1.15;
      const baseline = top + half - 8;
      const x = (time) => width * (1 - (now - time) / WINDOW_MS);
      const y = (value) => baseline - ((half - 26) * value) / largest;
      context.strokeStyle = colour("--line");
      context.lineWidth = 1;
      context.beginPath();
      context.moveTo(0, Math.round(baseline) + 0.5);
      context.lineTo(width, Math.round(baseline) + 0.5);
      context.stroke();
      context.fillStyle = colour("--quiet");
      context.font = `11px ${style.fontFamily}`;
      context.textAlign = "left";
      context.fillText(label, 0, top + 11);
      context.textAlign = "right";
      const most = Math.max(...values.map(([, value]) => value));
      context.fillText(values.length ? `max ${most.toFixed(most < 10 ? 1 : 0)}` : "", width, top + 11);
      context.strokeStyle = context.fillStyle = line;
      context.lineWidth = 1.6;
      paint(x, y);
    };
    const rates = this.painted.filter(([, rate]) => rate !== null);
    axis(0, "frames/s, last 10 s", rates, colour("--accent"), (x, y) => {
      context.beginPath();
      for (const [time, value] of rates) context.lineTo(x(time), y(value));
      context.stroke();
    });
    axis(half, "gaze to photon, ms", this.latencies, colour("--second"), (x, y) => {
      for (const [time, value] of this.latencies) {
        context.fillRect(x(time) - 1.25, y(value) - 1.25, 2.5, 2.5);
      }
      if (latency) {
        context.globalAlpha = 0.5;
        context.fillRect(0, y(latency[0]), width, 1);
        context.globalAlpha = 1;
      }
    });
    const rate = rates.at(-1)?.[1];
    this.plot.setAttribute("aria-label", rate && latency
      ? `Last ten seconds: ${rate.toFixed(0)} frames per second, latency median `
        + `${latency[0].toFixed(0)} milliseconds`
        + (latency[1] ? `, 95th percentile ${latency[1].toFixed(0)}` : "")
      : "Frames per second and latency, last ten seconds");
  }
}
