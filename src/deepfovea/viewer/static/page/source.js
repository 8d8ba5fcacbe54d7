// A video in the page: a file of the host, one of the visitor's own, or the camera, which never
// leaves this machine. Pictures are taken from a <video> element that nobody sees.

const USUAL_RATE = 30; // frames per second, where nothing says it
const RATES = [24, 25, 30, 48, 50, 60];
const MEASURE_MS = 400; // to find the frame rate of a file that nobody described

const once = (target, name) => new Promise((resolve, reject) => {
  target.addEventListener(name, resolve, { once: true });
  target.addEventListener("error", reject, { once: true });
});

export class Source {
  // blob: a video, null: the camera; rate: frames per second where it is known; onChange(): there
  // is another picture
  static async open({ blob, rate = null, onChange }) {
    const source = new Source();
    const video = Object.assign(document.createElement("video"), { muted: true, playsInline: true });
    Object.assign(source, { video, onChange, seconds: 0, fresh: true, live: !blob });
    try {
      if (blob) {
        source.address = video.src = URL.createObjectURL(blob);
        video.preload = "auto";
      } else {
        const wanted = { video: { width: { ideal: 1280 }, frameRate: { ideal: 30 } } };
        video.srcObject = await navigator.mediaDevices.getUserMedia(wanted);
        await video.play();
      }
      if (video.readyState < 2) await once(video, "loadeddata");
    } catch (error) {
      source.close();
      if (blob) throw new Error("cannot be decoded by this browser; try MP4 (H.264) or WebM");
      throw new Error(`no picture (${error.message}); connect one, and allow this page to use it`);
    }
    if (!video.videoWidth) {
      source.close();
      throw new Error("holds no pictures");
    }
    source.rate = rate ?? (blob ? await source.measureRate() : USUAL_RATE);
    source.watch();
    return source;
  }

  get duration() {
    return !this.live && Number.isFinite(this.video.duration) ? this.video.duration : null;
  }

  get width() { return this.video.videoWidth; }

  get height() { return this.video.videoHeight; }

  // The usual rate next to the one at which pictures come.
  async measureRate() {
    const { video } = this;
    if (!video.requestVideoFrameCallback) return USUAL_RATE;
    const times = [];
    const note = (_, { mediaTime }) => {
      times.push(mediaTime);
      video.requestVideoFrameCallback(note);
    };
    video.requestVideoFrameCallback(note);
    await video.play().catch(() => {});
    await new Promise((resolve) => { setTimeout(resolve, MEASURE_MS); });
    video.pause();
    await this.seek(0);
    const gaps = times.slice(1).map((time, i) => time - times[i]).filter((gap) => gap > 1e-3);
    if (!gaps.length) return USUAL_RATE;
    const measured = 1 / Math.min(...gaps);
    const near = RATES.reduce((a, b) => (Math.abs(b - measured) < Math.abs(a - measured) ? b : a));
    return Math.abs(near / measured - 1) < 0.05 ? near : measured;
  }

  // Notes each picture that the element comes to show.
  watch() {
    const { video } = this;
    const note = (seconds) => {
      if (this.closed) return;
      this.seconds = seconds;
      this.fresh = true;
      this.onChange();
    };
    if (video.requestVideoFrameCallback) {
      const again = (_, { mediaTime }) => {
        note(mediaTime);
        if (!this.closed) video.requestVideoFrameCallback(again);
      };
      video.requestVideoFrameCallback(again);
    } else {
      const again = () => {
        if (video.currentTime !== this.seconds) note(video.currentTime);
        if (!this.closed) requestAnimationFrame(again);
      };
      again();
    }
    video.addEventListener("ended", () => this.onChange());
  }

  async play(speed) {
    this.video.playbackRate = speed;
    if (this.video.ended) this.video.currentTime = 0;
    if (this.video.paused) await this.video.play().catch(() => {});
  }

  pause() {
    if (!this.live) this.video.pause(); // the camera goes on: there is no other picture of it
  }

  get ended() { return this.video.ended; }

  // Show the frame at a time; at its middle, so that rounding does not show the one before.
  async seek(seconds) {
    if (this.live) return;
    const { video } = this;
    const number = Math.round(Math.max(0, seconds) * (this.rate ?? USUAL_RATE));
    const last = Math.max(0, (this.duration ?? Infinity) - 0.25 / (this.rate ?? USUAL_RATE));
    const to = Math.min((number + 0.5) / (this.rate ?? USUAL_RATE), last);
    if (Math.abs(video.currentTime - to) > 1e-4) {
      video.currentTime = to;
      await once(video, "seeked");
    }
    this.seconds = number / (this.rate ?? USUAL_RATE);
    this.fresh = true;
  }

  // Go to the next frame; false at the end.
  async step() {
    const next = this.frame + 1;
    if (this.live) return true;
    if (this.duration !== null && (next + 0.5) / this.rate > this.duration) return false;
    await this.seek(next / this.rate);
    return true;
  }

  get frame() { return Math.round(this.seconds * this.rate); }

  // The picture that is shown now.
  take() {
    this.fresh = false;
    return createImageBitmap(this.video);
  }

  close() {
    this.closed = true;
    this.video.pause();
    for (const track of this.video.srcObject?.getTracks() ?? []) track.stop();
    this.video.removeAttribute("src");
    this.video.srcObject = null;
    if (this.address) URL.revokeObjectURL(this.address);
  }
}
