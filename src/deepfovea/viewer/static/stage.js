// Draws the pictures of one frame on a canvas, with wipe and ring, and reads the pointer.

const INSET = 0.3; // of the picture's width
const VIEWS = ["samples", "reconstruction", "original"];
const KEY_STEP = 0.02; // of the frame's width
const KEY_STEP_LARGE = 0.1;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const clamp = (value) => Math.min(1, Math.max(0, value));

export class Stage {
  // onGaze([x, y] normalised, timestamp ms); onPaint(header, painted ms); onViews([names])
  constructor(root, { onGaze, onPaint, onViews }) {
    this.root = root;
    this.canvas = root.querySelector("#picture");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.tags = root.querySelector("#tags");
    this.handle = root.querySelector("#handle");
    Object.assign(this, { onGaze, onPaint, onViews });
    this.arrangement = "inset";
    this.first = "samples";
    this.second = "reconstruction";
    this.ring = true;
    this.wipe = 0.5;
    this.size = [4, 3];
    this.gaze = [0.5, 0.5];
    this.frame = null; // { header, pictures }, the one shown
    this.pending = null; // decoded and not yet painted
    this.animationFrame = 0;
    this.listen();
    new ResizeObserver(() => this.layout()).observe(root);
  }

  arrange(changes) {
    Object.assign(this, changes);
    this.layout();
    this.onViews(this.views());
  }

  views() {
    if (this.arrangement === "beside") return VIEWS;
    if (this.arrangement === "alone") return [this.first];
    return [...new Set([this.first, this.second])]; // wipe and inset
  }

  show(header, pictures) {
    if (this.pending) for (const bitmap of Object.values(this.pending.pictures)) bitmap.close();
    this.pending = { header, pictures };
    this.paintSoon();
  }

  paintSoon() {
    this.animationFrame ||= requestAnimationFrame(() => {
      this.animationFrame = 0;
      const newFrame = this.pending;
      if (newFrame) {
        if (this.frame) for (const b of Object.values(this.frame.pictures)) b.close();
        this.frame = newFrame;
        this.pending = null;
      }
      this.draw();
      // The callback of the next refresh comes after this frame has been handed to the screen.
      if (newFrame) requestAnimationFrame((now) => this.onPaint(newFrame.header, now));
    });
  }

  // Where the frame's pictures lie, CSS pixels of the stage.
  panes() {
    const { clientWidth: width, clientHeight: height } = this.root;
    const beside = this.arrangement === "beside";
    const columns = beside && !this.stacked() ? 3 : 1;
    const rows = beside && this.stacked() ? 3 : 1;
    const gap = beside ? 4 : 0;
    const room = [(width - gap * (columns - 1)) / columns, (height - gap * (rows - 1)) / rows];
    const ratio = this.size[0] / this.size[1];
    const w = Math.min(room[0], room[1] * ratio);
    const h = w / ratio;
    return (beside ? VIEWS : [null]).map((view, i) => ({
      view,
      x: (columns > 1 ? i : 0) * (room[0] + gap) + (room[0] - w) / 2,
      y: (rows > 1 ? i : 0) * (room[1] + gap) + (room[1] - h) / 2,
      w, h,
    }));
  }

  // Three pictures go above each other where that makes them much larger, as on a phone.
  stacked() {
    const full = this.root.matches(":fullscreen, .covering");
    const width = this.root.parentElement.clientWidth;
    const height = (full ? 1 : 0.76) * window.innerHeight;
    const ratio = this.size[0] / this.size[1];
    return Math.min(width, (height / 3) * ratio) > 1.5 * Math.min(width / 3, height * ratio);
  }

