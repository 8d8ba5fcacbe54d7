// Draws the pictures of one frame on a canvas, with wipe, ring and lens, and reads the pointer.

import { title } from "./views.js";

const INSET = 0.3; // share of the picture's width
const LENS = 0.18; // radius as a share of the picture's shorter side
const LENS_GAIN = 3; // magnification
const GAP = 4; // between pictures side by side, CSS pixels
const BESIDE = 4; // pictures: the last two are the methods that are compared
const MARGIN = 16; // below the controls, CSS pixels
const LEAST_HEIGHT = 280; // CSS pixels; in lower windows the page scrolls, as in narrow ones
const HEIGHT_STEP = 12; // CSS pixels; with it, the widths of 4:3 and 3:2 are whole pixels, too
const NARROW_SHARE = 0.62; // of the window's height, in narrow windows
const KEY_STEP = 0.02; // share of the frame's width
const KEY_STEP_LARGE = 0.1;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const close = ({ pictures }) => Object.values(pictures).forEach((bitmap) => bitmap.close());
const clamp = (value) => Math.min(1, Math.max(0, value));

export class Stage {
  // Callbacks: onGaze([x, y] normalised, timestamp in ms); onPaint(header, time in ms) when a frame
  // is on the screen; onViews([names]); onKey([x, y]) when a key has moved the gaze.
  constructor(root, { onGaze, onPaint, onViews, onKey }) {
    this.root = root;
    this.canvas = root.querySelector("#picture");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.tags = root.querySelector("#tags");
    this.handle = root.querySelector("#handle");
    this.controls = [...document.querySelectorAll(".look")].at(-1); // the lowest ones
    Object.assign(this, { onGaze, onPaint, onViews, onKey });
    // What is shown, and what is chosen: they differ until a frame has the pictures for it.
    this.chosen = {
      arrangement: "inset", first: "samples", second: "reconstruction", other: "filled",
    };
    Object.assign(this, this.chosen);
    this.ring = true;
    this.lens = false;
    this.lensAt = null; // normalised, while the lens is used
    this.wipe = 0.5;
    this.size = [4, 3];
    this.gaze = [0.5, 0.5];
    this.frame = null; // { header, pictures } that is shown
    this.pending = null; // the next frame, decoded and not yet painted
    this.animationFrame = 0;
    this.listen();
    new ResizeObserver(() => this.layout()).observe(root);
    addEventListener("resize", () => this.layout());
  }

  arrange(changes) {
    Object.assign(this.chosen, changes);
    this.showChosen();
    this.onViews(this.views());
  }

  // Show what is chosen once there are pictures for it; until then what was shown before.
  showChosen() {
    if (this.frame && !this.canShow(this.chosen, this.frame)) return;
    Object.assign(this, this.chosen);
    this.layout();
  }

  canShow(arranged, { pictures }) {
    return this.views(arranged).every((view) => pictures[view]);
  }

  // The pictures that are needed for what is chosen.
  views({ arrangement, first, second, other } = this.chosen) {
    const shown = {
      beside: ["samples", "original", other, "reconstruction"], alone: [first],
    }[arrangement];
    return shown ?? [...new Set([first, second])]; // wipe and inset
  }

  show(header, pictures) {
    if (this.pending) close(this.pending);
    this.pending = { header, pictures };
    this.paintSoon();
  }

  paintSoon() {
    this.animationFrame ||= requestAnimationFrame(() => {
      this.animationFrame = 0;
      const newFrame = this.pending;
      this.pending = null;
      // One that was asked for before something else was chosen may fit neither.
      if (newFrame && (this.canShow(this.chosen, newFrame) || this.canShow(this, newFrame))) {
        if (this.frame) close(this.frame);
        this.frame = newFrame;
        this.showChosen();
      } else if (newFrame) {
        close(newFrame);
      }
      this.draw();
      // By the callback of the next refresh, this frame has been handed to the screen.
      if (newFrame) requestAnimationFrame((now) => this.onPaint(newFrame.header, now));
    });
  }

