"""Runs measurements in a new process, so that nothing that ran before influences them."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_CODE = """
import json, sys
from importlib import import_module
module, name, arguments = sys.argv[1:]
print(json.dumps(getattr(import_module(module), name)(*json.loads(arguments))))
"""


def call_in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call ``function(*arguments)`` in a new Python process, with as many CPU threads as here.

    Args:
        function: a function of a module, which imports it by its name.
        arguments: values that JSON can represent. The result must be such a value, too.

    Returns:
        The result.

    Raises:
        RuntimeError: the process failed; the message is its last line.
    """
    # The new process is alone, even if this one shares its work with others.
    alone = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    package = str(Path(__file__).parents[2])
    alone["PYTHONPATH"] = os.pathsep.join(filter(None, [package, alone.get("PYTHONPATH")]))
    alone["OMP_NUM_THREADS"] = str(torch.get_num_threads())
    what = (function.__module__, function.__name__, json.dumps(arguments))
    done = subprocess.run(
        [sys.executable, "-c", _CODE, *what],
        env=alone,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no reason given"])[-1])
    return json.loads(done.stdout.splitlines()[-1])


def peak_memory_mib(device: str) -> float | None:
    """The peak memory of this process in MiB; on CUDA, the peak of PyTorch's allocations there.

    None on Windows, which does not report it without another package.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    if sys.platform == "win32":
        return None
    if sys.platform == "linux":  # where ru_maxrss starts at that of the parent process
        return _status_mib("VmHWM")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def reset_peak_memory(device: str) -> float | None:
    """Return freed memory to the system, and start to measure the peak again.

    Returns:
        The memory that the process holds now, MiB; 0 on CUDA, where only later allocations count;
        None if the peak cannot be reset.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return 0.0
    with contextlib.suppress(OSError, AttributeError):  # glibc on Linux
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        return _status_mib("VmRSS")
    return None


def _status_mib(name: str) -> float:
    """An entry of Linux's /proc/self/status, MiB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition(f"{name}:")[2].split()[0]) / 2**10
