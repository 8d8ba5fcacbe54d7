// Runs a generator that `deepfovea page` has exported, by ONNX Runtime: one step per call. It keeps
// the state from step to step.

const MULTIPLE = 8; // the sides of the network's input must be multiples of it
export const SCALE = 4;

// The length of an axis, which is a number or a name such as height, width_x2 or height_half.
function sideOf(axis, height, width) {
  if (typeof axis === "number") return axis;
  if (axis === "batch") return 1;
  const [name, factor = "x1"] = axis.split("_");
  const share = factor === "half" ? 0.5 : Number(factor.slice(1)) ** (factor[0] === "d" ? -1 : 1);
  return share * (name === "height" ? height : width);
}

const padded = (side) => Math.ceil(side / MULTIPLE) * MULTIPLE;

// Pads planes [n, h, w] with zeros at the right and at the bottom.
function pad(planes, h, w, height, width) {
  if (h === height && w === width) return planes;
  const result = new Float32Array((planes.length / (h * w)) * height * width);
  for (let row = 0; row < planes.length / w; row++) {
    const at = Math.floor(row / h) * height + (row % h);
    result.set(planes.subarray(row * w, (row + 1) * w), at * width);
  }
  return result;
}

export class Network {
  // ort: the module of ONNX Runtime; model: the bytes of the file; provider: wasm, or webgpu if the
  // module has it
  static async open(ort, model, provider = "wasm") {
    const network = new Network();
    network.ort = ort;
    // The graph was optimized when the page was built: doing it here would take seconds.
    network.session = await ort.InferenceSession.create(model, {
      executionProviders: [provider], graphOptimizationLevel: "disabled", logSeverityLevel: 3,
    });
    network.takesJitter = network.session.inputNames.includes("jitter");
    network.reset();
    return network;
  }

  // Forget all earlier frames.
  reset() {
    for (const tensor of Object.values(this.state ?? {})) tensor.dispose();
    this.state = null;
  }

  release() {
    this.reset();
    return this.session.release();
  }

  emptyState(height, width) {
    const state = {};
    for (const { name, shape } of this.session.inputMetadata) {
      if (!name.startsWith("state_")) continue;
      const dims = shape.map((axis) => sideOf(axis, height, width));
      const values = new Float32Array(dims.reduce((a, b) => a * b));
      state[name] = new this.ort.Tensor("float32", values, dims);
    }
    return state;
  }

  // Reconstructs a frame from samples [3, h, w], mask [h, w] and the jitter. Returns { values [3, height,
  // width], height, width }, of which the part of 4h × 4w is the picture.
  async step(samples, mask, h, w, jitter = [0, 0]) {
    const [height, width] = [padded(h), padded(w)];
    if (this.size !== `${height}x${width}`) this.reset();
    this.size = `${height}x${width}`;
    const { Tensor } = this.ort;
    const feeds = {
      samples: new Tensor("float32", pad(samples, h, w, height, width), [1, 3, height, width]),
      mask: new Tensor("float32", pad(mask, h, w, height, width), [1, 1, height, width]),
      ...(this.takesJitter ? { jitter: new Tensor("float32", Float32Array.from(jitter), [1, 2]) } : {}),
      ...(this.state ?? this.emptyState(height, width)),
    };
    const outputs = await this.session.run(feeds);
    this.reset();
    this.state = {};
    for (const [name, tensor] of Object.entries(outputs)) {
      if (name.startsWith("next_")) this.state[`state_${name.slice(5)}`] = tensor;
    }
    return { values: await outputs.frame.getData(true), height: SCALE * height, width: SCALE * width };
  }
}