  // The positions of the pictures on a stage of this size (by default its own), CSS pixels.
  panes(width = this.root.clientWidth, height = this.root.clientHeight) {
    const views = this.arrangement === "beside" ? this.views(this) : [null];
    const columns = this.columns();
    const rows = views.length / columns;
    const room = [(width - GAP * (columns - 1)) / columns, (height - GAP * (rows - 1)) / rows];
    const ratio = this.size[0] / this.size[1];
    const w = Math.min(room[0], room[1] * ratio);
    const h = w / ratio;
    return views.map((view, i) => ({
      view,
      x: (i % columns) * (room[0] + GAP) + (room[0] - w) / 2,
      y: Math.floor(i / columns) * (room[1] + GAP) + (room[1] - h) / 2,
      w, h,
    }));
  }

  // The number of columns with which several pictures are largest.
  columns() {
    if (this.arrangement !== "beside") return 1;
    const full = this.root.matches(":fullscreen, .covering");
    const height = full ? window.innerHeight : this.highest();
    const ratio = this.size[0] / this.size[1];
    const width = (columns) => Math.min(
      this.root.parentElement.clientWidth / columns, (height * ratio * columns) / BESIDE);
    return [1, 2, 4].reduce((best, columns) => (width(columns) > width(best) ? columns : best));
  }

  // The largest height of the stage with which the controls stay in the window, CSS pixels.
  highest() {
    if (matchMedia("(max-width: 940px)").matches) return NARROW_SHARE * window.innerHeight;
    const room = this.root.parentElement.getBoundingClientRect();
    const above = room.top + window.scrollY;
    const below = this.controls.getBoundingClientRect().bottom - room.bottom;
    const height = Math.max(LEAST_HEIGHT, window.innerHeight - above - below - MARGIN);
    return HEIGHT_STEP * Math.floor(height / HEIGHT_STEP);
  }

  layout() {
    const [w, h] = this.size;
    let ratio = w / h;
    if (this.arrangement === "beside") ratio *= this.columns() ** 2 / BESIDE;
    this.root.style.setProperty("--ratio", ratio.toFixed(6));
    this.root.style.setProperty("--highest", `${this.highest()}px`);
    const density = window.devicePixelRatio || 1;
    const width = Math.max(1, Math.round(this.root.clientWidth * density));
    const height = Math.max(1, Math.round(this.root.clientHeight * density));
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
    const pane = this.panes()[0];
    const wiping = this.arrangement === "wipe";
    this.handle.hidden = !wiping;
    this.handle.style.left = `${pane.x + this.wipe * pane.w}px`;
    this.handle.setAttribute("aria-valuenow", Math.round(100 * this.wipe));
    this.handle.setAttribute(
      "aria-valuetext", `${Math.round(100 * this.wipe)} % ${title(this.first)}, the rest ${title(this.second)}`);
    this.label();
    this.draw(); // as setting its size empties a canvas
  }

  label() {
    const panes = this.panes();
    const tag = (text, x, y, shift) => {
      const element = document.createElement("span");
      element.className = "tag";
      element.textContent = title(text);
      element.style.left = `${x}px`;
      element.style.top = `${y + 10}px`;
      element.style.setProperty("--shift", shift);
      return element;
    };
    if (this.arrangement === "beside") {
      this.tags.replaceChildren(...panes.map((p) => tag(p.view, p.x + 10, p.y, "0")));
    } else if (this.arrangement === "inset") {
      this.tags.replaceChildren(tag(this.second, panes[0].x + 10, panes[0].y, "0"));
    } else if (this.arrangement === "alone") {
      this.tags.replaceChildren(tag(this.first, panes[0].x + 10, panes[0].y, "0"));
    } else {
      const { x, y, w } = panes[0];
      this.tags.replaceChildren(
        tag(this.first, x + 10, y, "0"), tag(this.second, x + w - 10, y, "-100%"));
    }
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.root;
    this.paint(this.context, width, height, this.canvas.width / Math.max(1, width));
  }

