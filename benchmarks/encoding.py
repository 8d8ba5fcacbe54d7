"""Measures time, size and quality of x264's settings on frames that `stream` reconstructs.

python benchmarks/encoding.py VIDEO… [--json benchmarks/encoding.json]

The first 32 frames of each video are used, 768×1024, one clip after the other. Time is processor
time with one thread, the shortest of three runs. PSNR and SSIM (luma, windows of 8×8) compare the
decoded file with the frames: PSNR in YUV with the encoder's input, and in RGB with the frames from
which that input was converted.
"""

import argparse
import json
import tempfile
import time
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from av.video.reformatter import VideoReformatter

from deepfovea.files_to_files import to_tensor
from deepfovea.fovea import downsample
from deepfovea.images import to_image
from deepfovea.reconstructor import Reconstructor
from deepfovea.runtime.engine import load_engine
from deepfovea.video import VideoReader
from deepfovea.video.container import SWS_ACCURATE
from deepfovea.video.writer import X264

HEIGHT, WIDTH, FRAMES = 768, 1024, 32
MORE = {"x264-params": "cabac=1:deblock=0,0:8x8dct=1:partitions=i4x4,i8x8"}
SETTINGS = {
    "veryfast, crf 20": {"preset": "veryfast", "crf": "20"},
    "ultrafast, crf 20": {"preset": "ultrafast", "crf": "20"},
    "ours, crf 20": {**X264, "crf": "20"},
    "with more of H.264, crf 20": {**X264, **MORE, "crf": "20"},
}


def reconstructed(videos):
    model = load_engine("stream")
    for video in videos:
        with VideoReader(video) as reader:
            images = [to_tensor(frame.image[..., :3]) for frame in islice(reader, FRAMES)]
        frames = F.interpolate(torch.stack(images), (HEIGHT, WIDTH), mode="area")
        pairs = [(downsample(frame), (WIDTH / 8, HEIGHT / 8)) for frame in frames]
        yield from (to_image(result.frame) for result in Reconstructor(model).stream(pairs))


def to_yuv(images):
    convert = VideoReformatter()
    frames = [av.VideoFrame.from_ndarray(np.ascontiguousarray(i), "rgb24") for i in images]
    options = {"dst_colorspace": 5, "dst_color_range": 1, "interpolation": SWS_ACCURATE}
    return [convert.reformat(frame, format="yuv420p", **options) for frame in frames]


def encode(path, frames, options):
    started = time.process_time()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options=dict(options))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.thread_count = 1
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = number, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return time.process_time() - started


def decibels(errors):
    return float(10 * np.log10(255**2 / np.mean(errors)))


def ssim(a, b):
    a, b = (torch.from_numpy(x[:HEIGHT].astype(np.float32))[None] for x in (a, b))

    def mean(x):
        return F.avg_pool2d(x, 8, 4)

    ma, mb = mean(a), mean(b)
    va, vb, both = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    value = (2 * ma * mb + c1) * (2 * both + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    return float(value.mean())


def measure_quality(path, frames, images):
    yuv, rgb, likeness = [], [], []
    with av.open(str(path)) as container:
        for frame, given, image in zip(container.decode(video=0), frames, images, strict=True):
            ours, truth = frame.to_ndarray(), given.to_ndarray()
            yuv.append(np.square(ours.astype(np.float32) - truth).mean())
            shown = frame.to_ndarray(format="rgb24").astype(np.float32)
            rgb.append(np.square(shown - image).mean())
            likeness.append(ssim(ours, truth))
    return {
        "psnr_yuv": decibels(yuv),
        "psnr_yuv_worst_frame": decibels(max(yuv)),
        "psnr_rgb": decibels(rgb),
        "ssim": float(np.mean(likeness)),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    images = list(reconstructed(options.videos))
    frames = to_yuv(images)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "out.mp4")
        for setting, words in SETTINGS.items():
            taken = min(encode(path, frames, words) for _ in range(3))
            row = {
                "setting": setting,
                "core_ms_per_frame": 1e3 * taken / len(frames),
                "kb_per_frame": path.stat().st_size / 1e3 / len(frames),
                **measure_quality(path, frames, images),
            }
            rows.append(row)
            print("  ".join(f"{k} {v:.5g}" if isinstance(v, float) else v for k, v in row.items()))
    if options.json:
        about = {"videos": [video.stem for video in options.videos], "frames": len(frames)}
        options.json.write_text(
            json.dumps({**about, "rows": rows}, indent=2) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
