// A video in the page: a file from the host, a file of the visitor's, or the camera. The visitor's
// pictures never leave this machine. A hidden <video> element decodes them.

const USUAL_RATE = 30; // frames per second, if the rate is not known
const RATES = [24, 25, 30, 48, 50, 60];
const MEASURE_MS = 400; // how long the frame rate of an unknown file is measured
const TAKE_TRIES = 100; // a busy browser may have no picture yet after it has opened a video
const TAKE_AGAIN_MS = 50; // between two tries, so that a video has five seconds in all

const OPEN_MS = 10_000; // a browser without the decoder may wait for ever, and report nothing
const LOOK_MS = 100; // between two looks whether a video is open

const once = (target, name) => new Promise((resolve, reject) => {
  target.addEventListener(name, resolve, { once: true });
  target.addEventListener("error", reject, { once: true });
});

// Whether this browser decodes H.264; Firefox and Chromium on Linux may lack it.
export function decodesH264() {
  return document.createElement("video").canPlayType('video/mp4; codecs="avc1.640028"') !== "";
}

// Waits for the first picture. Time in which the page is hidden does not count, as browsers may not
// load a video then.
async function firstPicture(video) {
  for (let waited = 0; video.readyState < 2;) {
    if (video.error) throw video.error;
    if (waited > OPEN_MS) throw new Error(`no picture in ${OPEN_MS / 1000} seconds`);
    await new Promise((resolve) => { setTimeout(resolve, LOOK_MS); });
    if (document.visibilityState === "visible") waited += LOOK_MS;
  }
}

export class Source {
  // blob: a video, or null for the camera; rate: frames per second, if known; onChange(): called when
  // there is another picture
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
      await firstPicture(video);
    } catch (error) {
      source.close();
      if (blob) throw new Error(`cannot be decoded by this browser; try ${decodesH264() ? "MP4 (H.264) or " : ""}WebM (VP9)`);
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

  // Measures at which rate pictures come, and takes the usual rate next to it.
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

  // Calls onChange for each new picture of the element.
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
    if (!this.live) this.video.pause(); // the camera goes on, as its pictures are always new
  }

  get ended() { return this.video.ended; }

  // Seek to the middle of the frame at a time, so that rounding does not give the frame before.
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
  async take() {
    this.fresh = false;
    for (let tries = 1; ; tries++) {
      try {
        return await createImageBitmap(this.video);
      } catch (error) {
        if (tries === TAKE_TRIES) throw new Error(`shows no picture (${error.message}); open it again`);
        await new Promise((resolve) => { setTimeout(resolve, TAKE_AGAIN_MS); });
      }
    }
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