  // Draw all pictures on a canvas of width by height units; a unit has `density` pixels.
  paint(context, width, height, density) {
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, context.canvas.width, context.canvas.height);
    if (!this.frame) return;
    context.setTransform(density, 0, 0, density, 0, 0);
    for (const pane of this.panes(width, height)) {
      this.paintPane(context, pane);
      if (this.ring) this.drawRing(context, pane);
      if (this.arrangement === "inset") this.drawInset(context, this.insetPane(pane));
      if (this.lens && this.lensAt) this.drawLens(context, pane);
    }
  }

  paintPane(context, pane) {
    if (this.arrangement === "inset") {
      this.drawPicture(context, this.second, pane, 0, 1);
    } else if (this.arrangement === "wipe") {
      this.drawPicture(context, this.second, pane, this.wipe, 1);
      this.drawPicture(context, this.first, pane, 0, this.wipe);
    } else {
      this.drawPicture(context, pane.view ?? this.first, pane, 0, 1);
    }
  }

  // Draw what is shown on a new canvas, at the frame's own size; null before the first frame.
  picture() {
    if (!this.frame) return null;
    const columns = this.columns();
    const rows = this.panes().length / columns;
    const [width, height] = this.frame.header.size;
    const canvas = document.createElement("canvas");
    canvas.width = columns * width + GAP * (columns - 1);
    canvas.height = rows * height + GAP * (rows - 1);
    this.paint(canvas.getContext("2d"), canvas.width, canvas.height, 1);
    return canvas;
  }

  // Draw the lens: the same part of every picture, enlarged.
  drawLens(context, pane) {
    const { x, y, w, h } = pane;
    const radius = LENS * Math.min(w, h);
    const centre = [x + this.lensAt[0] * w, y + this.lensAt[1] * h];
    context.save();
    context.beginPath();
    context.rect(x, y, w, h);
    context.clip();
    context.beginPath();
    context.arc(...centre, radius, 0, 2 * Math.PI);
    context.save();
    context.clip();
    const grown = (start, middle) => middle - LENS_GAIN * (middle - start);
    this.paintPane(context, { ...pane, x: grown(x, centre[0]), y: grown(y, centre[1]),
      w: LENS_GAIN * w, h: LENS_GAIN * h });
    context.restore();
    context.setLineDash([]);
    context.lineWidth = 2;
    context.strokeStyle = "rgb(255 255 255 / .85)";
    context.stroke();
    context.restore();
  }

  // The inset's position: the lower corner that is farther from the gaze.
  insetPane({ x, y, w, h }) {
    const [width, height] = [INSET * w, INSET * h];
    const left = this.frame && this.frame.header.gaze[0] > 0.5;
    return { x: left ? x + 10 : x + w - width - 10, y: y + h - height - 10, w: width, h: height };
  }

  drawInset(context, pane) {
    const { x, y, w, h } = pane;
    context.fillStyle = "#000";
    context.fillRect(x, y, w, h);
    this.drawPicture(context, this.first, pane, 0, 1);
    context.setLineDash([]);
    context.lineWidth = 1;
    context.strokeStyle = "rgb(255 255 255 / .7)";
    context.strokeRect(x, y, w, h);
  }

  // Draw the part of a picture between two fractions of its width.
  drawPicture(context, view, { x, y, w, h }, from, to) {
    const picture = this.frame.pictures[view];
    if (!picture || to <= from) return;
    context.save();
    context.beginPath();
    context.rect(x + from * w, y, (to - from) * w, h);
    context.clip();
    // Samples are drawn as squares. Their picture may be larger, as it is padded to whole samples.
    context.imageSmoothingEnabled = view !== "samples";
    const [width, height] = this.frame.header.size;
    const grow = view === "samples" ? this.frame.header.scale : 1;
    context.drawImage(
      picture, x, y, (w * picture.width * grow) / width, (h * picture.height * grow) / height);
    context.restore();
  }

  drawRing(context, { x, y, w, h }) {
    const { gaze, inner, outer } = this.frame.header;
    const centre = [x + gaze[0] * w, y + gaze[1] * h];
    context.save();
    context.beginPath();
    context.rect(x, y, w, h);
    context.clip();
    const circle = (radius, width, style, dash) => {
      context.setLineDash(dash);
      context.lineWidth = width;
      context.strokeStyle = style;
      context.beginPath();
      context.arc(...centre, radius, 0, 2 * Math.PI);
      context.stroke();
    };
    circle(Math.max(3, inner * w), 4, "rgb(0 0 0 / .55)", []);
    circle(Math.max(3, inner * w), 2, "#fff", []);
    if (outer > 0) circle(outer * w, 1, "rgb(255 255 255 / .6)", [3, 6]);
    context.restore();
  }

  listen() {
    const { root, handle } = this;
    const at = (event) => {
      const box = root.getBoundingClientRect();
      const point = [event.clientX - box.left, event.clientY - box.top];
      const panes = this.panes();
      // The pane under the pointer, or the nearest one.
      const distance = ({ x, y, w, h }) =>
        Math.max(x - point[0], point[0] - x - w, y - point[1], point[1] - y - h);
      const pane = panes.reduce((best, p) => (distance(p) < distance(best) ? p : best));
      return [(point[0] - pane.x) / pane.w, (point[1] - pane.y) / pane.h];
    };
    // With the lens, the pointer moves the lens, and only a click moves the gaze.
    root.addEventListener("pointermove", (event) => {
      if (this.lens) this.moveLens(at(event));
      else this.look(at(event), event.timeStamp);
    });
    root.addEventListener("pointerdown", (event) => {
      if (this.lens) this.moveLens(at(event));
      this.look(at(event), event.timeStamp);
    });
    root.addEventListener("keydown", (event) => {
      const arrow = ARROWS[event.key];
      if (!arrow || event.target === handle || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      const step = event.shiftKey ? KEY_STEP_LARGE : KEY_STEP;
      const ratio = this.size[0] / this.size[1];
      const [x, y] = this.lens ? this.lensAt ?? this.gaze : this.gaze;
      const to = [x + step * arrow[0], y + step * ratio * arrow[1]];
      if (this.lens) {
        this.moveLens(to);
        return;
      }
      this.look(to, event.timeStamp);
      this.onKey(this.gaze);
    });

    const drag = (event) => {
      const pane = this.panes()[0];
      const box = root.getBoundingClientRect();
      this.moveWipe((event.clientX - box.left - pane.x) / pane.w);
      event.stopPropagation(); // moving the wipe does not move the gaze
    };
    handle.addEventListener("pointerdown", (event) => {
      handle.setPointerCapture(event.pointerId);
      event.stopPropagation();
    });
    handle.addEventListener("pointermove", (event) => {
      if (handle.hasPointerCapture(event.pointerId)) drag(event);
    });
    handle.addEventListener("keydown", (event) => {
      const to = {
        ArrowLeft: this.wipe - 0.02, ArrowDown: this.wipe - 0.02,
        ArrowRight: this.wipe + 0.02, ArrowUp: this.wipe + 0.02, Home: 0, End: 1,
      }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      event.stopPropagation();
      this.moveWipe(to);
    });
  }

  look(gaze, timestamp) {
    this.gaze = gaze.map(clamp);
    this.onGaze(this.gaze, timestamp);
  }

  moveLens(to) {
    this.lensAt = to.map(clamp);
    this.paintSoon();
  }

  moveWipe(to) {
    this.wipe = clamp(to);
    this.layout();
  }
}
