"""Claims about faults and bad input: short versions of the long suite (see soak/), and files."""

import json
import os
import random
import struct
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import media
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepfovea import checkpoint
from deepfovea.config import InputError
from deepfovea.io import atomic
from deepfovea.training.logging import Log
from deepfovea.training.state import read_config
from deepfovea.video import VideoReader, VideoWriter
from deepfovea.viewer.request import ViewerRequest, apply_message
from soak import bad, disk
from soak.media import corpus
from soak.table import PARTS, render
from soak.worker import ROOT, Worker, classify, environment

WORDS = ["train", "--list-losses"]  # which only says something, and takes little work
PATIENCE = 60.0  # on a busy machine a second may become many
FUZZED = settings(
    max_examples=100,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def worker():
    with Worker(PATIENCE) as worker:
        yield worker


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return bad.tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- killed ----


def test_killed_at_any_moment_nothing_is_lost():
    command = [sys.executable, "-m", "soak.kill", "--times=2", "--subcommands=reconstruct,train"]
    done = subprocess.run(
        command, env=environment(), cwd=ROOT, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout.splitlines()[-1])
    assert all(row["times"] == 2 for row in counts.values())


HALF_WRITTEN = """
import sys, time
from pathlib import Path
from deepfovea.io import atomic as files
path = Path(sys.argv[1])
with files.atomic_write(path / "a.json") as file:
    file.write(b"half")
    file.flush()
    folder, _ = files.create_temporary(path / "folder", folder=True)
    (folder / "0.png").write_bytes(b"half")
    mine = files.exclusive_lock(path)
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def half_written(tmp_path):
    """The folder of a program that hangs while it writes."""
    command = [sys.executable, "-c", HALF_WRITTEN, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment())
    assert process.stdout.readline() == b"ready\n"
    yield process
    process.kill()
    process.wait()


def test_the_next_run_removes_what_a_killed_one_left_and_nothing_else(tmp_path, half_written):
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    others = [".deepfovea-12345678.old", ".deepfovea-xyz", ".deepfovea-1234567", "deepfovea-1"]
    for name in others:
        (tmp_path / name).write_bytes(b"kept")
    # An unfinished file stays while its program is still writing it.
    with atomic.atomic_write(tmp_path / "b.json") as file:
        file.write(b"new")
    assert len(list(tmp_path.glob(".deepfovea-????????*"))) == 3
    half_written.kill()
    half_written.wait()
    assert len(list(tmp_path.glob(".deepfovea-????????*"))) == 3
    assert path.read_bytes() == b"old"
    with atomic.atomic_write(path) as file:
        file.write(b"new")
    assert names(tmp_path) == sorted(["a.json", "b.json", ".lock", *others])
    assert path.read_bytes() == b"new"


def test_a_run_folder_has_one_writer(tmp_path, half_written):
    with pytest.raises(InputError, match="another training") as refused:
        Log(tmp_path, 0, {})
    assert "\n" not in str(refused.value)
    half_written.kill()
    half_written.wait()
    Log(tmp_path, 0, {}).close()


def test_a_link_or_a_pipe_with_the_name_of_a_leftover_harms_nothing(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("kept", encoding="utf-8")
    (tmp_path / ".deepfovea-00000000").symlink_to(tmp_path / "precious")
    os.mkfifo(tmp_path / ".deepfovea-00000001.mp4")
    with atomic.atomic_write(tmp_path / "a") as file:
        file.write(b"new")
    assert (tmp_path / "precious" / "file").read_text(encoding="utf-8") == "kept"
    assert (tmp_path / "a").read_bytes() == b"new"


@pytest.mark.parametrize("linux", [True, False])
def test_a_folder_is_replaced_whole(tmp_path, monkeypatch, linux):
    if not linux:
        monkeypatch.setattr(atomic, "_renameat2", lambda *_: False)
    image = media.moving(1)[0]
    for count in (5, 2):
        with VideoWriter(tmp_path / "out", frame_rate=25, overwrite=True) as writer:
            for number in range(count):
                writer.write(image, number / 25)
        assert len(names(tmp_path / "out")) == count
        assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("name", ["out.mp4", "out"])
@pytest.mark.parametrize("linux", [True, False])
def test_an_output_that_appears_meanwhile_is_not_replaced(tmp_path, monkeypatch, name, linux):
    if not linux:
        monkeypatch.setattr(atomic, "_renameat2", lambda *_: False)
    image = media.moving(1)[0]
    with (
        pytest.raises(InputError, match="has appeared"),
        VideoWriter(tmp_path / name, frame_rate=25) as slow,
    ):
        slow.write(image, 0.0)
        with VideoWriter(tmp_path / name, frame_rate=25) as quick:
            quick.write(image, 0.0)
            quick.write(image, 0.04)
    with VideoReader(tmp_path / name) as reader:
        assert len(list(reader)) == 2
    assert names(tmp_path) == [name]


# ---- full disks ----


def test_a_full_disk_leaves_the_old_output(worker, monkeypatch):
    monkeypatch.setattr(disk, "small_disk", disk.limited)  # root or not
    verbs = ["reconstruct", "reconstruct .mp4", "sample", "evaluate"]
    result = disk.run_full(worker, [4, 64, 1024], verbs)
    assert result["wrong"] == []
    assert all("refused" in outcomes for outcomes in result["counts"].values())


def test_no_room_for_words():
    command = [sys.executable, "-m", "deepfovea", *WORDS]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, env=environment(), encoding="utf-8"
        )
    assert (done.returncode, done.stderr) == (2, "deepfovea: No space left on device\n")


def test_a_reader_that_leaves_is_no_error():
    program = (
        "import argparse, sys, deepfovea.cli as cli\n"
        "parser = argparse.ArgumentParser()\n"
        "parser.set_defaults(handler=lambda _: print('x' * 10**6))\n"
        "cli._parser = lambda: parser\n"
        "sys.exit(cli.main([]))"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment()}
    process = subprocess.Popen([sys.executable, "-c", program], **pipes)
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 0


# ---- bad input ----


def test_bad_media_end_in_success_or_in_one_line(worker, tmp_path, monkeypatch):
    # Only a part of the corpus: an eighth of the damaged files, and all others.
    def part(folder, *, large):
        return [
            case
            for number, case in enumerate(corpus(folder, large=False))
            if case.group in ("hostile", "nothing in it") or number % 8 == 0
        ]

    monkeypatch.setattr(bad.cases, "corpus", part)
    result = bad.run_media(["reconstruct"], large=False, worker=worker)
    assert result["wrong"] == []
    assert result["cases"] > 80
    assert result["connections"] == 0


@pytest.mark.parametrize(
    ("code", "lines", "kind"),
    [
        (0, ["a warning"], "success"),
        (2, ["deepfovea: no"], "refused"),
        (2, ["deepfovea: no", "really"], "unclear"),
        (1, ["Traceback (most recent call last):", "ValueError"], "traceback"),
        (1, [], "unclear"),
        (2, [], "unclear"),
    ],
)
def test_the_judge_tells_a_refusal_from_a_failure(code, lines, kind):
    assert classify(code, lines, "reconstruct") == kind


def test_a_crash_and_a_hang_are_seen(worker, tmp_path):
    assert worker.run(*WORDS).kind == "success"
    os.kill(worker.process.pid, 9)
    assert worker.run(*WORDS).kind == "crash"
    os.mkfifo(tmp_path / "pipe")
    # A track may be a pipe, which is read until its end.
    video = media.write_video(tmp_path / "video.mp4", media.moving(1))
    words = ["sample", video, "-o", tmp_path / "out.mp4", "--gaze", tmp_path / "pipe"]
    assert worker.run(*words, timeout_seconds=0.5).kind == "hang"


@pytest.mark.parametrize("kind", ["gaze files", "configurations", "checkpoints"])
def test_fuzzed_files_end_in_success_or_in_one_line(worker, kind):
    result = bad.run_fuzz(kind, 30, 1234, worker)
    assert result["wrong"] == []
    assert result["counts"].get("refused", 0) > 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@FUZZED
@given(
    st.binary(max_size=60)
    | st.dictionaries(
        st.sampled_from(["model", "steps", "seed", "losses", "betas", "size", "crop", "batch"])
        | st.text(max_size=9),
        json_values,
        max_size=4,
    )
)
def test_any_configuration_is_read_or_refused(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    try:
        config = read_config(path)
    except InputError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert config.steps >= 1
        assert 0 <= config.seed < 2**32


@FUZZED
@given(st.text(max_size=60) | json_values.map(json.dumps), st.integers(0, 2**32))
def test_any_message_is_a_wish_or_refused(text, seed):
    damaged = bad.damaged_text(random.Random(seed), text.encode()).decode(errors="replace")
    for message in (text, damaged):
        try:
            apply_message(ViewerRequest("tiny", "0"), message, ["tiny"], ["0"])
        except InputError as error:
            assert len(str(error).splitlines()) == 1
            assert len(str(error)) < 500


# ---- checkpoints ----


def forged(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    path.write_bytes(struct.pack("<Q", size) + text + data)
    return path


def tensor(begin, end, shape=None, dtype="U8"):
    shape = [end - begin] if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


ABOUT = {"deepfovea": '{"format": 1}', "sha256": ""}


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [
        ({"a": tensor(0, 8), "b": tensor(4, 12)}, "overlap"),
        ({"a": tensor(0, 4), "b": tensor(8, 12)}, "between"),
        ({"a": tensor(4, 12)}, "between"),
        ({"a": tensor(0, 8)}, "before or after"),
        ({"a": tensor(0, 16)}, "before or after"),
        ({"a": tensor(0, 2**60)}, "before or after"),
        ({"a": tensor(0, 12), "b": tensor(0, 12)}, "overlap"),
        ({"a": tensor(0, 12, [2**40, 2**40])}, "does not fit"),
        ({"a": tensor(0, 12, [3], "F64")}, "does not fit"),
        ({"a": tensor(0, 12, [12], "F4")}, "F4"),
        ({"a": tensor(0, 12, [1] * 100 + [12])}, "impossible"),
        ({"a": tensor(0, 12, [-1, -12])}, "impossible"),
        ({"a": tensor(0, 12, [12.0])}, "impossible"),
        ({"a": tensor(0, 12, [True])}, "impossible"),
        ({"a": {**tensor(0, 12), "next": [[]]}}, "unknown properties"),
        ({"a": tensor(0, 12) | {"data_offsets": [0, 12, 12]}}, "unpack"),
        ({"a": []}, "cannot be read"),
    ],
)
def test_hostile_headers_are_refused_for_what_is_wrong(tmp_path, tensors, complaint):
    path = forged(tmp_path / "a.safetensors", {"__metadata__": ABOUT, **tensors}, bytes(12))
    with pytest.raises(InputError, match=complaint) as refused:
        checkpoint.read(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("where", ["header", "metadata", "description"])
def test_a_name_that_comes_twice_is_refused(tmp_path, where):
    texts = {
        "header": b'{"__metadata__":{"deepfovea":"{\\"format\\":1}"},"a":1,"a":2}',
        "metadata": b'{"__metadata__":{"deepfovea":"{}","deepfovea":"{\\"format\\":1}"}}',
        "description": b'{"__metadata__":{"deepfovea":"{\\"format\\":1,\\"format\\":1}"}}',
    }
    with pytest.raises(InputError, match="comes twice"):
        checkpoint.read(forged(tmp_path / "a.safetensors", texts[where]))


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 2**20,
        b"[" + b"[]," * 300_000 + b"[]]",
        b'{"__metadata__":{"a":"' + b"x" * 2**19 + b'"},"b":[' + b"{}," * 100_000 + b"0]}",
        b'{"a":' + b"9" * 900_000 + b"}",
        b" " * 2**20,
        b'{"' + b"\\u0000" * 100_000 + b'":1}',
        b" " * 2**24,  # longer than any header may be
    ],
    ids=["deep", "wide", "text", "digits", "blank", "escapes", "long"],
)
def test_no_header_takes_more_memory_than_the_file_and_its_parsing(tmp_path, header):
    path = forged(tmp_path / "a.safetensors", header)
    tracemalloc.start()
    with pytest.raises(InputError):
        checkpoint.read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < path.stat().st_size + 32 * 2**20


def test_a_large_file_of_another_kind_is_refused_without_reading_it(tmp_path):
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 2**30))
        file.truncate(2**40)  # a sparse file: a tebibyte
    tracemalloc.start()
    with pytest.raises(InputError, match="a header of"):
        checkpoint.read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_a_configuration_with_a_thousand_stages_is_refused_at_once(tmp_path, model):
    tensors, about = checkpoint.read(model)
    config = {"frames_per_step": 1, "mask_input": True, "residual": True, "encoder": [4] * 5}
    config |= {"decoder": [4] * 4, "super_resolution": [*[1] * 20_000, 3]}
    path = tmp_path / "a.safetensors"
    checkpoint.write(path, tensors, {**about, "network": "unet", "config": config})
    with pytest.raises(InputError, match="at most 4"):
        checkpoint.load(path)


def test_a_checkpoint_replaced_while_it_is_read_is_one_of_both(tmp_path):
    path = tmp_path / "a.safetensors"
    done = threading.Event()

    def replace():
        number = 0
        while not done.is_set():
            number += 1
            checkpoint.write(path, {"w": torch.full((1000,), float(number))}, {"n": number})

    checkpoint.write(path, {"w": torch.zeros(1000)}, {"n": 0})
    thread = threading.Thread(target=replace)
    thread.start()
    try:
        for _ in range(200):
            tensors, about = checkpoint.read(path)
            assert (tensors["w"] == about["n"]).all()
    finally:
        done.set()
        thread.join()


# ---- the document ----


def test_the_tables_are_those_of_the_figures():
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    results = json.loads((ROOT / "docs" / "reliability.json").read_text(encoding="utf-8"))
    assert render(results, text) == text
    assert results.keys() == PARTS.keys()
