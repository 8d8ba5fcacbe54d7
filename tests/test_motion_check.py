"""Claims about check-motion: correct motion is confirmed, and each usual mistake is named."""

import numpy as np
import pytest
import torch
from PIL import Image

from deepfovea.cli import main
from deepfovea.fovea import jitter_sequence
from deepfovea.motion import write_flo
from deepfovea.motion_check import CONTRACT, check_motion
from deepfovea.toy_renderer import ToyRenderer

COUNT = 5


def rendered(speed, kind="none"):
    """Frames [T,3,h,w], motion [T,2,h,w], jitter [T,2]."""
    scene = ToyRenderer(40, 48, speed)
    offsets = jitter_sequence(kind, 0, COUNT)
    jitter = torch.zeros(COUNT, 2) if offsets is None else offsets
    pairs = [(t, tuple(offset)) for t, offset in enumerate(jitter.tolist())]
    frames = np.stack([scene.samples(t, jitter=offset)[:3] for t, offset in pairs])
    motion = np.stack([scene.motion(t, offset) for t, offset in pairs])
    return torch.from_numpy(frames), torch.from_numpy(motion), jitter


@pytest.fixture(scope="module")
def moving():
    return rendered(1.0)


@pytest.fixture(scope="module")
def jittered():
    return rendered(1.0, "quad")


MISTAKES = {
    "sign": lambda v: -v,
    "x and y swapped": lambda v: v.flip(1),
    "y up": lambda v: v * torch.tensor([1.0, -1.0])[:, None, None],
    "twice too long": lambda v: 2 * v,
    "half too long": lambda v: v / 2,
    "resolution": lambda v: 4 * v,
    "NDC": lambda v: v * torch.tensor([2 / 48, -2 / 40])[:, None, None],
    "shares": lambda v: v / torch.tensor([48.0, 40.0])[:, None, None],
    "one frame late": lambda v: v.roll(1, 0),
}


def test_the_contract_is_confirmed(moving, jittered):
    for frames, motion, jitter in (moving, jittered):
        check = check_motion(frames, motion, jitter=jitter)
        assert check.fits == CONTRACT, check
        assert min(check.errors.values()) == check.errors[CONTRACT]


@pytest.mark.parametrize("name", MISTAKES)
def test_a_planted_mistake_is_named(moving, jittered, name):
    for frames, motion, jitter in (moving, jittered):
        check = check_motion(frames, MISTAKES[name](motion), jitter=jitter)
        assert check.fits is not None and check.fits.startswith(name), check


def test_jitter_in_the_vectors_is_named(jittered):
    frames, motion, jitter = jittered
    difference = torch.zeros_like(jitter)
    difference[1:] = jitter[1:] - jitter[:-1]
    check = check_motion(frames, motion + difference[:, :, None, None], jitter=jitter)
    assert check.fits == "jitter included", check


def test_samples_are_enough(moving):
    frames, motion, _ = moving
    dense = torch.zeros(COUNT, 1, 40, 48)
    dense[..., 8:32, 10:38] = 1.0
    mask = torch.maximum(
        dense, (torch.rand(dense.shape, generator=torch.manual_seed(0)) < 0.15).float()
    )
    assert check_motion(frames * mask, motion, mask).fits == CONTRACT
    assert check_motion(frames * mask, -motion, mask).fits.startswith("sign")


def test_unknown_vectors_are_left_out(moving):
    frames, motion, _ = moving
    motion = motion.clone()
    motion[:, :, :20] = float("nan")
    assert check_motion(frames, motion).fits == CONTRACT


def test_nothing_can_be_told_where_nothing_moves():
    frames, motion, _ = rendered(0.0)
    check = check_motion(frames, motion)
    assert check.fits is None and "cannot tell: nothing moves" in check.why
    flat = torch.full_like(frames, 0.5)
    assert check_motion(flat, motion + 1.0).fits is None


def test_vectors_of_nothing_are_not_the_contract(moving):
    frames, motion, _ = moving
    assert check_motion(frames, 0 * motion).fits == "no motion"
    still = frames[:1].expand_as(frames)
    assert check_motion(still, motion).fits == "no motion"


def written(folder, frames, motion):
    folder.mkdir()
    for t, (frame, field) in enumerate(zip(frames, motion, strict=True)):
        image = (255 * frame.permute(1, 2, 0)).round().byte().numpy()
        Image.fromarray(image).save(folder / f"{t:04}.png")
        if t:
            write_flo(folder / f"{t:04}.flo", field)
    return str(folder)


def test_the_subcommand_prints_a_table_and_its_exit_code_says_it(moving, tmp_path, capsys):
    frames, motion, _ = moving
    right = written(tmp_path / "right", frames, motion)
    assert main(["check-motion", right]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[0].startswith(CONTRACT) and "no motion at all" in shown
    wrong = written(tmp_path / "wrong", frames, -motion)
    assert main(["check-motion", wrong]) == 1
    assert "what fits is: sign" in capsys.readouterr().out
    assert main(["check-motion", wrong, "--motion-from-previous"]) == 0
    still = written(tmp_path / "still", frames[:1].expand_as(frames), 0 * motion)
    capsys.readouterr()
    assert main(["check-motion", still]) == 2
    assert "cannot tell" in capsys.readouterr().err


def test_bad_input_is_one_line_and_code_2(moving, tmp_path, capsys):
    frames, motion, _ = moving
    folder = written(tmp_path / "clip", frames, motion)
    (tmp_path / "clip" / "0003.flo").unlink()
    for arguments, complaint in (
        ([folder], "no motion for 0003.png"),
        ([str(tmp_path / "missing")], "missing"),
        ([folder, "--motion", str(tmp_path)], "no motion for 0001.png"),
    ):
        assert main(["check-motion", *arguments]) == 2
        error = capsys.readouterr().err.strip()
        assert complaint in error and "\n" not in error
