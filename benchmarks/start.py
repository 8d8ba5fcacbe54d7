"""Measures the time of `deepfovea --help` and the time until the first frame of a file.

python benchmarks/start.py [--json benchmarks/start.json]

The file is the demo video at 192×256, enlarged by four. The time runs from the command until the
first image is in the output folder: interpreter, imports, weights, decoding, sampling, network and
writing. Files are in the system's cache, as after a first use. The shortest of several runs counts,
as other programs can only make it longer. Needs the extra `demo`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline import write_source

ENGINES = ("torch", "onnxruntime", "openvino")
COMMAND = [sys.executable, "-m", "deepfovea"]


def help_seconds():
    started = time.perf_counter()
    subprocess.run([*COMMAND, "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def first_frame_seconds(video, engine):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = ["reconstruct", str(video), "-o", str(folder / "frames"), "--engine", engine]
        started = time.perf_counter()
        with subprocess.Popen([*COMMAND, *words], stdout=subprocess.DEVNULL) as command:
            while command.poll() is None:
                # It is written under a temporary name.
                if any(image.stat().st_size for image in folder.glob(".*/00000000.png")):
                    taken = time.perf_counter() - started
                    command.terminate()
                    return taken
                time.sleep(0.002)
    raise SystemExit(f"{engine}: the command ended before a frame was seen; give a longer video")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    times = {"--help": [], **{engine: [] for engine in ENGINES}}
    with tempfile.TemporaryDirectory() as name:
        video = Path(name, "source.mp4")
        write_source(video, 48, 192, 256)
        for _ in range(options.rounds):
            times["--help"].append(help_seconds())
            for engine in ENGINES:
                times[engine].append(first_frame_seconds(video, engine))
    best = {what: min(taken) for what, taken in times.items()}
    for what, seconds in best.items():
        print(f"{what}: {seconds:.2f} s")
    if options.json:
        about = {"help_seconds": best.pop("--help"), "first_frame_seconds": best}
        options.json.write_text(
            json.dumps({**about, "rounds": options.rounds}, indent=2) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
