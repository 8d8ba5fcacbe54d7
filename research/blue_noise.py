"""Makes the blue-noise ranks that the package ships: void and cluster in space and time.

python research/blue_noise.py                 writes src/deepfovea/blue_noise.npy (some 15 seconds)
python research/blue_noise.py --spectra       prints power and correlation of the packaged ranks

Method: R. Ulichney, "The void-and-cluster method for dither array generation", 1993. Each sample is
placed where the density of the earlier ones is smallest: in the largest void. Here the density
extends into the neighbouring frames too, so that the samples of a few frames together are also
evenly spread. Space and time wrap around. Then the samples of each frame are ranked separately: for
every k, the k smallest ranks of a frame are its k samples.
"""

import argparse
from pathlib import Path

import numpy as np

TARGET = Path(__file__).parents[1] / "src" / "deepfovea" / "blue_noise.npy"
SIZE = 64
"""Pixels of a side of the tile."""
FRAMES = 16
SIGMA = 1.9
"""Standard deviation of the Gaussian in space, pixels: near Ulichney's 1.5, and usual for textures
of 64x64."""
SIGMA_FRAMES = 1.9
"""Standard deviation of the Gaussian in time, frames. Our choice."""
WEIGHT = 0.5
"""Weight of the neighbouring frames; that of the frame itself is 1. Our choice."""
REACH = 7
"""Distance in pixels at which the Gaussian is cut off: it is below 0.2 % of its peak there."""


def void_and_cluster(size=SIZE, frames=FRAMES, weight=WEIGHT, sigma_frames=SIGMA_FRAMES, seed=0):
    """Ranks uint16 [frames, size, size]: each frame contains each of 0 … size² - 1 once."""
    reach = min(REACH, (size - 1) // 2)
    reach_frames = min(6, (frames - 1) // 2)
    space = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * SIGMA**2))
    steps = np.arange(-reach_frames, reach_frames + 1)
    time = np.where(steps == 0, 1.0, weight * np.exp(-(steps**2) / (2 * sigma_frames**2)))
    kernel = time[:, None, None] * space[:, None] * space

    # Noise decides between equal densities, or the pattern would be a lattice.
    density = 1e-9 * np.random.default_rng(seed).random((frames, size, size))
    least = density.min(2)  # smallest density of each row, in which the largest void is searched
    order = np.empty((frames, size, size), np.int64)
    for number in range(order.size):
        t, y = divmod(int(least.argmin()), size)
        x = int(density[t, y].argmin())
        order[t, y, x] = number
        near = np.ix_((t + steps) % frames, (y + np.arange(-reach, reach + 1)) % size)
        block = density[near]
        block[:, :, (x + np.arange(-reach, reach + 1)) % size] += kernel
        block[reach_frames, reach, x] = np.inf
        density[near], least[near] = block, block.min(2)
    flat = order.reshape(frames, -1)
    return flat.argsort(1).argsort(1).reshape(order.shape).astype(np.uint16)


def spectra(ranks):
    """Print power at low frequencies and correlation between frames, by share of samples.

    The power below a tenth of a cycle per pixel is that of one frame and of all samples of four
    frames, as a share of that of independent draws. The correlation is that of a pixel with itself
    in later frames.
    """
    size = ranks.shape[1]
    frequency = np.fft.fftfreq(size)
    radius = np.hypot(frequency, frequency[:, None])
    low = (radius > 0) & (radius < 0.1)

    def power(masks):
        share = masks.mean()
        spectrum = np.abs(np.fft.fft2(masks - share)) ** 2 / size**2
        return spectrum[:, low].mean() / (share * (1 - share))

    print("share   power: frame, four frames   correlation after 1, 2, 3, 4 frames")
    for share in (0.05, 0.1, 0.2, 0.4):
        masks = (ranks < share * size**2).astype(float)
        several = np.maximum.reduce([np.roll(masks, -k, 0) for k in range(4)])
        centred = masks - masks.mean()
        later = [(centred * np.roll(centred, -k, 0)).mean() / centred.var() for k in (1, 2, 3, 4)]
        figures = " ".join(f"{c:.3f}" for c in later)
        print(f"{share:.2f}    {power(masks):.3f}  {power(several):.3f}    {figures}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spectra", action="store_true")
    if parser.parse_args().spectra:
        spectra(np.load(TARGET))
    else:
        np.save(TARGET, void_and_cluster())
