// Fills holes without a network, then upsamples by four (bicubic): the page compares the reconstruction
// with it. The result equals fill.pull_push and torch's bicubic interpolation within 1e-5.

// From samples [3, h, w] and mask [h, w] to colours [3, h, w], by ever coarser averages.
function pullPush(samples, mask, h, w) {
  const values = new Float32Array(4 * h * w); // three colours and their weight
  values.set(samples);
  values.set(mask, 3 * h * w);
  const pyramid = [];
  let level = { values, h, w };
  while (Math.max(level.h, level.w) > 1) {
    pyramid.push(level);
    level = coarser(level);
  }
  let filled = level;
  normalise(filled, 1e-6);
  for (const fine of pyramid.reverse()) filled = finer(filled, fine);
  return filled.values.subarray(0, 3 * h * w);
}

// Divides the colours and the weight by the weight, which is at least `least`.
function normalise({ values, h, w }, least) {
  const size = h * w;
  for (let at = 0; at < size; at++) {
    const total = Math.max(values[at + 3 * size], least);
    for (let c = 0; c < 4; c++) values[at + c * size] /= total;
  }
}

// Sums of 2 × 2 pixels; a coarse pixel is fully known if it contains one known fine pixel.
function coarser({ values, h, w }) {
  const level = { h: (h + 1) >> 1, w: (w + 1) >> 1 };
  level.values = new Float32Array(4 * level.h * level.w);
  for (let c = 0; c < 4; c++) {
    for (let y = 0; y < h; y++) {
      const to = (c * level.h + (y >> 1)) * level.w;
      for (let x = 0; x < w; x++) level.values[to + (x >> 1)] += values[(c * h + y) * w + x];
    }
  }
  normalise(level, 1);
  return level;
}

// For each pixel of a level along an axis: two pixels of the coarser level, and the weight of the second.
function halfway(side, coarse) {
  return Array.from({ length: side }, (_, at) => {
    const place = Math.max(0, (at + 0.5) / 2 - 0.5);
    const first = Math.min(coarse - 1, Math.floor(place));
    return [first, Math.min(coarse - 1, first + 1), place - first];
  });
}

// Fills the holes of a fine level from the coarse one.
function finer(coarse, { values, h, w }) {
  const [rows, columns] = [halfway(h, coarse.h), halfway(w, coarse.w)];
  const [size, known] = [h * w, 3 * h * w];
  for (let c = 0; c < 3; c++) {
    for (let y = 0, at = 0; y < h; y++) {
      const [top, bottom, down] = rows[y];
      const [i, j] = [(c * coarse.h + top) * coarse.w, (c * coarse.h + bottom) * coarse.w];
      for (let x = 0; x < w; x++, at++) {
        const hole = 1 - values[known + at];
        if (hole === 0) continue;
        const [left, right, along] = columns[x];
        const above = coarse.values[i + left] * (1 - along) + coarse.values[i + right] * along;
        const below = coarse.values[j + left] * (1 - along) + coarse.values[j + right] * along;
        values[c * size + at] += hole * (above * (1 - down) + below * down);
      }
    }
  }
  return { values, h, w };
}

const A = -0.75; // the free parameter of cubic convolution (Keys 1981), as in PyTorch
const near = (t) => ((A + 2) * t - (A + 3)) * t * t + 1;
const far = (t) => ((A * t - 5 * A) * t + 8 * A) * t - 4 * A;

// For each of the 4 · side output pixels along an axis: four neighbours and their weights.
function cubic(side, offset) {
  return Array.from({ length: 4 * side }, (_, at) => {
    const place = (at + 0.5) / 4 - 0.5 - offset;
    const first = Math.floor(place);
    const t = place - first;
    const clamp = (value) => Math.min(side - 1, Math.max(0, value));
    return [
      [first - 1, first, first + 1, first + 2].map(clamp),
      [far(1 + t), near(t), near(1 - t), far(2 - t)],
    ];
  });
}

// From samples [3, h, w] and mask [h, w], on a grid with the offset [x, y], to a frame [3, 4h, 4w] in
// [0, 1].
export function fillFrame(samples, mask, h, w, offset = null) {
  const low = pullPush(samples, mask, h, w);
  const [rows, columns] = [cubic(h, offset?.[1] ?? 0), cubic(w, offset?.[0] ?? 0)];
  const wide = new Float32Array(3 * h * 4 * w);
  for (let row = 0, at = 0; row < 3 * h; row++) {
    const start = row * w;
    for (const [[a, b, c, d], [p, q, r, s]] of columns) {
      wide[at++] = p * low[start + a] + q * low[start + b] + r * low[start + c] + s * low[start + d];
    }
  }
  const width = 4 * w;
  const frame = new Float32Array(3 * 4 * h * width);
  for (let plane = 0, at = 0; plane < 3; plane++) {
    for (const [places, [p, q, r, s]] of rows) {
      const [a, b, c, d] = places.map((y) => (plane * h + y) * width);
      for (let x = 0; x < width; x++, at++) {
        const value = p * wide[a + x] + q * wide[b + x] + r * wide[c + x] + s * wide[d + x];
        frame[at] = Math.min(1, Math.max(0, value));
      }
    }
  }
  return frame;
}
