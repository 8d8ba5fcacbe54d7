"""Makes a pack of frames for training on a machine without PyAV and without the videos.

python benchmarks/pack.py FOLDER… -o pack --megabytes 40 [--photos FOLDER]
"""

import argparse
import json
import os
import shutil
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageOps

from deepfovea.training.dataset import find_photos
from deepfovea.video import VideoReader, find_videos

WIDTH, FRAMES, PHOTO_SIDE = 854, 96, 768
"""Upper limits: a video's width in pixels, its frames, a photograph's longer side in pixels."""
COARSEST = 40
"""The largest rate factor (crf) that is tried: beyond it frames are too blurred for training. Our
choice."""


def read(path, count):
    """Read the first frames at their size or smaller, with even sides: uint8 arrays, frame rate."""
    frames = []
    with VideoReader(path, skip_unreadable=True) as reader:
        for frame in reader:
            image = Image.fromarray(np.ascontiguousarray(frame.image[..., :3]))
            factor = min(1.0, WIDTH / image.width)
            size = [max(2, round(side * factor) // 2 * 2) for side in image.size]
            frames.append(np.asarray(image.resize(size, Image.Resampling.LANCZOS)))
            if len(frames) == count:
                break
        return frames, reader.frame_rate


def encode(frames, rate, path, crf):
    """H.264, yuv420p, limited range BT.709, tagged so; no sound."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": "fast"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = 1
        context.color_range = 1
        for image in frames:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            out.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace="ITU709")))
        out.mux(stream.encode())


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--megabytes", type=float, default=40.0)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--crf", type=int, default=23, help="the finest to try")
    args = parser.parse_args(arguments)
    limit = args.megabytes * 1e6
    if args.out.exists():
        parser.error(f"{args.out}: exists; remove it or give another folder")
    part = args.out.with_name(f"{args.out.name}.part-{os.getpid()}")
    (part / "videos").mkdir(parents=True)
    try:
        photos = []
        for number, path in enumerate(find_photos(args.photos) if args.photos else []):
            with Image.open(path) as picture:
                image = ImageOps.exif_transpose(picture).convert("RGB")
            image.thumbnail((PHOTO_SIDE, PHOTO_SIDE), Image.Resampling.LANCZOS)
            name = f"photos/{number:05d}.jpg"
            (part / "photos").mkdir(exist_ok=True)
            image.save(part / name, quality=88)
            photos.append({"file": name, "name": path.name, "size": [image.height, image.width]})
        used = sum((part / photo["file"]).stat().st_size for photo in photos)
        if used > limit / 2:
            parser.error(f"--photos: they take {used / 1e6:.1f} MB, more than half of the pack")
        paths = [path for folder in args.folders for path in find_videos(folder)]
        share = (limit - used) * 0.98 / len(paths)
        spare, videos = 0.0, []
        for number, path in enumerate(paths):
            frames, rate = read(path, args.frames)
            file = part / f"videos/{number:05d}.mp4"
            # What a video does not use of its share is left to the later ones.
            for crf in range(args.crf, COARSEST + 1, 3):
                encode(frames, rate, file, crf)
                if file.stat().st_size <= share + spare:
                    break
            else:
                file.unlink()
                print(f"{path}: left out, too large at crf {COARSEST}")
                continue
            spare += share - file.stat().st_size
            about = {"file": f"videos/{file.name}", "name": path.name, "crf": crf}
            size = list(frames[0].shape[:2])
            videos.append(about | {"size": size, "frames": len(frames), "rate": float(rate)})
        manifest = {"videos": videos, "photos": photos}
        (part / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        part.rename(args.out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    total = sum(file.stat().st_size for file in args.out.rglob("*") if file.is_file())
    print(f"{args.out}: {len(videos)} videos, {len(photos)} photographs, {total / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
