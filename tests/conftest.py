"""What all tests share."""

import torch


def pytest_sessionstart():
    # The tensors here are too small to share, and where something else runs on the machine
    # threads that wait for a busy core are many times slower than one.
    torch.set_num_threads(1)
