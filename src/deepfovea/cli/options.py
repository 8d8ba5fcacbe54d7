"""Options that several subcommands share, and functions that read their values."""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from ..config import (
    BEST_SAMPLING,
    DENSITY_FORMS,
    HWACCELS,
    JITTERS,
    MOTION_UNITS,
    NOISES,
    Density,
    InputError,
    did_you_mean,
    expected_one_of,
)
from ..io.atomic import atomic_write
from ..io.outputs import ensure_folder, refuse_overlap

if TYPE_CHECKING:
    from torch import Tensor

    from ..gaze import DisplayGeometry, GazeTrack
    from ..reconstructor import Reconstructor

BUNDLED = sorted(
    path.stem for path in (Path(__file__).parents[1] / "weights").glob("*.safetensors")
)
"""Names of the models that come with the package; the files are not read."""

MODEL_HELP = f"{', '.join(BUNDLED)}, or the path of a .safetensors file"
DEVICE_HELP = "auto (CUDA, else MPS, else the CPU) | cpu | cuda | cuda:N | mps"
DENSITY_HELP = f"how densely to sample: {DENSITY_FORMS}"
SKIP_HELP = "leave out frames that cannot be read, with a warning, instead of stopping there"
GAZE_KEYWORDS = ("centre", "random", "synthetic")
GAZE_HELP = (
    "where the eye looks: X,Y | centre | random (one seeded point, as published) | synthetic "
    "(seeded fixations and saccades) | a file: CSV of our own, or what Pupil Labs, Tobii, EyeLink, "
    "SMI and Gazepoint export (docs/formats.md)"
)


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Shows every default, keeps the lines of examples, and breaks no name at its hyphens."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("examples:"):
            return super()._fill_text(text, width, indent)
        return textwrap.fill(" ".join(text.split()), width)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        needs_none = action.nargs == 0 or action.required or not action.option_strings
        if action.help is None or re.search(r"\bdefault\b", action.help) or needs_none:
            return action.help
        default = "none" if action.default in (None, "", []) else "%(default)s"
        return f"{action.help} (default: {default})"


class Parser(argparse.ArgumentParser):
    """Reports a wrong command line in one line; its help ends with ``examples``."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **options: Any) -> None:
        if examples:
            options["epilog"] = "\n  ".join(("examples:", *examples))
        options["formatter_class"] = HelpFormatter
        super().__init__(*args, **options)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            near = expected_one_of(str(value), map(str, action.choices))
            raise argparse.ArgumentError(action, f"invalid choice: {str(value)!r:.100}, {near}")

    def parse_known_args(  # type: ignore[override]
        self, *args: Any, **options: Any
    ) -> tuple[argparse.Namespace, list[str]]:
        """Refuse an unknown option here, where the options of the subcommand are known."""
        namespace, unknown = super().parse_known_args(*args, **options)
        if unknown:
            option = unknown[0].partition("=")[0]
            near = did_you_mean(option, self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{near}")
        return namespace, unknown

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        self.exit(2, f"{self.prog}: {one_line(message)}; see '{self.prog} --help'\n")


class PrintAndExit(argparse.Action):
    """Prints lines instead of running the subcommand, as ``--version`` prints a version."""

    def __init__(self, *args: Any, lines: Callable[[], Iterable[str]], **options: Any) -> None:
        super().__init__(*args, **{**options, "nargs": 0})
        self.lines = lines

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print the lines; exit with code 0."""
        print("\n".join(self.lines()), flush=True)  # flushed here, where a closed pipe is handled
        parser.exit()


Subcommands: TypeAlias = "argparse._SubParsersAction[Parser]"


def one_line(message: object) -> str:
    """A message without line breaks and control characters."""
    text = " ".join(str(message).splitlines())  # file names may contain anything
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shortened(name: str, width: int = 48) -> str:
    """A name for a line of a log; the middle of a long one is left out."""
    name = one_line(name)
    half = (width - 1) // 2
    return name if len(name) <= width else f"{name[:half]}…{name[-half:]}"


