// Records the gaze: one row per frame of the video, as `deepfovea reconstruct --gaze` reads it.

export class Recorder {
  constructor() {
    this.rows = null; // from the video's seconds to the normalised gaze; null: not recording
  }

  start() {
    this.rows = new Map();
  }

  // Call it for every frame that is shown. If a frame is shown several times, the last gaze counts.
  add(header) {
    this.rows?.set(header.seconds, header.gaze);
  }

  // Returns the CSV, with positions in pixels of the video, origin at the centre of the top-left
  // pixel. Frames that were skipped get the gaze of the frame before, which was on the screen.
  stop(video) {
    const rows = [...this.rows].sort(([a], [b]) => a - b);
    this.rows = null;
    const interval = 1 / video.frame_rate;
    const lines = ["time,x_px,y_px"];
    rows.forEach(([seconds, [x, y]], i) => {
      const until = i + 1 < rows.length ? rows[i + 1][0] : seconds + 1.5 * interval;
      const count = Math.max(1, Math.round((until - seconds) / interval));
      for (let k = 0; k < count; k++) {
        const px = [x * video.width - 0.5, y * video.height - 0.5];
        const time = Math.min(seconds + k * interval, until - 0.002);
        lines.push([(k ? time : seconds).toFixed(6), ...px.map((v) => v.toFixed(3))].join(","));
      }
    });
    return rows.length ? `${lines.join("\n")}\n` : null;
  }
}

export function download(text, name, type = "text/csv") {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
