"""The network itself, with its state as a value: python examples/bare_network.py"""

import torch

import deepfovea


def main() -> None:
    """Reconstruct two clips of four frames; the second continues where the first ended."""
    model = deepfovea.load("stream", device="cpu")
    frames = torch.rand(1, 8, 3, 48, 64)  # [B, T, 3, h, w] in [0, 1]
    gaze = torch.tensor([32.0, 24.0]).expand(1, 8, 2)  # low-resolution pixels
    samples, mask = deepfovea.sample(frames, gaze)
    state = None
    with torch.inference_mode():
        for part in (slice(0, 4), slice(4, 8)):
            output, state = model(samples[:, part], mask[:, part], state)
            print(tuple(output.shape))


if __name__ == "__main__":
    main()
