// Reads a recorded gaze, as track.js writes it, and follows it as gaze/track.py does: by the latest
// sample at or before a frame, which is held for a while; then the gaze returns to the centre.

// Seconds, as in gaze/track.py
const CLOCK_SLACK = 0.001;
const HOLD = 0.1;
const RETURN = 0.15;
const UNITS = {
  px: (value, side) => (value + 0.5) / side,
  norm: (value) => value,
};

// video: { width, height } in pixels. Throws an Error that says what was expected.
export function parseTrack(text, video) {
  const [names, ...lines] = text.split(/\r?\n/).filter((line) => line.trim());
  const unit = /^time,x_(px|norm),y_\1$/.exec(names?.trim())?.[1];
  if (!unit) {
    throw new Error("a gaze track: expected the columns time,x_px,y_px (or x_norm,y_norm), as this page "
      + "records them; deepfovea view reads more");
  }
  const rows = lines.map((line) => line.split(",").map(Number));
  if (!rows.length || !rows.every((row) => row.length === 3 && row.every(Number.isFinite))) {
    throw new Error("a gaze track: expected three numbers in every row");
  }
  rows.sort(([a], [b]) => a - b);
  const steps = rows.slice(1).map(([time], i) => time - rows[i][0]).sort((a, b) => a - b);
  const middle = steps.length >> 1;
  const median = steps.length % 2 ? steps[middle] : (steps[middle - 1] + steps[middle]) / 2;
  const toShare = UNITS[unit];
  return {
    rows: rows.map(([time, x, y]) => [time, toShare(x, video.width), toShare(y, video.height)]),
    hold: Math.max(HOLD, 1.5 * (median || 0)),
  };
}

// The gaze [x, y], 0 to 1 across the frame, at a time of the video.
export function gazeAt({ rows, hold }, seconds) {
  if (rows.length === 1) return rows[0].slice(1);
  const latest = rows.findLast(([time]) => time <= seconds + CLOCK_SLACK);
  if (!latest) return [0.5, 0.5];
  const [time, ...position] = latest;
  const back = Math.min(1, Math.max(0, (seconds - (time + hold)) / RETURN));
  return position.map((value) => value * (1 - back) + 0.5 * back);
}
