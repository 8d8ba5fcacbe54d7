// Sampling as in fovea.py, equal to the last bit: float32 (by Math.fround) and float64 as there, and
// uint32 that wrap around.

const f = Math.fround;

export const PUBLISHED = {
  center: 0.98, periphery: 0.15, inner: 20, outer: 40, unit: "px", budget: null,
};

// Parses a density as on the command line: published, budget:PERCENT, uniform:PERCENT or
// CENTRE,PERIPHERY,INNER,OUTER in low-resolution pixels, or in degrees if deg follows. Returns null
// for anything else.
export function parseDensity(text) {
  if (text === "published") return PUBLISHED;
  const [kind, percent] = text.split(":");
  const share = Number(percent) / 100;
  if (kind === "budget") return share > 0 && share <= 1 ? { ...PUBLISHED, budget: share } : null;
  if (kind === "uniform") {
    return share >= 0 && share <= 1 ? { ...PUBLISHED, center: share, periphery: share } : null;
  }
  const unit = text.endsWith("deg") ? "deg" : "px";
  const numbers = text.replace(/deg$/, "").split(",").map(Number);
  if (numbers.length !== 4 || !numbers.every(Number.isFinite)) return null;
  const [center, periphery, inner, outer] = numbers;
  const valid = 0 <= periphery && periphery <= center && center <= 1 && 0 <= inner && inner < outer;
  return valid ? { ...PUBLISHED, center, periphery, inner, outer, unit } : null;
}

// The probability of each low-resolution pixel, Float32Array [h, w]; gaze: low-resolution pixels;
// display: { fovDeg, width, height }, needed for radii in degrees.
export function densityMap(gaze, height, width, density, display = null) {
  const { center, periphery, inner, outer, unit, budget } = density;
  const distance = unit === "deg"
    ? eccentricityDeg(gaze, height, width, display) : eccentricityPx(gaze, height, width);
  const [far, width32] = [f(outer), f(outer - inner)];
  const [least, more] = [f(periphery), f(center - periphery)];
  const probability = distance.map((value) => {
    const ramp = Math.min(1, Math.max(0, f(f(far - value) / width32)));
    return least + f(more * ramp);
  });
  return budget === null ? probability : toBudget(probability, budget);
}

function eccentricityPx([gazeX, gazeY], height, width) {
  const result = new Float32Array(height * width);
  const [gx, gy] = [f(gazeX), f(gazeY)];
  for (let row = 0, at = 0; row < height; row++) {
    const y = f(row - gy);
    const yy = f(y * y);
    for (let column = 0; column < width; column++, at++) {
      const x = f(column - gx);
      result[at] = Math.sqrt(f(f(x * x) + yy));
    }
  }
  return result;
}

// A display of width × height pixels with so many pixels per degree at its centre.
export function display(width, height, pixelsPerDegree) {
  const distance = pixelsPerDegree / RADIAN;
  return { fovDeg: (2 * Math.atan(width / 2 / distance)) / RADIAN, width, height };
}

const RADIAN = Math.PI / 180; // of a degree

function eccentricityDeg([gazeX, gazeY], rows, columns, { fovDeg, width, height }) {
  const halfX = Math.tan((fovDeg * RADIAN) / 2);
  const halfY = (halfX * height) / width;
  const along = (place, half, side) => half * ((2 * place + 1) / side - 1);
  const [gx, gy] = [along(f(gazeX), halfX, columns), along(f(gazeY), halfY, rows)];
  const result = new Float32Array(rows * columns);
  for (let row = 0, at = 0; row < rows; row++) {
    const y = along(row, halfY, rows);
    for (let column = 0; column < columns; column++, at++) {
      const x = along(column, halfX, columns);
      const cross = Math.sqrt((gx - x) ** 2 + (gy - y) ** 2 + (gx * y - gy * x) ** 2);
      result[at] = Math.atan2(cross, 1 + gx * x + gy * y) / RADIAN;
    }
  }
  return result;
}

// Raises the profile to the power whose mean is the budget, by Newton's method as in fovea.py.
function toBudget(probability, budget) {
  const logs = Float64Array.from(probability, (p) => Math.log(Math.max(p, 1e-6)));
  const count = logs.length;
  let exponent = 0;
  for (let i = 0; i < 30; i++) {
    const power = logs.map((log) => Math.exp(exponent * log));
    let [excess, slope] = [0, 0];
    for (let at = 0; at < count; at++) {
      excess += power[at];
      slope += power[at] * logs[at];
    }
    excess = excess / count - budget;
    if (Math.abs(excess) < 1e-5) return Float32Array.from(power);
    exponent = Math.min(1e4, exponent - excess / Math.min(slope / count, -1e-12));
  }
  throw new RangeError(`a budget of ${+(100 * budget).toPrecision(6)} % is out of reach for this profile`);
}

// The hash function "lowbias32" of C. Wellons.
export function hash32(bits) {
  bits ^= bits >>> 16;
  bits = Math.imul(bits, 0x7feb352d);
  bits ^= bits >>> 15;
  bits = Math.imul(bits, 0x846ca68b);
  return (bits ^ (bits >>> 16)) >>> 0;
}

