"""Tests under load: many viewers at once, a long video, two programs with the same output."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from media import moving, write_video

from .bad import TRAIN, damaged_text, random_json, tiny_model
from .worker import ROOT, classify, environment

HEIGHT, WIDTH = 192, 256
MAX_MEMORY_GROWTH = 0.10
"""The largest growth of the viewer's memory after the first third of the time, as a share."""
MIN_FAIRNESS = 0.95
"""Jain's index of the clients' frame counts must be larger; 1 means that all got equally many."""


def jain(shares: list[int]) -> float:
    """Jain's fairness index: (sum x)² / (n · sum x²)."""
    return sum(shares) ** 2 / (len(shares) * sum(x * x for x in shares)) if any(shares) else 0.0


@contextlib.contextmanager
def viewer(folder: Path, limit: int) -> Iterator[tuple[str, int, Path]]:
    """Run ``deepfovea view`` for the block; yield its address, process id and file of stderr."""
    video = folder / "video.mp4"
    if not video.exists():
        write_video(video, moving(48, HEIGHT, WIDTH))
    said = folder / "stderr"
    command = [sys.executable, "-m", "deepfovea", "view", str(video), "--no-browser", "--port=0"]
    with said.open("ab") as errors:
        process = subprocess.Popen(
            [*command, f"--max-clients={limit}"],
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment(PYTHONUNBUFFERED="1"),
        )
        try:
            yield process.stdout.readline().decode().split()[2], process.pid, said
        finally:
            process.send_signal(signal.SIGINT)
            code = process.wait(timeout=60)
    assert code == 0, f"the viewer ended with {code}"


def resident_mib(process: int) -> float:
    pages = int(Path(f"/proc/{process}/statm").read_text(encoding="utf-8").split()[1])
    return pages * 4096 / 2**20


async def watch(url: str, until: float, number: int) -> dict[str, Any]:
    """One client, as the page is: it moves its gaze, shows each frame and says so."""
    from websockets.asyncio.client import connect

    frames, latencies = 0, []
    rng = random.Random(number)
    async with connect(url, max_size=None) as socket:
        await socket.recv()  # the greeting
        while time.monotonic() < until:
            gaze = [rng.random(), rng.random()]
            await socket.send(json.dumps({"gaze": gaze, "timestamp": 1e3 * time.monotonic()}))
            message = await asyncio.wait_for(socket.recv(), 60)
            while isinstance(message, str):  # texts describe the video
                message = await asyncio.wait_for(socket.recv(), 60)
            (length,) = struct.unpack_from("<I", message)
            header = json.loads(message[4 : 4 + length])
            await socket.send(json.dumps({"acknowledged": header["number"]}))
            frames += 1
            if header["timestamp"]:
                latencies.append(1e3 * time.monotonic() - header["timestamp"])
    return {"frames": frames, "latencies": latencies}


