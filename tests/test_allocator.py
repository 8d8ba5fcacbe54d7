"""Claims about freed memory: a long computation uses it again, without new pages of the system."""

import platform
import subprocess
import sys

import pytest

CODE = """
import sys, resource, torch
from deepfovea.runtime.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(16, 1024, 1024)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "keep":
    assert keep_freed_memory()
faults(), faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_used_again():
    def new_pages(word):
        run = subprocess.run(
            [sys.executable, "-c", CODE, word], capture_output=True, encoding="utf-8", check=True
        )
        return int(run.stdout)

    assert new_pages("keep") * 10 < new_pages("leave")
