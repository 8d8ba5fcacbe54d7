// Sampling as in fovea.py, bit for bit: float32 where NumPy computes in float32 (Math.fround),
// float64 where it compares in float64, uint32 that wrap around.

const f = Math.fround;

export const PUBLISHED = { center: 0.98, periphery: 0.15, inner: 20, outer: 40 };

// A density as on the command line: published, uniform:PERCENT or CENTRE,PERIPHERY,INNER,OUTER in
// low-resolution pixels. Budgets and degrees are not known here: null.
export function parseDensity(text) {
  if (text === "published") return PUBLISHED;
  if (text.startsWith("uniform:")) {
    const share = Number(text.slice(8)) / 100;
    return share >= 0 && share <= 1 ? { ...PUBLISHED, center: share, periphery: share } : null;
  }
  const numbers = text.split(",").map(Number);
  if (numbers.length !== 4 || !numbers.every(Number.isFinite)) return null;
  const [center, periphery, inner, outer] = numbers;
  const valid = 0 <= periphery && periphery <= center && center <= 1 && 0 <= inner && inner < outer;
  return valid ? { center, periphery, inner, outer } : null;
}

// The probability of each low-resolution pixel, Float32Array [h, w]; gaze: low-resolution pixels.
export function densityMap([gazeX, gazeY], height, width, { center, periphery, inner, outer }) {
  const result = new Float32Array(height * width);
  const [gx, gy, far, width32] = [f(gazeX), f(gazeY), f(outer), f(outer - inner)];
  const [least, more] = [f(periphery), f(center - periphery)];
  for (let row = 0, at = 0; row < height; row++) {
    const y = f(row - gy);
    const yy = f(y * y);
    for (let column = 0; column < width; column++, at++) {
      const x = f(column - gx);
      const distance = f(Math.sqrt(f(f(x * x) + yy)));
      const ramp = Math.min(1, Math.max(0, f(f(far - distance) / width32)));
      result[at] = f(least + f(more * ramp));
    }
  }
  return result;
}

// "lowbias32" of C. Wellons.
export function hash32(bits) {
  bits ^= bits >>> 16;
  bits = Math.imul(bits, 0x7feb352d);
  bits ^= bits >>> 15;
  bits = Math.imul(bits, 0x846ca68b);
  return (bits ^ (bits >>> 16)) >>> 0;
}

// The mask of one frame, Float32Array [h, w] of 0 and 1. ranks: see readRanks; null draws each
// pixel independently.
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

// The ranks of blue_noise.npy (uint16 [16, 64, 64]), an ArrayBuffer.
export function readRanks(buffer) {
  const start = 10 + new DataView(buffer).getUint16(8, true); // the header of NumPy's format 1.0
  return { values: new Uint16Array(buffer.slice(start)), frames: 16, side: 64 };
}

const LEVELS = Float32Array.from({ length: 256 }, (_, level) => f(level / f(255)));

// RGBA bytes [4h, 4w] to the low resolution, Float32Array [3, h, w]: the mean of the middle 2 × 2
// pixels of each 4 × 4, as fovea.downsample takes it.
export function downsample(rgba, height, width) {
  const [h, w] = [height / 4, width / 4];
  const low = new Float32Array(3 * h * w);
  for (let channel = 0, at = 0; channel < 3; channel++) {
    for (let y = 0; y < h; y++) {
      for (let x = 0; x < w; x++, at++) {
        const i = 4 * ((4 * y + 1) * width + 4 * x + 1) + channel;
        const above = f(0.5 * LEVELS[rgba[i]] + 0.5 * LEVELS[rgba[i + 4]]);
        const j = i + 4 * width;
        const below = f(0.5 * LEVELS[rgba[j]] + 0.5 * LEVELS[rgba[j + 4]]);
        low[at] = f(0.5 * above + 0.5 * below);
      }
    }
  }
  return low;
}

// What the mask keeps of [3, h, w].
export function applyMask(low, mask) {
  return low.map((value, at) => value * mask[at % mask.length]);
}
