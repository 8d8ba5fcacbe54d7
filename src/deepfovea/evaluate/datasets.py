"""Data sets that papers use, by name: finds their clips and checks that all of them are there.

Nothing is downloaded, and no hashes are checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from ..config import InputError, expected_one_of
from ..video import list_images

Clips = list[tuple[Path, str]]
"""Folder of images and name of every clip."""


@dataclass(frozen=True)
class DataSet:
    """A data set, its subset for evaluations, and the files that must be there."""

    name: str
    definition: str
    """The subset, and who introduced it."""
    where: str
    licence: str
    frames: Mapping[str, int]
    """Number of frames of each clip, by its name; 0: not checked."""
    layouts: tuple[str, ...]
    """Possible paths of a clip in the folder that the user names, with ``*`` for its name."""
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """(width, height) of the listed clips; a width of 0 is not checked."""
    any_size: tuple[int, int] = (0, 0)
    """(width, height) of every clip that is not listed in ``sizes``; (0, 0): not checked."""
    clip_count: int = 0
    """Number of clips, if their names are not listed."""
    clip_frames: int = 0
    """Number of frames of each clip, if their names are not listed."""
    total: int = 0
    """Number of frames of all clips together; 0: not checked."""

    def clips(self, root: Path) -> Clips:
        """Find the clips of the subset, and check them.

        Raises:
            InputError: a clip is missing, or clips, frames or sizes differ from those of the data
                set.
        """
        layout = next((one for one in self.layouts if any(root.glob(one))), None)
        if layout is None:
            raise InputError(
                f"--data {self.name}: received {root} without {' or '.join(self.layouts)}; get it "
                f"from {self.where}"
            )
        before, _, after = layout.partition("*")
        names = list(self.frames)
        if not names:
            depth = len(Path(before).parts)
            names = sorted(path.relative_to(root).parts[depth] for path in root.glob(layout))
            if len(names) != self.clip_count:
                raise self._incomplete(f"{len(names)} clips, expected {self.clip_count}")
        found = [(root / f"{before}{name}{after}", name) for name in names]
        missing = [name for path, name in found if not path.is_dir()]
        if missing:
            raise self._incomplete(f"no clips {', '.join(missing)} in {root / before}")
        total = sum(self._check(path, name) for path, name in found)
        if self.total and total != self.total:
            raise self._incomplete(f"{total} frames in {len(found)} clips, expected {self.total}")
        return found

    def _check(self, path: Path, name: str) -> int:
        """Check the frames of a clip, and return their number."""
        images = list_images(path)
        count = self.frames.get(name, self.clip_frames)
        if count and len(images) != count:
            raise self._incomplete(f"{len(images)} frames of {name}, expected {count}")
        width, height = self.sizes.get(name, self.any_size)
        for image in images if height else ():
            try:
                with Image.open(image) as opened:
                    size = opened.size
            except (OSError, UnidentifiedImageError):
                raise self._incomplete(f"{image}, which is no image") from None
            if size[1] != height or (width and size[0] != width):
                raise self._incomplete(
                    f"{image} of {size[0]}x{size[1]} pixels, expected "
                    f"{width or 'any width '}x{height}"
                )
        return len(images)

    def _incomplete(self, received: str) -> InputError:
        return InputError(f"--data {self.name}: received {received}; get it from {self.where}")


DAVIS_VAL = (
    *("bike-packing", "blackswan", "bmx-trees", "breakdance", "camel", "car-roundabout"),
    *("car-shadow", "cows", "dance-twirl", "dog", "dogs-jump", "drift-chicane"),
    *("drift-straight", "goat", "gold-fish", "horsejump-high", "india", "judo", "kite-surf"),
    *("lab-coat", "libby", "loading", "mbike-trick", "motocross-jump", "paragliding-launch"),
    *("parkour", "pigs", "scooter-black", "shooting", "soapbox"),
)
"""ImageSets/2017/val.txt."""

DATA_SETS: dict[str, DataSet] = {
    dataset.name: dataset
    for dataset in (
        DataSet(
            "reds4",
            "clips 000, 011, 015 and 020 of the sharp training videos of REDS (Nah et al. 2019), "
            "as of EDVR (Wang et al. 2019): 4 of 100 frames, 1280x720",
            "https://seungjunnah.github.io/Datasets/reds.html (train_sharp)",
            "CC BY 4.0",
            dict.fromkeys(("000", "011", "015", "020"), 100),
            ("train/train_sharp/*", "train_sharp/*", "GT/*", "*"),
            any_size=(1280, 720),
        ),
        DataSet(
            "vid4",
            "calendar, city, foliage and walk (Liu and Sun 2011): 171 frames, up to 720x576",
            "https://drive.google.com/drive/folders/10-gUO6zBeOpWEamrWKCtSkkUFukB9W5m (the link of "
            "EDVR's authors)",
            "none is stated",
            {"calendar": 41, "city": 34, "foliage": 49, "walk": 47},
            ("Vid4/GT/*", "GT/*", "*"),
            sizes={
                "calendar": (720, 576),
                "city": (704, 576),
                "foliage": (720, 480),
                "walk": (720, 480),
            },
        ),
        DataSet(
            "davis",
            "the 30 validation clips of DAVIS 2017 at 480p (Pont-Tuset et al. 2017): 1999 frames",
            "https://davischallenge.org/davis2017/code.html (TrainVal, 480p)",
            "CC BY-NC 4.0, as the README of the data says; for what its SOURCES.md lists, the "
            "terms of their sources",
            dict.fromkeys(DAVIS_VAL, 0),
            ("DAVIS/JPEGImages/480p/*", "JPEGImages/480p/*"),
            any_size=(0, 480),
            total=1999,
        ),
        DataSet(
            "spmcs",
            "the test clips of SPMC (Tao et al. 2017): 30 of 31 frames, 960x540",
            "https://github.com/jiangsutx/SPMC_VideoSR",
            "none is stated",
            {},
            ("test_set/*/truth", "SPMCS/GT/*", "GT/*", "*/truth"),
            any_size=(960, 540),
            clip_count=30,
            clip_frames=31,
        ),
    )
}
"""Every data set by its name."""


def data_set(name: str) -> DataSet:
    """The data set of that name.

    Raises:
        InputError: the name is unknown.
    """
    if name not in DATA_SETS:
        raise InputError(f"--data: received {name!r:.100}, {expected_one_of(name, DATA_SETS)}")
    return DATA_SETS[name]
