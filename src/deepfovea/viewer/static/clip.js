// Records what a canvas shows as a video file.

const BITS_PER_SECOND = 8e6;
const TYPES = ["video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/webm", "video/mp4"];

// Returns a MediaRecorder; after its stop(), onDone(blob, suffix) is called.
export function startClip(canvas, onDone) {
  const mimeType = TYPES.find((type) => MediaRecorder.isTypeSupported(type));
  const stream = canvas.captureStream();
  const recorder = new MediaRecorder(stream, { mimeType, videoBitsPerSecond: BITS_PER_SECOND });
  const parts = [];
  recorder.ondataavailable = ({ data }) => parts.push(data);
  recorder.onstop = () => {
    for (const track of stream.getTracks()) track.stop();
    const type = recorder.mimeType.split(";")[0];
    onDone(new Blob(parts, { type }), type.split("/")[1]);
  };
  recorder.start();
  return recorder;
}