// Draws the mask of one frame, Float32Array [h, w] of 0 and 1. ranks: see readRanks; with null each
// pixel is drawn independently.
export function drawMask(probability, height, width, { seed = 0, frame = 0, ranks = null }) {
  const mask = new Float32Array(height * width);
  const key = hash32(seed | 0);
  if (ranks) {
    const { values, frames, side } = ranks;
    const cycle = Math.floor(frame / frames);
    const shift = hash32((key + cycle) | 0);
    const tile = (frame % frames) * side * side;
    for (let y = 0, at = 0; y < height; y++) {
      const row = tile + (((y + shift) >>> 0) % side) * side;
      for (let x = 0; x < width; x++, at++) {
        const rank = values[row + (((x + (shift >>> 8)) >>> 0) % side)];
        mask[at] = (rank + 0.5) / (side * side) < probability[at] ? 1 : 0;
      }
    }
    return mask;
  }
  const ofFrame = hash32((key + frame) | 0);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      mask[at] = hash32((ofFrame + (y << 16) + x) | 0) / 2 ** 32 < probability[at] ? 1 : 0;
    }
  }
  return mask;
}

// Reads the ranks of blue_noise.npy (uint16 [16, 64, 64]) from an ArrayBuffer.
export function readRanks(buffer) {
  const start = 10 + new DataView(buffer).getUint16(8, true); // the header of NumPy's format 1.0
  return { values: new Uint16Array(buffer.slice(start)), frames: 16, side: 64 };
}

const LEVELS = Float32Array.from({ length: 256 }, (_, level) => f(level / f(255)));

const QUAD = [[0, 0], [0.5, 0.5], [0.5, 0], [0, 0.5]];
const HALTON_LENGTH = 16;

// The offset [x, y] of a frame's sampling grid, low-resolution pixels; null for "none".
export function jitterOffset(kind, frame) {
  if (kind === "none") return null;
  if (kind === "quad") return QUAD[frame % 4];
  const number = 1 + (frame % HALTON_LENGTH);
  return [2, 3].map((base) => f(radicalInverse(number, base) - 0.5));
}

function radicalInverse(number, base) {
  let [value, share] = [0, 1];
  for (let rest = number; rest; rest = Math.floor(rest / base)) {
    share /= base;
    value += share * (rest % base);
  }
  return value;
}

// Downsamples RGBA bytes [4h, 4w] to Float32Array [3, h, w] as fovea.downsample does: the mean of the
// middle 2 × 2 pixels of each 4 × 4, or with an offset bilinear interpolation around the moved place.
export function downsample(rgba, height, width, offset = null) {
  return offset ? downsampleShifted(rgba, height, width, offset) : downsampleMiddle(rgba, height, width);
}

function downsampleMiddle(rgba, height, width) {
  const [h, w] = [height / 4, width / 4];
  const low = new Float32Array(3 * h * w);
  for (let channel = 0, at = 0; channel < 3; channel++) {
    for (let y = 0; y < h; y++) {
      for (let x = 0; x < w; x++, at++) {
        const i = 4 * ((4 * y + 1) * width + 4 * x + 1) + channel;
        const j = i + 4 * width;
        const top = f(LEVELS[rgba[i]] + LEVELS[rgba[i + 4]]);
        const bottom = f(LEVELS[rgba[j]] + LEVELS[rgba[j + 4]]);
        low[at] = 0.25 * f(top + bottom);
      }
    }
  }
  return low;
}

// For each low-resolution pixel along an axis: its two neighbours, and the weight of the second.
function neighbours(side, offset) {
  const places = Float64Array.from({ length: side / 4 }, (_, at) => (
    Math.min(side - 1, Math.max(0, 4 * (at + offset) + 1.5))));
  const first = Int32Array.from(places, Math.floor);
  return {
    first,
    second: first.map((at) => Math.min(side - 1, at + 1)),
    share: Float32Array.from(places, (place, at) => place - first[at]),
  };
}

const mix = (a, b, share) => f(a + f(share * f(b - a)));

function downsampleShifted(rgba, height, width, [offsetX, offsetY]) {
  const [rows, columns] = [neighbours(height, offsetY), neighbours(width, offsetX)];
  const [h, w] = [height / 4, width / 4];
  const low = new Float32Array(3 * h * w);
  for (let channel = 0, at = 0; channel < 3; channel++) {
    for (let y = 0; y < h; y++) {
      const top = 4 * rows.first[y] * width + channel;
      const bottom = 4 * rows.second[y] * width + channel;
      for (let x = 0; x < w; x++, at++) {
        const [left, right] = [4 * columns.first[x], 4 * columns.second[x]];
        const before = mix(LEVELS[rgba[top + left]], LEVELS[rgba[bottom + left]], rows.share[y]);
        const after = mix(LEVELS[rgba[top + right]], LEVELS[rgba[bottom + right]], rows.share[y]);
        low[at] = mix(before, after, columns.share[x]);
      }
    }
  }
  return low;
}

// Multiplies [3, h, w] by the mask.
export function applyMask(low, mask) {
  const samples = new Float32Array(low.length);
  for (let at = 0, pixel = 0; at < low.length; at++, pixel++) {
    if (pixel === mask.length) pixel = 0;
    samples[at] = low[at] * mask[pixel];
  }
  return samples;
}
