"""Reconstruct a video file: python examples/video_in_one_call.py VIDEO OUTPUT"""

import sys

import deepfovea


def main(source: str, output: str) -> None:
    """The file is the full resolution, which is reduced by four and sampled at its centre."""
    path = deepfovea.reconstruct(source, output, simulate=True)
    print(f"look at {path}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