  layout() {
    const [w, h] = this.size;
    let ratio = w / h;
    if (this.arrangement === "beside") ratio *= this.stacked() ? 1 / 3 : 3;
    this.root.style.setProperty("--ratio", ratio.toFixed(4));
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
      "aria-valuetext", `${Math.round(100 * this.wipe)} % ${this.first}, the rest ${this.second}`);
    this.label();
    this.draw(); // a canvas whose size was set is empty
  }

  label() {
    const panes = this.panes();
    const tag = (text, x, y, shift) => {
      const element = document.createElement("span");
      element.className = "tag";
      element.textContent = text;
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
    const { context, canvas } = this;
    const density = canvas.width / Math.max(1, this.root.clientWidth);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    if (!this.frame) return;
    context.setTransform(density, 0, 0, density, 0, 0);
    for (const pane of this.panes()) {
      if (this.arrangement === "inset") {
        this.drawPicture(this.second, pane, 0, 1);
      } else if (this.arrangement === "wipe") {
        this.drawPicture(this.second, pane, this.wipe, 1);
        this.drawPicture(this.first, pane, 0, this.wipe);
      } else {
        this.drawPicture(pane.view ?? this.first, pane, 0, 1);
      }
      if (this.ring) this.drawRing(pane);
      if (this.arrangement === "inset") this.drawInset(this.insetPane(pane));
    }
  }

  // The inset lies in the lower corner that is farther from the gaze.
  insetPane({ x, y, w, h }) {
    const [width, height] = [INSET * w, INSET * h];
    const left = this.frame && this.frame.header.gaze[0] > 0.5;
    return { x: left ? x + 10 : x + w - width - 10, y: y + h - height - 10, w: width, h: height };
  }

  drawInset(pane) {
    const { x, y, w, h } = pane;
    this.context.fillStyle = "#000";
    this.context.fillRect(x, y, w, h);
    this.drawPicture(this.first, pane, 0, 1);
    this.context.setLineDash([]);
    this.context.lineWidth = 1;
    this.context.strokeStyle = "rgb(255 255 255 / .7)";
    this.context.strokeRect(x, y, w, h);
  }

  // The part of a picture from one fraction of its width to another.
  drawPicture(view, { x, y, w, h }, from, to) {
    const picture = this.frame.pictures[view];
    if (!picture || to <= from) return;
    this.context.save();
    this.context.beginPath();
    this.context.rect(x + from * w, y, (to - from) * w, h);
    this.context.clip();
    // A sampled pixel is a square; the low resolution is padded to whole pixels of four.
    this.context.imageSmoothingEnabled = view !== "samples";
    const [width, height] = this.frame.header.size;
    const grow = view === "samples" ? this.frame.header.scale : 1;
    this.context.drawImage(
      picture, x, y, (w * picture.width * grow) / width, (h * picture.height * grow) / height);
    this.context.restore();
  }

  drawRing({ x, y, w, h }) {
    const { gaze, inner, outer } = this.frame.header;
    const { context } = this;
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
    const look = (event) => {
      const box = root.getBoundingClientRect();
      const at = [event.clientX - box.left, event.clientY - box.top];
      const panes = this.panes();
      // The pane under the pointer, or the nearest one.
      const distance = (p) => Math.max(p.x - at[0], at[0] - p.x - p.w, p.y - at[1], at[1] - p.y - p.h);
      const pane = panes.reduce((best, p) => (distance(p) < distance(best) ? p : best));
      this.look([(at[0] - pane.x) / pane.w, (at[1] - pane.y) / pane.h], event.timeStamp);
    };
    root.addEventListener("pointermove", look);
    root.addEventListener("pointerdown", look);
    root.addEventListener("keydown", (event) => {
      const arrow = ARROWS[event.key];
      if (!arrow || event.target === handle || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      const step = event.shiftKey ? KEY_STEP_LARGE : KEY_STEP;
      const ratio = this.size[0] / this.size[1];
      this.look(
        [this.gaze[0] + step * arrow[0], this.gaze[1] + step * ratio * arrow[1]], event.timeStamp);
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

  moveWipe(to) {
    this.wipe = clamp(to);
    this.layout();
  }
}
