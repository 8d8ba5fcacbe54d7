"""Makes a corpus of broken, odd and hostile media."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import media  # tests/media.py
import numpy as np
from PIL import Image

COUNT, HEIGHT, WIDTH = 12, 48, 64
CODECS = {
    ".mp4": {},
    ".mov": {},
    ".mkv": {},
    ".avi": {"options": {"bf": "0"}},
    ".webm": {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "deadline": "realtime"}},
}


class Case(NamedTuple):
    """``must``: the kind of outcome that is right; None if success and refusal both are."""

    group: str
    name: str
    path: Path
    must: str | None = None


def corpus(folder: Path, *, large: bool = True) -> Iterator[Case]:
    """Write the files and folders below ``folder``; with ``large`` also those in 8K."""
    same = {"fflags": "+bitexact"}  # without random numbers inside
    good = {
        suffix: media.write_video(folder / f"good{suffix}", images(), container_options=same, **how)
        for suffix, how in CODECS.items()
    }
    good[".mp4 with sound"] = media.write_clapper(folder / "sound.mp4", clap=0.3, seconds=0.6)
    png = folder / "good.png"
    Image.fromarray(images()[0]).save(png)
    jpeg = folder / "good.jpg"
    Image.fromarray(images()[0]).save(jpeg)
    good |= {".png": png, ".jpg": jpeg}
    for kind, path in good.items():
        yield Case("undamaged", kind, path, "success")
    for kind, path in good.items():
        yield from damaged(folder, kind, path)
    for kind in (".mp4", ".mkv", ".webm", ".avi"):
        for suffix in (".mp4", ".avi", ".webm", ".ts", ".gif", ".png"):
            wrong = folder / f"{kind[1:]}-named{suffix}"
            shutil.copyfile(good[kind], wrong)
            yield Case("wrong suffix", f"{kind} named {suffix}", wrong)
    yield from nothing_in_it(folder, good)
    yield from odd(folder)
    yield from hostile(folder, good)
    if large:
        frames = media.moving(2, 4320, 7680)
        path = media.write_video(folder / "8k.mp4", frames, options={"preset": "ultrafast"})
        yield Case("8K", "7680x4320", path)


def images(count: int = COUNT, height: int = HEIGHT, width: int = WIDTH) -> list[np.ndarray]:
    return media.moving(count, height, width)


def damaged(folder: Path, kind: str, path: Path) -> Iterator[Case]:
    whole = path.read_bytes()
    random = np.random.default_rng(zlib.crc32(kind.encode()))

    def write(name: str, data: bytes) -> Path:
        made = folder / f"{path.stem}-{path.suffix[1:]}-{name}{path.suffix}"
        made.write_bytes(data)
        return made

    for tenth in range(1, 10):
        cut = write(f"cut{tenth}", whole[: tenth * len(whole) // 10])
        yield Case("truncated at a tenth", f"{kind} {tenth}/10", cut)
    for number, count in enumerate((1, 1, 1, 4, 4, 16, 16, 64, 64, 256)):
        data = np.frombuffer(whole, np.uint8).copy()
        at = random.integers(0, len(data), count)
        data[at] ^= random.integers(1, 256, count).astype(np.uint8)
        yield Case("flipped bytes", f"{kind} {count} bytes", write(f"flip{number}", data.tobytes()))
    third = len(whole) // 3
    blank = whole[:third] + bytes(third) + whole[2 * third :]
    yield Case("corrupt middle", f"{kind} zeros", write("zeros", blank))
    noise = whole[:third] + random.bytes(third) + whole[2 * third :]
    yield Case("corrupt middle", f"{kind} noise", write("noise", noise))
    yield Case(
        "corrupt middle", f"{kind} cut out", write("hole", whole[:third] + whole[2 * third :])
    )
    yield Case("corrupt start", f"{kind} zeros", write("head", bytes(64) + whole[64:]))
    yield Case("corrupt start", f"{kind} behind noise", write("late", random.bytes(1000) + whole))


def nothing_in_it(folder: Path, good: dict[str, Path]) -> Iterator[Case]:
    for suffix in CODECS:
        empty = folder / f"empty{suffix}"
        empty.touch()
        yield Case("nothing in it", f"no byte, {suffix}", empty, "refused")
        text = folder / f"text{suffix}"
        text.write_text("this is not a video\n" * 200, encoding="utf-8")
        yield Case("nothing in it", f"text, {suffix}", text, "refused")
        noise = folder / f"noise{suffix}"
        noise.write_bytes(np.random.default_rng(1).bytes(20_000))
        yield Case("nothing in it", f"noise, {suffix}", noise)
    for suffix in (".mkv", ".avi", ".mov"):
        path = folder / f"no-frames{suffix}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            container.start_encoding()
        yield Case("nothing in it", f"zero frames, {suffix}", path, "refused")
    for suffix, codec in ((".m4a", "aac"), (".mkv", "aac"), (".wav", "pcm_s16le")):
        path = folder / f"sound-only{suffix}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=48000, layout="mono")
            for number in range(10):
                block = np.zeros((1, 1024), np.int16)
                frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
                frame.sample_rate, frame.pts = 48000, 1024 * number
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        yield Case("nothing in it", f"sound only, {suffix}", path, "refused")
    folders = {"empty folder": [], "folder of text": [("a.txt", b"x")]}
    folders["folder of broken images"] = [(f"{n}.png", b"\x89PNG\r\n\x1a\n") for n in range(3)]
    for name, files in folders.items():
        path = folder / name.replace(" ", "-")
        path.mkdir()
        for file, data in files:
            (path / file).write_bytes(data)
        yield Case("nothing in it", name, path, "refused")


def odd(folder: Path) -> Iterator[Case]:
    """Write unusual but correct files, which must be read, or refused if they cannot be used."""
    write = media.write_video
    lossless = {"codec": "png", "pix_fmt": "rgb24"}
    one = write(folder / "one.mp4", images(1))
    yield Case("odd but sound", "one frame", one, "success")
    for height, width in ((1, 1), (1, 64), (48, 1), (3, 5), (47, 63), (2, 2), (17, 16)):
        name = f"{width}x{height}"
        path = write(folder / f"size-{name}.mov", images(3, height, width), **lossless)
        yield Case("odd but sound", name, path, "success")
        path = folder / f"size-{name}.png"
        Image.fromarray(images(1, height, width)[0]).save(path)
        yield Case("odd but sound", f"{name} PNG", path, "success")
    long = write(folder / "long.mov", images(2, 8, 4096), **lossless)
    yield Case("odd but sound", "4096x8", long, "success")
    formats = [("libx264", "yuv420p10le"), ("libx264", "yuv422p"), ("libx264", "yuv444p")]
    formats += [
        ("libx264", "gray"),
        ("ffv1", "gray"),
        ("ffv1", "gray16le"),
        ("ffv1", "yuv420p16le"),
    ]
    formats += [("ffv1", "bgra"), ("ffv1", "gbrp12le"), ("mjpeg", "yuvj420p")]
    formats += [("mpeg4", "yuv420p"), ("mpeg2video", "yuv420p")]
    for codec, pixels in formats:
        path = write(folder / f"{codec}-{pixels}.mkv", images(4), codec=codec, pix_fmt=pixels)
        alpha = pixels in ("bgra", "rgba")
        kind = "refused" if alpha else "success"  # --simulate refuses images with alpha
        yield Case("odd but sound", f"{codec} {pixels}", path, kind)
    for rate in (Fraction(1, 10), 1, Fraction(24000, 1001), 240, 1000):
        path = write(folder / f"rate-{float(rate):.3f}.mkv", images(4), rate=rate)
        yield Case("odd but sound", f"{float(rate):g} frames per second", path, "success")
    for degrees in (90, 180, 270, 45):
        path = write(folder / f"turned{degrees}.mp4", images(3), rotation=(degrees, degrees == 270))
        yield Case("odd but sound", f"rotated by {degrees}", path, "success")
    path = folder / "variable.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1000, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for image, ticks in zip(images(8), (0, 1, 2, 900, 901, 5000, 5001, 60_000), strict=False):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = ticks, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    yield Case("odd but sound", "variable rate, 1 ms to 55 s", path, "success")
    path = folder / "changes-size"
    path.mkdir()
    for number, size in enumerate(((48, 64), (48, 64), (32, 32))):
        Image.fromarray(images(1, *size)[0]).save(path / f"{number}.png")
    yield Case("odd but sound", "images of two sizes", path, "refused")
    raw = write(folder / "raw.h264", images(4))
    yield Case("odd but sound", "no container", raw, "success")


def hostile(folder: Path, good: dict[str, Path]) -> Iterator[Case]:
    for side in (2**15, 2**16, 2**31 - 1):
        path = folder / f"bomb{side}.png"
        path.write_bytes(png_of(side, side))
        yield Case("hostile", f"PNG that says {side}x{side}", path, "refused")
    lists = {
        "playlist of files": "#EXTM3U\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n",
        "playlist of hosts": "#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
        "list of files": "ffconcat version 1.0\nfile /etc/passwd\n",
        "session description": "v=0\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
        "DASH": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
        "<Period><AdaptationSet><Representation id='1'><BaseURL>http://127.0.0.1:9/a</BaseURL>"
        "</Representation></AdaptationSet></Period></MPD>",
    }
    for number, (name, text) in enumerate(lists.items()):
        for suffix in (".mp4", ".m3u8", ".sdp", ".mpd"):
            path = folder / f"list{number}{suffix}"
            path.write_text(text, encoding="utf-8")
            yield Case("hostile", f"{name} as {suffix}", path, "refused")
    pipe = folder / "pipe.mp4"
    os.mkfifo(pipe)
    yield Case("hostile", "a pipe that nobody writes", pipe, "refused")
    loop = folder / "loop.mp4"
    loop.symlink_to(loop)
    yield Case("hostile", "a link to itself", loop, "refused")
    for name in ("/dev/zero", "/dev/null", "/dev/stdin", "/proc/self/mem", "/", "/nonsuch.mp4"):
        yield Case("hostile", name, Path(name), "refused")
    named = folder / os.fsdecode(b"caf\xe9 [red] \x1b[31m\n.mp4")
    shutil.copyfile(good[".mp4"], named)
    yield Case("hostile", "a name that is no text", named, "success")
    huge = bytearray(good[".mp4"].read_bytes())
    at = huge.index(b"tkhd") + 4 + 76
    huge[at : at + 8] = struct.pack(">II", 0x7FFF0000, 0x7FFF0000)
    path = folder / "huge-track.mp4"
    path.write_bytes(huge)
    yield Case("hostile", "MP4 that says 32767x32767", path)
    box = folder / "endless-box.mp4"
    box.write_bytes(good[".mp4"].read_bytes()[:32] + struct.pack(">I4sQ", 1, b"moov", 2**63 - 1))
    yield Case("hostile", "MP4 with a box of 2^63 bytes", box, "refused")


def png_of(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header states this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body
