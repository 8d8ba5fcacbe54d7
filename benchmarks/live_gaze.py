"""Measures the time from a tracker's packet to the frame made with it, and counts lost samples.

python benchmarks/live_gaze.py [--minutes 10] [--rate 1000] [--engine auto] [--size 192x256]

Another process sends JSON over UDP on this machine. Meanwhile frames are reconstructed one after
the other, each with the newest sample. Printed as JSON: samples sent, received and lost; growth of
this process's memory after the first tenth; milliseconds (median, 95th percentile) from sending to
arrival, from arrival to the begin of the frame made with the sample, and of the frame itself. Both
processes read the same clock (Linux: CLOCK_MONOTONIC). Leave the machine alone while it runs.
"""

import argparse
import json
import multiprocessing
import socket
import time
from pathlib import Path

import numpy as np

import deepfovea

CPU_PAGE = 4096  # bytes, the unit of /proc/self/statm


def send(port, rate, seconds, sent):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        begin = time.perf_counter()
        for number in range(round(rate * seconds)):
            wait = begin + number / rate - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            phase = number / rate
            look = {
                "time": time.perf_counter(),
                "x": 0.5 + 0.3 * np.sin(phase),
                "y": 0.5 + 0.3 * np.cos(phase),
            }
            sender.sendto(json.dumps(look).encode(), ("127.0.0.1", port))
            sent.value = number + 1


def resident():
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * CPU_PAGE


def spread(values):
    median, high = np.percentile(1e3 * np.array(values), (50, 95))
    return {"median_ms": round(float(median), 3), "p95_ms": round(float(high), 3)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=1000.0, help="samples a second")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--size", default="192x256", help="HxW of the low resolution")
    options = parser.parse_args()
    height, width = map(int, options.size.split("x"))
    reconstructor = deepfovea.Reconstructor(deepfovea.load("stream", engine=options.engine))
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    for _ in range(5):  # engines compile in their first steps
        reconstructor(frame, (width / 2, height / 2))

    seconds = 60 * options.minutes
    travel, waited, frames, memory = [], [], [], []
    with deepfovea.LiveGaze("udp:0") as gaze:
        sent = multiprocessing.Value("q", 0)
        sender = multiprocessing.Process(
            target=send, args=(gaze.port, options.rate, seconds, sent), daemon=True
        )
        sender.start()
        gaze.wait(30.0)
        begin = time.perf_counter()
        while sender.is_alive():
            look = gaze.look()
            x, y = look.position
            started = time.perf_counter()
            reconstructor(frame, (x * width - 0.5, y * height - 0.5))
            ended = time.perf_counter()
            frames.append(ended - started)
            waited.append(started - look.sample.received_seconds)
            travel.append(look.sample.received_seconds - look.sample.tracker_seconds)
            if ended - begin > seconds / 10:
                memory.append(resident())
        time.sleep(0.5)
        counts = gaze.counts
    print(
        json.dumps(
            {
                "minutes": options.minutes,
                "engine": options.engine,
                "size": options.size,
                "sent": sent.value,
                "received": counts.received,
                "lost": sent.value - counts.received,
                "out_of_order": counts.out_of_order,
                "memory_growth_bytes": memory[-1] - memory[0] if memory else None,
                "sent_to_received": spread(travel),
                "received_to_frame_begun": spread(waited),
                "frame": spread(frames),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
