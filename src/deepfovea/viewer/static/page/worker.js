// The worker in which the network runs: it receives frames and returns samples and reconstructions.

import { fillFrame } from "./fill.js";
import { load } from "./load.js";
import { SCALE } from "./network.js";
import { Runner } from "./runner.js";
import { applyMask, densityMap, downsample, drawMask, jitterOffset, readRanks } from "./sampling.js";
import { viewOfModel } from "./views.js";

const FILL_EVERY = 8; // frames between two measurements of pull-push, which takes time
const ERROR_GAIN = 4; // factor of the errors in their map, as in session.py

let runner = null;
const others = new Map(); // view -> the runner of a method that is shown beside
let ranks = null;
let framesSeen = 0; // frames since the last reset, which numbers the masks
const canvas = new OffscreenCanvas(1, 1);
const context = canvas.getContext("2d", { willReadFrequently: true });

// The network; or, where a view is named, a method to be shown beside it.
async function open({ model, view, threads, backend }) {
  ranks ??= readRanks(await (await load("blue_noise.npy")).arrayBuffer());
  const bytes = new Uint8Array(await (await load(model)).arrayBuffer());
  const opened = await Runner.open(bytes, { threads, backend });
  if (view) {
    others.set(view, opened);
    return;
  }
  await runner?.release();
  runner = opened;
  framesSeen = 0;
}

// The frame that another method makes of the same pixels: RGBA.
async function byOther(other, { data }, mask, height, width, jitter) {
  const told = other.takesJitter ? jitter : null;
  const [h, w] = [height / SCALE, width / SCALE];
  const samples = applyMask(downsample(data, height, width, told), mask);
  const frame = await other.step(samples, mask, h, w, told ?? undefined);
  return toImageData(frame.values, height, width, frame.height, frame.width);
}

// Converts a value in [0, 1] to a byte, rounded as in images.to_image.
const f = Math.fround;
const byte = (value) => {
  const level = f(f(255 * value) + 0.5);
  return level >= 255 ? 255 : level > 0 ? level | 0 : 0; // not Math.floor: this runs for each pixel
};

// Converts planes [3, rows, stride], of which [height, width] are the picture, to RGBA.
function toImageData(planes, height, width, rows, stride) {
  const pixels = new ImageData(width, height);
  const plane = rows * stride;
  for (let y = 0, at = 0; y < height; y++) {
    for (let i = y * stride; i < y * stride + width; i++, at += 4) {
      pixels.data[at] = byte(planes[i]);
      pixels.data[at + 1] = byte(planes[i + plane]);
      pixels.data[at + 2] = byte(planes[i + 2 * plane]);
      pixels.data[at + 3] = 255;
    }
  }
  return pixels;
}

// The difference of two pictures, times ERROR_GAIN.
function errorMap(shown, original) {
  const pixels = new ImageData(original.width, original.height);
  for (let i = 0; i < pixels.data.length; i++) {
    pixels.data[i] = i % 4 === 3 ? 255 : ERROR_GAIN * Math.abs(shown.data[i] - original.data[i]);
  }
  return pixels;
}

function psnr(pixels, original) {
  let sum = 0;
  for (let i = 0; i < pixels.length; i++) {
    const difference = pixels[i] - original[i];
    sum += difference * difference;
  }
  const mean = sum / (0.75 * pixels.length); // over R, G and B, as alpha is equal
  return 10 * Math.log10(255 ** 2 / Math.max(mean, 1e-10));
}

async function reconstruct(asked) {
  const { image, height, width, gaze, density, display, blueNoise, reset, views } = asked;
  const started = performance.now();
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  context.drawImage(image, 0, 0, width, height);
  image.close();
  const original = context.getImageData(0, 0, width, height);
  const [h, w] = [height / SCALE, width / SCALE];
  for (const [view, other] of others) {
    if (!views.includes(view) || view === viewOfModel(asked.model)) { // it begins anew when it is shown again
      others.delete(view);
      await other.release();
    }
  }
  if (reset) {
    for (const each of [runner, ...others.values()]) each.reset();
    framesSeen = 0;
  }
  const gazePx = [gaze[0] * w - 0.5, gaze[1] * h - 0.5];
  const drawn = { frame: framesSeen, ranks: blueNoise ? ranks : null };
  const jitter = jitterOffset(asked.jitter, framesSeen);
  const mask = drawMask(densityMap(gazePx, h, w, density, display), h, w, drawn);
  const samples = applyMask(downsample(original.data, height, width, jitter), mask);
  const sampledAt = performance.now();
  const { isComparing } = runner; // then two networks run, so the time does not count
  const frame = await runner.step(samples, mask, h, w, jitter ?? undefined);
  framesSeen++;
  const networkAt = performance.now();
  const shown = toImageData(frame.values, height, width, frame.height, frame.width);
  const header = {
    scale: SCALE,
    size: [width, height],
    jitter,
    sampled: mask.reduce((a, b) => a + b) / mask.length,
    psnr: psnr(shown.data, original.data),
    sampling_ms: sampledAt - started,
    network_ms: networkAt - sampledAt,
    backend: runner.name,
    note: runner.takeNote(),
    comparing: isComparing,
  };
  const pixels = { reconstruction: shown, [viewOfModel(asked.model)]: shown, original };
  header.psnr_of = {};
  for (const [view, other] of others) {
    pixels[view] = await byOther(other, original, mask, height, width, jitter);
    header.psnr_of[view] = psnr(pixels[view].data, original.data);
    header.note ??= other.takeNote();
  }
  const comparedAt = performance.now();
  header.compared_ms = others.size ? comparedAt - networkAt : 0;
  if (views.includes("filled") || framesSeen % FILL_EVERY === 1) {
    pixels.filled = toImageData(fillFrame(samples, mask, h, w, jitter), height, width, height, width);
    header.psnr_of.filled = psnr(pixels.filled.data, original.data);
  }
  if (views.includes("error")) pixels.error = errorMap(shown, original);
  if (views.includes("samples")) pixels.samples = toImageData(samples, h, w, h, w);
  const pictures = {};
  await Promise.all(views.map(async (view) => {
    pictures[view] = await createImageBitmap(pixels[view]);
  }));
  header.pictures_ms = performance.now() - comparedAt;
  return [{ header, pictures }, Object.values(pictures)];
}

self.onmessage = async ({ data }) => {
  try {
    if (data.open) {
      await open(data.open);
      self.postMessage({ opened: true });
    } else {
      const [message, transferred] = await reconstruct(data);
      self.postMessage(message, transferred);
    }
  } catch (error) {
    // A RangeError means an impossible density, not a failure of the network.
    const kind = error instanceof RangeError ? "refused" : "failed";
    self.postMessage({ [kind]: error.message });
  }
};
