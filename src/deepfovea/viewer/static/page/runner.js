// Runs the network by WASM, or on the GPU by WebGPU. The first frames of the GPU are compared with
// those of WASM; if they differ, or the GPU fails, WASM is used instead.

import { Network } from "./network.js";

const RUNTIMES = { webgpu: "./runtime/ort.webgpu.min.mjs", wasm: "./runtime/ort.wasm.min.mjs" };
const COMPARED_FRAMES = 4;
const TOLERANCE = 1e-3; // largest difference of frames, whose values are about 0 to 1

const adapterOf = async (gpu) => (await gpu?.requestAdapter().catch(() => null)) ?? null;

// Where the network runs unless the visitor chooses: on the GPU that the browser offers, but not on a
// processor in place of a GPU, which is slower than WASM.
export async function usualBackend(gpu = globalThis.navigator?.gpu) {
  const adapter = await adapterOf(gpu);
  const isProcessor = adapter?.info?.isFallbackAdapter ?? adapter?.isFallbackAdapter ?? false;
  return adapter && !isProcessor ? "webgpu" : "wasm";
}

let ort = null;
let ortKind = null;

async function runtime(kind, threads) {
  if (ortKind !== "webgpu" && ortKind !== kind) { // that with WebGPU has WASM, too
    ort = await import(RUNTIMES[kind]);
    ortKind = kind;
  }
  ort.env.wasm.wasmPaths = new URL("./runtime/", import.meta.url).href;
  ort.env.wasm.numThreads = threads;
}

function largestDifference(a, b) {
  let largest = 0;
  for (let i = 0; i < a.length; i++) largest = Math.max(largest, Math.abs(a[i] - b[i]));
  return largest;
}

export class Runner {
  // model: the bytes of the file; backend: webgpu or wasm
  static async open(model, { backend, threads }) {
    const runner = new Runner();
    const onGpu = backend === "webgpu" && (await adapterOf(navigator.gpu)) !== null;
    await runtime(onGpu ? "webgpu" : "wasm", threads);
    Object.assign(runner, { backend, gpu: null, compared: 0, note: null });
    runner.wasm = await Network.open(ort, model);
    if (onGpu) await runner.openGpu(model);
    else if (backend === "webgpu") runner.leave("is not offered by this browser");
    return runner;
  }

  async openGpu(model) {
    try {
      this.gpu = await Network.open(ort, model, "webgpu");
      const device = await ort.env.webgpu.device;
      this.lost = device?.lost.then(({ message }) => { throw new Error(message || "the GPU was lost"); })
        ?? new Promise(() => {});
      this.lost.catch(() => {}); // step() reports it
    } catch (error) {
      this.leave(`cannot begin (${error.message})`);
    }
  }

  get name() { return this.gpu ? "WebGPU" : "WASM"; }

  get takesJitter() { return this.wasm.takesJitter; }

  get isComparing() { return this.gpu !== null && this.compared < COMPARED_FRAMES; }

  reset() {
    this.wasm.reset();
    this.gpu?.reset();
  }

  async release() {
    await this.gpu?.release();
    await this.wasm.release();
  }

  // As Network.step.
  async step(...given) {
    if (!this.gpu) return this.wasm.step(...given);
    let frame;
    try {
      frame = await Promise.race([this.gpu.step(...given), this.lost]);
    } catch (error) {
      if (!this.isComparing) this.wasm.reset(); // as it has no state of the frames before
      this.leave(`failed (${error.message})`);
      return this.wasm.step(...given);
    }
    if (!this.isComparing) return frame;
    const expected = await this.wasm.step(...given);
    this.compared += 1;
    const difference = largestDifference(frame.values, expected.values);
    if (!(difference < TOLERANCE)) {
      this.leave(`gives frames that differ from WASM's by ${difference.toPrecision(2)}`);
    }
    return this.gpu ? frame : expected;
  }

  leave(reason) {
    this.gpu = null;
    this.note = `WebGPU ${reason}. WASM goes on.`;
  }

  // Returns the note for the user, and clears it.
  takeNote() {
    const { note } = this;
    this.note = null;
    return note;
  }
}