def add_input_output(parser: argparse.ArgumentParser) -> None:
    """Add INPUT, -o OUTPUT and the options that limit them."""
    parser.add_argument(
        "input", type=local_path, metavar="INPUT", help="video file or folder of images"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=output_path,
        required=True,
        metavar="OUTPUT",
        help="video file; without a suffix a folder of PNGs; missing folders are made",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing OUTPUT")
    parser.add_argument(
        "--frames", type=positive, metavar="N", help="stop after N frames (default: all)"
    )
    parser.add_argument(
        "--frame-rate",
        type=rate,
        metavar="FPS",
        help="frame rate of a folder of images, as 30, 30000/1001 or 1/3600 (default: 24)",
    )
    parser.add_argument(
        "--audio-track",
        type=positive,
        metavar="N",
        help="which audio track of INPUT to keep, from 1 (default: the one marked as default, "
        "or the first)",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add --model."""
    parser.add_argument("--model", default="stream", metavar="NAME|PATH", help=MODEL_HELP)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device."""
    parser.add_argument("--device", default="auto", help=DEVICE_HELP)


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add --engine."""
    parser.add_argument(
        "--engine",
        default="auto",
        metavar="NAME",
        help="auto (the fastest installed) | torch | cuda-graph | onnxruntime | openvino | "
        "tensorrt",
    )


def add_hwaccel(parser: argparse.ArgumentParser) -> None:
    """Add --hwaccel."""
    parser.add_argument(
        "--hwaccel",
        choices=HWACCELS,
        default="none",
        help="cuda: decode and encode videos on an NVIDIA GPU (NVDEC, NVENC) where it can",
    )


def add_gaze_and_density(parser: argparse.ArgumentParser) -> None:
    """Add the options of the gaze and of the sampling density."""
    parser.add_argument("--gaze", default="centre", metavar="X,Y|FILE", help=GAZE_HELP)
    parser.add_argument(
        "--gaze-units",
        choices=["px", "norm", "ndc", "norm_up"],
        default=None,
        help="px of INPUT (default), norm 0..1 from the top left, ndc -1..1, y up, norm_up 0..1 "
        "from the bottom left",
    )
    add_gaze_offset(parser)
    parser.add_argument("--density", type=density, default="published", help=DENSITY_HELP)
    parser.add_argument(
        "--fov",
        type=float,
        metavar="DEGREES",
        help="horizontal field of view of the display, for a --density in degrees",
    )
    add_noise(parser, BEST_SAMPLING.noise)
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="seed of all random draws"
    )


def add_noise(parser: argparse.ArgumentParser, default: str) -> argparse.Action:
    """Add --noise."""
    return parser.add_argument(
        "--noise",
        choices=NOISES,
        default=default,
        help="how pixels are drawn: independent (published) | blue (spread evenly in space and "
        "time)",
    )


def add_jitter(parser: argparse.ArgumentParser, default: str | None) -> argparse.Action:
    """Add --jitter; default None: the best one that the generator and the other options allow."""
    usual = default or BEST_SAMPLING.jitter
    if default is None and usual != "none":
        usual += " where it can be used"
    return parser.add_argument(
        "--jitter",
        choices=JITTERS,
        default=default,
        help="how the sampling grid is shifted from frame to frame: none (published) | quad (four "
        f"phases, half a low-resolution pixel apart) | halton (default: {usual})",
    )


def add_motion(parser: argparse.ArgumentParser, default: str) -> None:
    """Add --motion, --motion-unit and --motion-from-previous."""
    parser.add_argument(
        "--motion",
        type=local_path,
        metavar="DIR",
        help="motion vectors: a .flo, .npy, .exr or 16-bit .png file per image, with its name "
        f"(default: {default})",
    )
    parser.add_argument(
        "--motion-unit",
        choices=MOTION_UNITS,
        default="px",
        help="pixels of the motion's own file (px, default) | shares of the frame, y down (norm) "
        "or up (norm_up) | -1 to 1, y up (ndc)",
    )
    parser.add_argument(
        "--motion-from-previous",
        action="store_true",
        help="the vectors point from where a point was to where it is now",
    )


def add_gaze_offset(parser: argparse.ArgumentParser) -> argparse.Action:
    """Add --gaze-offset."""
    return parser.add_argument(
        "--gaze-offset",
        type=seconds,
        default=0.0,
        metavar="SECONDS",
        help="seconds to add to the times of a gaze file; negative where its times begin later",
    )


def seconds(text: str) -> float:
    """Read a time in seconds, which may be negative."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"received {text!r:.100}, expected seconds, as -0.25")
    return value


def local_path(text: str) -> Path:
    """Read the path of an input; addresses and pipes are refused as they were typed."""
    if text == "-":
        raise argparse.ArgumentTypeError(
            "received '-', expected a file or folder; nothing is read from a pipe"
        )
    if "://" in text:
        raise argparse.ArgumentTypeError(
            f"received the address {text!r:.200}, expected a file or folder on this machine; "
            "download it first"
        )
    return Path(text)


def output_path(text: str) -> Path:
    """Read the path of an output; addresses and pipes are refused as they were typed."""
    if text == "-" or "://" in text:
        raise argparse.ArgumentTypeError(
            f"received {text!r:.200}, expected a file or folder on this machine to write to"
        )
    return Path(text)


def positive(text: str) -> int:
    """Read an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"received {text!r:.100}, expected a number from 1 on")
    return int(text)


def non_negative(text: str) -> int:
    """Read an integer of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"received {text!r:.100}, expected a number from 0 on")
    return int(text)


def rate(text: str) -> Fraction:
    """Read a frame rate, a number or a fraction; the video reader refuses impossible ones."""
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        expected = "a number or a fraction, as 25 or 30000/1001"
        raise argparse.ArgumentTypeError(f"received {text!r:.100}, expected {expected}") from None


def seed(text: str) -> int:
    """Read a seed of random draws."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"received {text!r:.100}, expected 0 to 2^32 - 1")
    return int(text)


def size(text: str) -> tuple[int, int]:
    """Read a height and a width, such as ``768x1024``."""
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and len(text) < 12):
        raise argparse.ArgumentTypeError(f"received {text!r:.100}, expected HxW, as 768x1024")
    return int(height), int(width)


def density(text: str) -> Density:
    """Read a density, see :meth:`Density.parse`."""
    try:
        return Density.parse(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def gaze_and_display(
    options: argparse.Namespace, reader: Any
) -> tuple[GazeTrack, DisplayGeometry | None, int | None]:
    """The gaze track, the display and the number of frames that the options state."""
    from .. import gaze

    size = (reader.height, reader.width)
    total = frame_total(reader, options.frames)
    seconds = (total or 3600 * reader.frame_rate) / reader.frame_rate + 1.0
    track = gaze_track(
        options.gaze,
        options.gaze_units,
        options.seed,
        size,
        scale=4 if options.simulate else 1,
        frame_rate=float(reader.frame_rate),
        seconds=float(seconds),
        frame_count=reader.frame_count,
        offset=options.gaze_offset,
    )
    geometry = None
    if options.fov is not None:
        geometry = gaze.DisplayGeometry(options.fov, size[1], size[0])
    return track, geometry, total


def gaze_track(
    word: str,
    units: str | None,
    seed: int | Sequence[int],
    size: tuple[int, int],
    *,
    scale: int,
    frame_rate: float,
    seconds: float,
    frame_count: int | None,
    offset: float,
) -> GazeTrack:
    """The track that --gaze names, for a video of that size (height, width), rate and length."""
    from .. import gaze

    is_point = "," in word and not Path(word).exists()
    if offset and (is_point or word in ("centre", "center", "random", "synthetic")):
        raise InputError(
            f"--gaze-offset: received {offset:g} with --gaze {word:.100}, which has no clock; "
            "leave it out, or give a gaze file"
        )
    if word in ("centre", "center"):
        return gaze.center()
    if word == "random":
        return gaze.random_point(seed, *(-(-side // scale) for side in size))
    if word == "synthetic":
        return gaze.synthetic(seed, seconds)
    if is_point:
        _hint_at_units(word, units)
        return gaze.parse_point(word, units or "px", frame_size=size)
    if "." not in word and not Path(word).exists():
        raise InputError(
            f"--gaze: received {word!r:.100}, expected X,Y, {', '.join(GAZE_KEYWORDS)} or the path "
            f"of a gaze file{did_you_mean(word, GAZE_KEYWORDS)}"
        )
    return gaze.read_track(
        word,
        units=units,
        frame_size=size,
        frame_rate=frame_rate,
        frame_count=frame_count,
        time_offset_seconds=offset,
    )


def _hint_at_units(point: str, units: str | None) -> None:
    """Warn if a point that looks normalised is interpreted as pixels."""
    with contextlib.suppress(ValueError):  # the reader of the point reports it
        x, y = (float(part) for part in point.split(","))
        if units is None and 0 <= x <= 1 and 0 <= y <= 1 and not (x % 1 == y % 1 == 0):
            print(
                f"deepfovea: --gaze {point} is taken for pixels, the top left corner; if 0 to 1 "
                "across the frame is meant, add --gaze-units norm",
                file=sys.stderr,
            )


def frame_total(reader: Any, frames: int | None) -> int | None:
    """The number of frames that will be read; None if the file does not state it."""
    count: int | None = reader.frame_count
    return frames if count is None else min(count, frames or count)


def make_reconstructor(
    options: argparse.Namespace, geometry: DisplayGeometry | None, frames: int | None = None
) -> Reconstructor:
    """The reconstructor that the options state; ``frames``: their number, if it is known."""
    from ..reconstructor import Reconstructor
    from ..runtime.device import pick_device
    from ..runtime.engine import load_engine

    device = pick_device(options.device)
    model = load_engine(options.model, options.engine, device, frames=frames)
    blue = options.noise == "blue"
    return Reconstructor(
        model, options.density, seed=options.seed, blue_noise=blue, geometry=geometry
    )


def chosen_jitter(options: argparse.Namespace, reconstructor: Reconstructor) -> str:
    """The value of ``--jitter``, else the best that ``--simulate`` and the generator allow."""
    from ..files_to_files import best_jitter

    return options.jitter or best_jitter(reconstructor, options.simulate)


def protect_inputs(
    options: argparse.Namespace, *outputs: Path | None, inputs: Iterable[Path] = ()
) -> None:
    """Refuse outputs that equal an input of the options or one of ``inputs``, or are inside one.

    A model may be a bundled name or a file; files are protected. A gaze that is not a keyword is a
    file or a folder; both are protected.
    """
    paths = [*_values(options, "input", "root", "data", "video", "motion")]
    paths += [*_values(options, "checkpoint", "gaze_calibration"), *inputs]
    paths += [folder for _, folder in getattr(options, "method", ())]
    gaze = getattr(options, "gaze", None)
    if gaze and gaze not in GAZE_KEYWORDS:
        paths.append(Path(gaze))
    if photos := getattr(options, "photos", ""):
        paths.append(Path(photos))
    texts = [*_values(options, "model", "start_from", "flow_weights", "perceptual_weights")]
    texts += comma_separated(getattr(options, "models", ""))
    files = [Path(text) for text in texts if text and _is_file(text)]
    refuse_overlap(filter(None, outputs), [*filter(None, paths), *files])


def _values(options: argparse.Namespace, *names: str) -> Iterator[Any]:
    """The values of options; if an option was given several times, each of its values."""
    for name in names:
        value = getattr(options, name, None)
        yield from value if isinstance(value, list) else [value]


def _is_file(text: str | Path) -> bool:
    with contextlib.suppress(OSError):  # the text is too long for a file name
        return Path(text).is_file()
    return False


def comma_separated(text: str) -> list[str]:
    """Split a text at its commas, and drop empty parts."""
    return [name for name in text.split(",") if name]


def write_text(path: Path, text: str) -> None:
    """Write a file, complete or not at all."""
    write_bytes(path, text.encode())


def write_grid(path: Path, samples: Tensor, prediction: Tensor, label: Tensor) -> None:
    """Write :func:`deepfovea.images.prediction_grid` as PNG."""
    from PIL import Image

    from ..images import prediction_grid

    content = io.BytesIO()
    Image.fromarray(prediction_grid(samples, prediction, label)).save(content, "PNG")
    write_bytes(path, content.getvalue())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a binary file, complete or not at all."""
    try:
        with ensure_folder(path.parent), atomic_write(path) as file:
            file.write(data)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another") from None


class ProgressBar:
    """A progress bar with frames per second and time left; only a terminal shows it."""

    def __init__(self, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
        from rich.text import Text

        class Rate(ProgressColumn):
            """Frames per second."""

            def render(self, task: Task) -> Text:
                return Text(f"{task.speed or 0.0:5.1f} frames/s")

        console = Console(stderr=True)
        self.bar = Progress(
            BarColumn(),
            "{task.completed}/{task.total}",
            Rate(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("", total=total)

    def __enter__(self) -> Callable[[], None]:
        self.bar.start()
        return lambda: self.bar.advance(self.task)

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