async def crowd(url: str, clients: int, seconds: float, process: int) -> dict[str, Any]:
    until = time.monotonic() + seconds
    tasks = [asyncio.create_task(watch(url, until, number)) for number in range(clients)]
    memory = []
    while not all(task.done() for task in tasks):
        await asyncio.sleep(min(1.0, seconds / 20))
        memory.append(resident_mib(process))
    results = [task.result() for task in tasks]
    shares = [result["frames"] for result in results]
    latencies = sorted(x for result in results for x in result["latencies"])
    third = max(1, len(memory) // 3)
    settled = max(memory[:third])
    return {
        "clients": clients,
        "seconds": seconds,
        "frames_per_second": round(sum(shares) / seconds, 1),
        "jain": round(jain(shares), 4),
        "latency_ms_p50": round(statistics.median(latencies), 1),
        "latency_ms_p95": round(latencies[int(0.95 * len(latencies))], 1),
        "rss_mib": [round(x, 1) for x in memory[:: max(1, len(memory) // 12)]],
        "rss_growth": round(max(memory[third:], default=settled) / settled - 1, 4),
    }


async def refused(url: str, limit: int) -> str:
    """What the client beyond the limit is told."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed

    async with contextlib.AsyncExitStack() as stack:
        for _ in range(limit):
            socket = await stack.enter_async_context(connect(url, max_size=None))
            await socket.recv()
        socket = await stack.enter_async_context(connect(url))
        said = json.loads(await socket.recv())["error"]
        with contextlib.suppress(ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 1013, socket.close_code
    return said


async def noise(url: str, messages: int, seed: int) -> dict[str, int]:
    """Fuzzed messages; the server must answer or close each connection, and serve the next."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed

    rng = random.Random(seed)
    names = [
        "gaze",
        "timestamp",
        "speed",
        "density",
        "views",
        "track",
        "seek",
        "step",
        "acknowledged",
    ]
    names += [
        "playing",
        "reset",
        "model",
        "video",
        "pixels_per_degree",
        "blue_noise",
        "jitter",
        "x",
    ]
    counts: Counter[str] = Counter()
    sent = 0
    while sent < messages:
        async with connect(url, max_size=None) as socket:
            await socket.recv()
            counts["connections"] += 1
            try:
                while sent < messages:
                    values = {
                        rng.choice(names): random_json(rng) for _ in range(rng.choice([1, 2]))
                    }
                    text = json.dumps(values).encode()
                    if rng.random() < 0.4:
                        text = damaged_text(rng, text)
                    with contextlib.suppress(UnicodeDecodeError):
                        text = text.decode() if rng.random() < 0.9 else text
                    await socket.send(text)
                    sent += 1
                    with contextlib.suppress(TimeoutError):
                        while True:
                            answer = await asyncio.wait_for(socket.recv(), 0.002)
                            kind = "error" if isinstance(answer, str) else "frame"
                            counts[kind] += 1
            except ConnectionClosed:
                counts["closed"] += 1
    counts["messages"] = sent
    served = await watch(url, time.monotonic() + 1.0, 0)
    assert served["frames"] > 0, "nobody is served any more"
    return dict(counts)


def run_viewer(seconds: float, numbers: list[int], messages: int, seed: int) -> dict[str, Any]:
    """Measure a new server with each number of clients at once."""
    wrong, crowds = [], []
    limit = 16
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for clients in numbers:
            with viewer(folder, limit) as (page, process, _):
                url = page.replace("http", "ws") + "watch"
                crowds.append(asyncio.run(crowd(url, clients, seconds, process)))
            print(json.dumps(crowds[-1]), file=sys.stderr)
            if crowds[-1]["jain"] < MIN_FAIRNESS:
                wrong.append(f"{clients} clients: shares are unfair, {crowds[-1]['jain']}")
            if crowds[-1]["rss_growth"] > MAX_MEMORY_GROWTH:
                wrong.append(f"{clients} clients: memory grew by {crowds[-1]['rss_growth']:.1%}")
        with viewer(folder, limit) as (page, _, _):
            url = page.replace("http", "ws") + "watch"
            message = asyncio.run(refused(url, limit))
            fuzzed = asyncio.run(noise(url, messages, seed))
        if words := (folder / "stderr").read_text(encoding="utf-8"):
            wrong.append(f"on stderr: {words.splitlines()[-1]}")
    return {"crowds": crowds, "refusal": message, "fuzzed": fuzzed, "wrong": wrong}


def run_memory(frames: int) -> dict[str, Any]:
    """Measure memory while ``reconstruct`` reads a long video: see benchmarks/pipeline.py."""
    with tempfile.TemporaryDirectory() as name:
        result = Path(name) / "memory.json"
        command = [sys.executable, str(ROOT / "benchmarks" / "pipeline.py")]
        command += [f"--memory={frames}", "--engine=torch", f"--json={result}"]
        subprocess.run(command, check=True, stdout=sys.stderr, env=environment())
        found = json.loads(result.read_text(encoding="utf-8"))
    growth = round(found["grown"], 4)
    wrong = [f"memory grew by {growth:.1%}"] if growth > 0.05 else []
    return {"frames": frames, "growth": growth, "mib": found["mib"], "wrong": wrong}


def run_races(times: int) -> dict[str, Any]:
    """Run two programs at once with the same output, which must be entirely that of one of them."""
    counts: dict[str, Counter[str]] = {}
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        model, data = tiny_model(root / "tiny.safetensors"), root / "data"
        data.mkdir()
        video = write_video(data / "video.mp4", moving(24, 64, 96))
        tiny = ["--model", model, "--engine=torch", "--device=cpu"]
        for suffix in (".mp4", ""):
            words = ["reconstruct", video, *tiny, "-o"]
            sides = [[f"--seed={seed}", "--density=uniform:20"] for seed in (1, 2)]
            whole = []
            for number, side in enumerate(sides):
                alone = root / f"alone{number}{suffix}"
                assert pair([[*words, alone, *side]]) == ["success"]
                whole.append(contents(alone))
            assert whole[0] != whole[1]
            for overwrite in (False, True):
                title = f"reconstruct {suffix or 'folder'}" + " --overwrite" * overwrite
                counts[title] = Counter()
                for number in range(times):
                    output = root / f"{number}-{overwrite}{suffix}"
                    more = ["--overwrite"] if overwrite else []
                    outcomes = pair([[*words, output, *side, *more] for side in sides])
                    counts[title].update(outcomes)
                    expected = ["success", "success"] if overwrite else ["refused", "success"]
                    if sorted(outcomes) != expected:
                        wrong.append(f"{title}: {outcomes}")
                    if contents(output) not in whole:
                        wrong.append(f"{title}: the output is that of neither")
                    elif not overwrite and contents(output) != whole[outcomes.index("success")]:
                        wrong.append(f"{title}: the output is that of the refused")
        counts["train"] = Counter()
        for number in range(times):
            run = root / f"run{number}"
            train = ["train", "--data", data, "--run", run, *TRAIN, "--steps=30"]
            outcomes = pair([[*train, "--seed=1"], [*train, "--seed=2"]])
            counts["train"].update(outcomes)
            rows = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            if "success" not in outcomes or json.loads(rows[-1])["step"] != 30:
                wrong.append(f"train: {outcomes}")
        if left := list(root.rglob(".deepfovea-*")):
            wrong.append(f"left {left}")
    return {"times": times, "counts": {k: dict(v) for k, v in counts.items()}, "wrong": wrong}


def pair(lines: list[list[object]]) -> list[str]:
    """Start command lines at the same time, and return the outcome of each."""
    command = [sys.executable, "-m", "deepfovea"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "env": environment()}
    processes = [subprocess.Popen([*command, *map(str, words)], **pipes) for words in lines]
    said = [process.communicate(timeout=120)[1].decode().splitlines() for process in processes]
    return [
        classify(process.returncode, errors, words[0])
        for process, errors, words in zip(processes, said, lines, strict=True)
    ]


def contents(output: Path) -> dict[str, bytes]:
    paths = output.iterdir() if output.is_dir() else [output]
    return {path.name if output.is_dir() else "": path.read_bytes() for path in paths}
