"""The command line: words to calls, nothing else. Heavy imports happen inside the handlers."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_type_hints

from .config import Density, InputError, TrainConfig

if TYPE_CHECKING:
    from .gaze import DisplayGeometry, GazeTrack
    from .reconstruct import Reconstructor

DENSITY_HELP = (
    "published (default) | budget:PERCENT | uniform:PERCENT | CENTRE,PERIPHERY,INNER,OUTER "
    "in low-resolution pixels, with 'deg' behind it in degrees (needs --fov)"
)
GAZE_HELP = (
    "X,Y | centre (default) | random (one seeded point, as published) | synthetic (seeded "
    "fixations and saccades) | a CSV file, Pupil Labs gaze.csv and Pupil Core included"
)


class Parser(argparse.ArgumentParser):
    """Reports a wrong command line in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        self.exit(2, f"{self.prog}: {_one_line(message)}; see '{self.prog} --help'\n")


def _one_line(message: object) -> str:
    return " ".join(str(message).splitlines())  # names of files may hold anything


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code: 0, 2 for bad input, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    handler: Callable[[argparse.Namespace], None] = options.handler
    try:
        handler(options)
    except InputError as error:
        print(f"deepfovea: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("deepfovea: interrupted; no unfinished output was left", file=sys.stderr)
        return 130
    return 0


def _parser() -> Parser:
    from . import __version__

    parser = Parser(
        prog="deepfovea",
        description="Foveated video: reconstruct and super-resolve by four what was sampled "
        "densely at the gaze and sparsely elsewhere.",
    )
    parser.add_argument("--version", action="version", version=f"deepfovea {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)

    verb = verbs.add_parser("reconstruct", help="a video or folder of images into a larger one")
    _input_output(verb)
    _model(verb)
    _gaze_and_density(verb)
    verb.add_argument(
        "--simulate",
        action="store_true",
        help="INPUT is full resolution: reduce it first, report quality",
    )
    verb.add_argument(
        "--side-by-side",
        action="store_true",
        help="also write samples | reconstruction (| original) beside OUTPUT",
    )
    verb.set_defaults(handler=_reconstruct)

    verb = verbs.add_parser("sample", help="write what the network sees")
    _input_output(verb)
    _gaze_and_density(verb)
    verb.add_argument(
        "--simulate", action="store_true", help="INPUT is full resolution: reduce it by four first"
    )
    verb.set_defaults(handler=_sample)

    verb = verbs.add_parser("info", help="parameters, provenance and cost of a model")
    verb.add_argument("model", metavar="MODEL", help="name or .safetensors file")
    verb.set_defaults(handler=_info)

    verb = verbs.add_parser("export", help="a streaming model as ONNX, one frame per run")
    verb.add_argument("model", metavar="MODEL", help="name or .safetensors file")
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.onnx")
    verb.add_argument("--opset", type=_positive, default=16, metavar="N", help="16 (default) to 20")
    verb.add_argument(
        "--static", metavar="HxW", help="fix the low resolution: multiples of eight, batch one"
    )
    verb.add_argument("--fp16", action="store_true", help="float16 weights and convolutions")
    verb.set_defaults(handler=_export)

    verb = verbs.add_parser("demo", help="reconstruct a real video and compare")
    verb.add_argument("-o", "--output", type=Path, default=Path("demo-output"), metavar="FOLDER")
    verb.add_argument("--video", type=Path, help="instead of the demo video")
    verb.add_argument("--frames", type=_positive, metavar="N", help="stop after N frames")
    verb.add_argument("--seed", type=_seed, default=0)
    _model(verb)
    verb.set_defaults(handler=_demo)

    verb = verbs.add_parser("evaluate", help="score models and baselines on a folder of videos")
    verb.add_argument("root", type=Path, metavar="DIR")
    verb.add_argument("--models", default="stream", metavar="NAME|PATH,…")
    verb.add_argument("--baselines", default="fill,accumulate,bicubic-all", metavar="NAME,…")
    verb.add_argument("--frames", type=_positive, default=24, metavar="N", help="of every clip")
    verb.add_argument("--seed", type=_seed, default=0)
    verb.add_argument("--density", type=_density, default=Density(), help=DENSITY_HELP)
    verb.add_argument("--blue-noise", action="store_true", help="even draws")
    verb.add_argument("--json", type=Path, metavar="FILE")
    verb.add_argument("--markdown", type=Path, metavar="FILE")
    verb.set_defaults(handler=_evaluate)

    verb = verbs.add_parser("train", help="train a generator on a folder of videos")
    verb.add_argument("--data", type=Path, required=True, metavar="DIR")
    verb.add_argument("--run", type=Path, required=True, metavar="FOLDER")
    verb.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    verb.add_argument(
        "--start-from", metavar="NAME|PATH", help="begin a new run with the weights of a model"
    )
    verb.add_argument(
        "--cache",
        type=Path,
        metavar="FOLDER",
        help="of decoded frames, shared by runs (default: RUN/frames)",
    )
    hints = get_type_hints(TrainConfig)
    for field in dataclasses.fields(TrainConfig):
        verb.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=hints[field.name],
            default=field.default,
            help=f"default {field.default}",
        )
    verb.set_defaults(handler=_train)
    return parser


def _input_output(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("input", type=Path, metavar="INPUT", help="video file or folder of images")
    verb.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="OUTPUT",
        help="video file; without a suffix a folder of PNGs",
    )
    verb.add_argument("--overwrite", action="store_true", help="replace an existing OUTPUT")
    verb.add_argument("--frames", type=_positive, metavar="N", help="stop after N frames")
    verb.add_argument("--frame-rate", type=float, metavar="FPS", help="of a folder of images")


def _model(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--model", default="stream", metavar="NAME|PATH", help="default stream")
    verb.add_argument("--device", default="auto", help="auto (default) | cpu | cuda | cuda:N | mps")


def _gaze_and_density(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--gaze", default="centre", metavar="X,Y|FILE", help=GAZE_HELP)
    verb.add_argument(
        "--gaze-units",
        choices=["px", "norm", "ndc"],
        default=None,
        help="px of INPUT (default), norm 0..1 from the top left, ndc -1..1, y up",
    )
    verb.add_argument("--density", type=_density, default=Density(), help=DENSITY_HELP)
    verb.add_argument(
        "--fov", type=float, metavar="DEGREES", help="horizontal field of view of the display"
    )
    verb.add_argument(
        "--blue-noise",
        action="store_true",
        help="even draws in space and time instead of independent ones",
    )
    verb.add_argument("--seed", type=_seed, default=0, help="of all random draws")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"received {text!r:.100}, expected a number from 1 on")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"received {text!r:.100}, expected 0 to 2^32 - 1")
    return int(text)


def _density(text: str) -> Density:
    try:
        return Density.parse(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _reconstruct(options: argparse.Namespace) -> None:
    from .reconstruct import reconstruct_file
    from .video import VideoReader

    with VideoReader(options.input, frame_rate=options.frame_rate) as reader:
        gaze, geometry, total = _where(options, reader)
    beside = None
    if options.side_by_side:
        output = options.output
        beside = output.parent / f"{output.stem}-side-by-side{output.suffix}"
    with _progress(total) as advance:
        summary = reconstruct_file(
            options.input,
            options.output,
            _reconstructor(options, geometry),
            gaze=gaze,
            simulate=options.simulate,
            side_by_side=beside,
            frame_rate=options.frame_rate,
            max_frames=options.frames,
            overwrite=options.overwrite,
            on_frame=lambda *_: advance(),
        )
    quality = "" if summary.psnr is None else f", PSNR {summary.psnr:.2f} dB against the input"
    print(
        f"{options.output}: {summary.frames} frames, {100 * summary.sampled:.1f} % of the "
        f"low-resolution pixels sampled, {summary.frames_per_second:.1f} frames/s{quality}"
    )


def _sample(options: argparse.Namespace) -> None:
    from .reconstruct import sample_file
    from .video import VideoReader

    with VideoReader(options.input, frame_rate=options.frame_rate) as reader:
        gaze, geometry, total = _where(options, reader)
    with _progress(total) as advance:
        share = sample_file(
            options.input,
            options.output,
            options.density,
            gaze=gaze,
            geometry=geometry,
            seed=options.seed,
            blue_noise=options.blue_noise,
            simulate=options.simulate,
            frame_rate=options.frame_rate,
            max_frames=options.frames,
            overwrite=options.overwrite,
            on_frame=advance,
        )
    print(f"{options.output}: {100 * share:.1f} % of the low-resolution pixels sampled")


def _info(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from .checkpoint import describe

    table = Table(show_header=False, box=None)
    for name, value in describe(options.model).items():
        table.add_row(name, str(value))
    Console(highlight=False).print(table)


def _export(options: argparse.Namespace) -> None:
    from .checkpoint import load
    from .export import export_onnx, parse_size

    difference = export_onnx(
        load(options.model),
        options.output,
        name=Path(options.model).stem,
        opset=options.opset,
        static=parse_size(options.static) if options.static else None,
        half=options.fp16,
    )
    print(
        f"{options.output}: opset {options.opset}; frames differ from torch by at most "
        f"{difference:.1e}"
    )


def _demo(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from .demo import demo_video, run_demo
    from .video import VideoReader

    video = options.video or demo_video()
    with VideoReader(video) as reader:
        total = _total(reader, options.frames)
    options.density, options.blue_noise = Density(), False
    with _progress(total) as advance:
        demo = run_demo(
            video,
            options.output,
            _reconstructor(options, None),
            max_frames=options.frames,
            on_frame=advance,
        )
    table = Table(title=f"{video.name}, {demo.summary.frames} frames: PSNR against the original")
    table.add_column("method")
    table.add_column("dB", justify="right")
    for name, value in demo.psnr.items():
        table.add_row(options.model if name == "reconstruction" else name, f"{value:.2f}")
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"sampled: {100 * demo.summary.sampled:.1f} % of the low-resolution pixels, "
        f"{100 * demo.summary.sampled / 16:.2f} % of the output's\n"
        f"speed: {demo.summary.frames_per_second:.1f} frames/s, decoding and encoding included"
    )
    for file in demo.files:
        console.print(f"look at {file}")


def _evaluate(options: argparse.Namespace) -> None:
    from .evaluate import evaluate, to_json, to_markdown

    rows = evaluate(
        options.root,
        _names(options.models),
        _names(options.baselines),
        frames=options.frames,
        seed=options.seed,
        density=options.density,
        blue_noise=options.blue_noise,
        on_row=lambda row: print(f"{row.clip}  {row.method}  {row.psnr:.2f} dB", file=sys.stderr),
    )
    print(to_markdown(rows))
    protocol = {
        "data": options.root.name,
        "frames": options.frames,
        "seed": options.seed,
        "density": dataclasses.asdict(options.density),
        "blue_noise": options.blue_noise,
        "gaze": "centre",
        "metric": "PSNR, RGB, peak 1.0, clamped, mean over frames, no padding",
        "reduction": "bilinear /4, no antialiasing",
    }
    for path, text in (
        (options.json, to_json(rows, protocol)),
        (options.markdown, to_markdown(rows)),
    ):
        if path:
            _write_text(path, text + "\n")


def _train(options: argparse.Namespace) -> None:
    fields = {f.name: getattr(options, f.name) for f in dataclasses.fields(TrainConfig)}
    try:
        from .training.train import train
    except ModuleNotFoundError as error:
        raise InputError(
            f"training needs {error.name}, which is missing: pip install 'deepfovea[train]'"
        ) from None
    model = train(
        options.data,
        options.run,
        TrainConfig(**fields),
        options.resume,
        options.cache,
        options.start_from,
    )
    print(f"{model}: trained; 'deepfovea reconstruct --model {model}' uses it")


def _where(
    options: argparse.Namespace, reader: Any
) -> tuple[GazeTrack, DisplayGeometry | None, int | None]:
    from . import gaze

    size = (reader.height, reader.width)
    scale = 4 if options.simulate else 1
    total = _total(reader, options.frames)
    word = options.gaze
    if word in ("centre", "center"):
        track = gaze.center()
    elif word == "random":
        track = gaze.random_point(options.seed, *(-(-side // scale) for side in size))
    elif word == "synthetic":
        seconds = (total or 3600 * reader.frame_rate) / reader.frame_rate + 1.0
        track = gaze.synthetic(options.seed, float(seconds))
    elif "," in word and not Path(word).exists():
        track = gaze.parse_point(word, options.gaze_units or "px", frame_size=size)
    else:
        track = gaze.read_track(
            word, units=options.gaze_units, frame_size=size, frame_rate=float(reader.frame_rate)
        )
    geometry = None
    if options.fov is not None:
        geometry = gaze.DisplayGeometry(options.fov, size[1], size[0])
    return track, geometry, total


def _total(reader: Any, frames: int | None) -> int | None:
    count: int | None = reader.frame_count
    return frames if count is None else min(count, frames or count)


def _reconstructor(options: argparse.Namespace, geometry: DisplayGeometry | None) -> Reconstructor:
    from .checkpoint import load
    from .reconstruct import Reconstructor, pick_device

    model = load(options.model, pick_device(options.device))
    return Reconstructor(
        model, options.density, seed=options.seed, blue_noise=options.blue_noise, geometry=geometry
    )


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _write_text(path: Path, text: str) -> None:
    temporary = path.parent / f".{path.name}.tmp"
    try:
        temporary.write_text(text)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another") from None


class _progress:
    """A progress bar with frames per second and time left; silent where nobody watches."""

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
