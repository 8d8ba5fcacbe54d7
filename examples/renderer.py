"""The loop of a renderer with motion vectors and jitter: python examples/renderer.py"""

import torch

import deepfovea
from deepfovea.fovea import QUAD, density_map, draw_mask
from deepfovea.toy_renderer import ToyRenderer


def main() -> None:
    """Render only the sampled pixels, and let the network make 16 times as many pixels."""
    model, scene, state = deepfovea.load("stream", device="cpu"), ToyRenderer(48, 64), None
    gaze_px = torch.tensor([[[31.5, 23.5]]])  # low-resolution pixels
    for t in range(8):
        jitter = QUAD[t % 4]
        mask = draw_mask(density_map(gaze_px, 48, 64), first_frame=t)  # [1, 1, 1, 48, 64]
        samples = torch.from_numpy(scene.samples(t, mask[0, 0, 0].numpy(), jitter))[None, None]
        motion = torch.from_numpy(scene.motion(t, jitter))[None, None]
        with torch.inference_mode():
            frame, state = model(samples[:, :, :3], mask, state, motion, torch.tensor([[jitter]]))
        error = (frame[0, 0].clamp(0, 1) - torch.from_numpy(scene.truth(t))).square().mean()
        print(f"frame {t}: {tuple(frame.shape[-2:])}, {-10 * error.log10():.2f} dB")


if __name__ == "__main__":
    main()
