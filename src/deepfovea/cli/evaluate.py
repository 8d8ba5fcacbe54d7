"""The subcommand evaluate."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import JITTERS, NOISES, InputError
from ..wording import format_duration, pluralize
from .options import (
    DENSITY_HELP,
    DEVICE_HELP,
    GAZE_HELP,
    MODEL_HELP,
    PrintAndExit,
    Subcommands,
    add_gaze_offset,
    comma_separated,
    density,
    gaze_track,
    local_path,
    non_negative,
    one_line,
    output_path,
    positive,
    protect_inputs,
    seed,
    shortened,
    write_bytes,
    write_text,
)

if TYPE_CHECKING:
    from ..evaluate import Result
    from ..evaluate.clips import ReferenceClip
    from ..evaluate.resume import KeptRows
    from ..gaze import GazeTrack

WRITTEN = ("json", "markdown", "csv", "latex", "plots", "html")
"""Options that name an output."""

METRICS_HELP = (
    "what to measure besides PSNR, L1 and MSE: names with commas between, all, or psnr for nothing "
    "else; --list-metrics describes each (default: all but jod, cvvdp and st-lpips, each of which "
    "takes about as long as all others together)"
)


def add(subcommands: Subcommands) -> None:
    """Add these subcommands to the command line."""
    parser = subcommands.add_parser(
        "evaluate",
        help="score models and baselines on a folder of videos",
        description="Score models and baselines on every clip of a folder, which is the ground "
        "truth. The exit code is 1 if a clip could not be read.",
        examples=(
            "deepfovea evaluate videos --models stream,paper --json results.json --plots plots",
            "deepfovea evaluate videos --metrics psnr --frames 8    # quickly",
            "deepfovea evaluate results.json --markdown tables.md   # rendered again",
            "deepfovea evaluate --compare before.json after.json",
        ),
    )
    parser.add_argument(
        "root",
        nargs="?",
        type=local_path,
        metavar="DIR|VIDEO|FILE.json",
        help="folder of videos or folders of images, or one video; or what --json wrote, to render "
        "it again",
    )
    runs = [
        parser.add_argument("--models", default="stream", metavar="NAME|PATH,…", help=MODEL_HELP),
        parser.add_argument(
            "--baselines",
            default="fill,accumulate,bicubic-all",
            metavar="NAME,…",
            help="methods that need no training, or all; --list-baselines says what there is",
        ),
        parser.add_argument(
            "--method",
            action="append",
            default=[],
            type=named_folder,
            metavar="NAME=FOLDER",
            help="frames that another tool has made: in FOLDER a video or a folder of images named "
            "as each clip; may be given several times (default: none)",
        ),
        parser.add_argument(
            "--data",
            metavar="NAME",
            help="reds4 | vid4 | davis | spmcs: DIR is that data set, of which the usual subset is "
            "taken if it is complete; --list-data says where to get each (default: all in DIR)",
        ),
        parser.add_argument(
            "--protocol",
            default="published",
            metavar="NAME",
            help="published (the sampling of the DeepFovea++ paper) | best (our best sampling) | "
            "saccades (a gaze that jumps) | renderer (motion and jitter are given: frames of a "
            "renderer with motion files beside them); other options change it, and tables say so",
        ),
        parser.add_argument(
            "--frames",
            type=positive,
            metavar="N",
            help="frames of every clip (default: the protocol's)",
        ),
        parser.add_argument(
            "--gaze",
            metavar="WORD|FILE",
            help=f"{GAZE_HELP}; or a folder with CLIP.csv for every clip (default: the protocol's)",
        ),
        parser.add_argument(
            "--gaze-units",
            choices=["px", "norm", "ndc", "norm_up"],
            help="as in reconstruct (default: px, or what a file says)",
        ),
        add_gaze_offset(parser),
        parser.add_argument(
            "--seed",
            type=seed,
            metavar="N",
            help="seed of all random draws (default: the protocol's)",
        ),
        parser.add_argument(
            "--density", type=density, help=f"{DENSITY_HELP} (default: the protocol's)"
        ),
        parser.add_argument(
            "--fov",
            type=float,
            metavar="DEGREES",
            help="horizontal angle that the frames fill (default: the protocol's)",
        ),
        parser.add_argument(
            "--noise", choices=NOISES, help="how pixels are drawn (default: the protocol's)"
        ),
        parser.add_argument(
            "--jitter",
            choices=JITTERS,
            help="how the sampling grid is shifted from frame to frame (default: the protocol's)",
        ),
        parser.add_argument("--metrics", metavar="NAME,…", help=METRICS_HELP),
        parser.add_argument(
            "--flow",
            metavar="NAME",
            help="estimator of the true motion, for E_warp (default: the protocol's)",
        ),
        parser.add_argument(
            "--flow-weights",
            type=local_path,
            metavar="FILE",
            help="weights of the estimator of --flow (default: what comes with it)",
        ),
        parser.add_argument("--device", default="auto", help=DEVICE_HELP),
        parser.add_argument(
            "--engine",
            default="torch",
            metavar="NAME",
            help="torch (the same everywhere) | cuda-graph | onnxruntime | openvino | tensorrt | "
            "auto",
        ),
        parser.add_argument(
            "--workers",
            type=non_negative,
            default=0,
            metavar="N",
            help="how many processes decode clips ahead",
        ),
    ]
    parser.add_argument(
        "--compare",
        nargs=2,
        type=local_path,
        metavar=("A.json", "B.json"),
        help="instead of scoring a folder, print what changed between two results of one protocol, "
        "clip by clip",
    )
    parser.add_argument(
        "--list-metrics",
        action=PrintAndExit,
        lines=_metric_lines,
        help="print all metrics and exit",
    )
    parser.add_argument(
        "--list-data", action=PrintAndExit, lines=_data_lines, help="print all data sets and exit"
    )
    parser.add_argument(
        "--list-baselines",
        action=PrintAndExit,
        lines=_baseline_lines,
        help="print all baselines and exit",
    )
    parser.add_argument(
        "--json",
        type=output_path,
        metavar="FILE",
        help="write everything, to render again; until then finished clips are kept beside it, "
        "and the same command goes on after an interruption",
    )
    parser.add_argument(
        "--markdown",
        type=output_path,
        metavar="FILE",
        help="write the tables; into a file with the marks '<!-- deepfovea evaluate: begin -->' "
        "and '… end -->', between these",
    )
    parser.add_argument(
        "--csv",
        type=output_path,
        metavar="FILE",
        help="write every figure of every clip and method",
    )
    parser.add_argument(
        "--latex",
        type=output_path,
        metavar="FILE",
        help="write the table of means, for the LaTeX package booktabs",
    )
    parser.add_argument(
        "--plots",
        type=output_path,
        metavar="DIR",
        help="write charts, and a contact sheet per clip in sheets/",
    )
    parser.add_argument(
        "--html",
        type=output_path,
        metavar="DIR",
        help="write a report for the browser, index.html: tables to sort, charts, and frames to "
        "wipe between methods",
    )
    parser.set_defaults(
        handler=_evaluate,
        runs={run.dest: parser.get_default(run.dest) for run in runs},
    )


def _metric_lines() -> Iterator[str]:
    from ..metrics import METRICS, Settings

    for metric in METRICS.values():
        yield f"{metric.selector}: {metric.heading}, per {metric.scope}: {metric.definition}"
        missing = metric.unavailable(Settings())
        if missing:
            yield f"    unavailable: {missing}"


def _baseline_lines() -> Iterator[str]:
    from ..evaluate import BASELINES

    for baseline in BASELINES.values():
        yield f"{baseline.name}: {baseline.definition}"
        missing = baseline.unavailable()
        if missing:
            yield f"    unavailable: {missing}"


def _data_lines() -> Iterator[str]:
    from ..evaluate.datasets import DATA_SETS

    for dataset in DATA_SETS.values():
        yield f"{dataset.name}: {dataset.definition}"
        yield f"    from {dataset.where}; licence: {dataset.licence}"


def named_folder(text: str) -> tuple[str, Path]:
    """Read ``NAME=FOLDER``."""
    name, sign, folder = text.partition("=")
    if not (name and sign and folder) or not name.isprintable() or "|" in name:
        raise argparse.ArgumentTypeError(f"received {text!r:.100}, expected NAME=FOLDER")
    return name, local_path(folder)


def _baselines(options: argparse.Namespace) -> list[str]:
    """The names of the baselines; ``all`` means those that are installed."""
    from ..evaluate import BASELINES

    names = comma_separated(options.baselines)
    if "all" not in names:
        return names
    missing = {name: baseline.unavailable() for name, baseline in BASELINES.items()}
    for name, reason in missing.items():
        if reason:
            print(f"baseline {name}: left out: {reason}", file=sys.stderr)
    return [name for name, reason in missing.items() if not reason]


def _evaluate(options: argparse.Namespace) -> int:
    from ..evaluate.resume import KeptRows
    from ..evaluate.run import is_first_process
    from ..video import is_video

    if options.compare:
        return _compare(options)
    if options.root is None:
        raise InputError(
            "evaluate: received no folder; expected DIR, VIDEO, FILE.json or --compare"
        )
    sheets = options.plots and options.plots / "sheets"
    files = [options.json, options.markdown, options.csv, options.latex]
    protect_inputs(options, *files, sheets, options.html)
    for file in filter(None, files):
        if file.is_dir():  # before anything is computed
            raise InputError(f"{file}: received a folder, expected the name of a file")
    keep = None
    if is_video(options.root) or not options.root.is_file():
        if options.json:
            gaze = [Path(word) for word in (options.gaze,) if word and Path(word).exists()]
            keep = KeptRows(options.json, gaze)
        result = _run(options, keep)
    else:
        for name, default in options.runs.items():
            if getattr(options, name) != default:
                raise InputError(
                    f"--{name.replace('_', '-')}: received it together with {options.root}, of "
                    "which tables are only rendered again; leave it out, or give a folder"
                )
        result = _read(options.root)
    if is_first_process():
        _write(result, options)
        if keep:
            keep.remove()
    return 1 if result.failed else 0


def _read(path: Path) -> Result:
    from ..evaluate import from_json

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise InputError(
            f"{path}: received neither videos nor a JSON of results; expected DIR, VIDEO or "
            "FILE.json: check the path"
        ) from None
    return from_json(text, str(path))


def _compare(options: argparse.Namespace) -> int:
    from ..evaluate import compare

    given = [name for name in ("root", *WRITTEN) if getattr(options, name) is not None]
    if given:
        raise InputError(
            f"--compare: received it together with {given[0]}; expected two results and nothing "
            "else: the comparison is printed"
        )
    one, two = map(_read, options.compare)
    print(compare(one, two, (str(options.compare[0]), str(options.compare[1]))))
    return 0


def _run(options: argparse.Namespace, keep: KeptRows | None) -> Result:
    from ..evaluate import evaluate
    from ..evaluate.contact_sheets import Panels, render_sheet
    from ..evaluate.datasets import data_set
    from ..evaluate.html import frame_files
    from ..evaluate.plots import require_matplotlib
    from ..evaluate.result import DEFAULT_METRICS, METRIC_GROUPS, Row, load_protocol
    from ..runtime.allocator import keep_freed_memory
    from ..runtime.device import pick_device

    metrics: tuple[str, ...] = DEFAULT_METRICS
    if options.metrics is not None:
        asked = comma_separated(options.metrics)
        metrics = METRIC_GROUPS if "all" in asked else tuple(m for m in asked if m != "psnr")
    protocol = load_protocol(options.protocol)
    gaze = protocol.gaze if options.gaze is None else options.gaze
    given = {
        "frames": options.frames,
        "seed": options.seed,
        "density": options.density,
        "blue_noise": None if options.noise is None else options.noise == "blue",
        "jitter": options.jitter,
        "fov_deg": options.fov,
        "flow": options.flow,
    }
    protocol = replace(
        protocol,
        metrics=metrics,
        gaze=gaze
        + (f" {options.gaze_units}" if options.gaze_units else "")
        + (f" {options.gaze_offset:+g} s" if options.gaze_offset else ""),
        **{name: value for name, value in given.items() if value is not None},
    )
    models = comma_separated(options.models)
    for folder in filter(None, (options.plots, options.html)):  # before anything is computed
        require_matplotlib()
        _make_folder(folder)

    def track(clip: ReferenceClip) -> GazeTrack:
        height, width = clip.frames.shape[1:3]
        return gaze_track(
            _gaze_of(gaze, clip.name),
            options.gaze_units,
            # A point of its own for every clip, whatever other clips there are.
            (protocol.seed, zlib.crc32(clip.name.encode())),
            (height, width),
            scale=4,
            frame_rate=clip.frames_per_second,
            seconds=float(clip.times[-1]) + 1.0,
            frame_count=clip.frame_count,
            offset=options.gaze_offset,
        )

    def log(line: str) -> None:
        print(one_line(line), file=sys.stderr, flush=True)

    def on_row(row: Row) -> None:
        log(f"{shortened(row.clip)}  {shortened(row.method)}  {row.psnr:.2f} dB")

    start = time.monotonic()

    def on_progress(done: int, left: int) -> None:
        seconds = (time.monotonic() - start) / done * left
        about = f"{pluralize(left, 'clip')} left, about {format_duration(seconds)}"
        log(about if left else "all clips are done")

    def on_sheet(clip: str, panels: list[Panels]) -> None:
        if options.plots:
            path = options.plots / "sheets" / f"{clip}.png"
            write_bytes(path, render_sheet(panels, models))
        if options.html:
            for name, data in frame_files(clip, panels).items():
                write_bytes(options.html / name, data)

    keep_freed_memory()
    return evaluate(
        options.root,
        models,
        _baselines(options),
        protocol,
        others=dict(options.method),
        track=track,
        flow_weights=options.flow_weights,
        device=pick_device(options.device),
        engine=options.engine,
        workers=options.workers,
        on_row=on_row,
        on_note=log,
        on_sheet=on_sheet if options.plots or options.html else None,
        on_progress=on_progress,
        keep=keep,
        dataset=data_set(options.data) if options.data else None,
    )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: no folder for pictures ({error.strerror}); choose another"
        ) from None


def _gaze_of(word: str, clip: str) -> str:
    """The gaze file of a clip, if --gaze is a folder."""
    folder = Path(word)
    if not folder.is_dir():
        return word
    file = folder / f"{clip}.csv"
    return str(file if file.exists() else (folder / clip).with_suffix(".csv"))


def _write(result: Result, options: argparse.Namespace) -> None:
    from ..evaluate import to_csv, to_json, to_latex, to_markdown
    from ..evaluate.html import to_html
    from ..evaluate.plots import charts
    from ..evaluate.report import insert_tables

    tables = to_markdown(result)
    print(tables)
    if options.json:
        write_text(options.json, to_json(result) + "\n")
    if options.markdown:
        before = ""
        # A file that does not exist or is not text is replaced.
        with contextlib.suppress(OSError, ValueError):
            before = options.markdown.read_text(encoding="utf-8")
        write_text(options.markdown, insert_tables(before, tables))
    if options.csv:
        write_text(options.csv, to_csv(result))
    if options.latex:
        write_text(options.latex, to_latex(result))
    for folder in filter(None, (options.plots, options.html)):
        _make_folder(folder)
        for name, data in charts(result).items():
            write_bytes(folder / name, data)
    if options.html:
        page = to_html(result, list(charts(result)), options.html)
        write_text(options.html / "index.html", page)
