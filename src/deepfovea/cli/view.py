"""The subcommand view."""

from __future__ import annotations

import argparse
import contextlib
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..config import BEST_SAMPLING, InputError, Sampling
from ..wording import pluralize
from .options import (
    Subcommands,
    add_device,
    add_engine,
    add_jitter,
    add_model,
    add_noise,
    local_path,
    one_line,
    output_path,
    positive,
    protect_inputs,
    seconds,
    size,
)

if TYPE_CHECKING:
    from ..viewer.live import LiveViewing

LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Those that the module webbrowser starts.
TEXT_BROWSERS = ("www-browser", "links", "elinks", "lynx", "w3m")


def add(subcommands: Subcommands) -> None:
    """Add this subcommand to the command line."""
    parser = subcommands.add_parser(
        "view",
        help="a page in the browser where the pointer is the gaze",
        description="Open a page in the browser that samples a video where the pointer, or an eye "
        "tracker, is and shows the reconstruction live. Other videos can be dropped on the page.",
        examples=(
            "deepfovea view video.mp4",
            "deepfovea view videos --port 0 --no-browser",
            "deepfovea view video.mp4 --gaze lsl --record-gaze gaze.csv",
            "deepfovea view video.mp4 --gaze udp:5005 --gaze-calibration gaze-calibration.json",
        ),
    )
    parser.add_argument(
        "input",
        nargs="?",
        type=local_path,
        metavar="VIDEO|FOLDER",
        help="full-resolution video, or a folder of them (default: the demo video)",
    )
    add_model(parser)
    add_device(parser)
    add_engine(parser)
    add_noise(parser, BEST_SAMPLING.noise)
    add_jitter(parser, BEST_SAMPLING.jitter)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: %(default)s, this machine only)",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=8765,
        metavar="N",
        help="port to listen on; 0 takes one that is free",
    )
    parser.add_argument(
        "--allowed-host",
        type=host_name,
        action="append",
        default=[],
        metavar="NAME",
        help="a name under which the page may also be opened, as behind a reverse proxy; "
        "may be given several times (default: none)",
    )
    parser.add_argument(
        "--max-clients",
        type=positive,
        default=10,
        metavar="N",
        help="how many pages may be open at once",
    )
    parser.add_argument(
        "--max-upload",
        type=positive,
        default=256,
        metavar="MIB",
        help="largest video that can be dropped on the page",
    )
    parser.add_argument(
        "--no-browser", action="store_true", help="only print the address, open no browser"
    )
    _add_live_gaze(parser)
    parser.set_defaults(handler=_view)


def _add_live_gaze(parser: argparse.ArgumentParser) -> None:
    """Add the options of a live eye tracker."""
    group = parser.add_argument_group("live eye tracker (extra live)")
    group.add_argument(
        "--gaze",
        metavar="SOURCE",
        help="an eye tracker: lsl[:NAME], pupil[:HOST], "
        "udp:[HOST:]PORT (JSON) or osc:[HOST:]PORT; see docs/live-gaze.md (default: the pointer)",
    )
    group.add_argument(
        "--gaze-units",
        choices=["px", "norm", "ndc", "norm_up"],
        help="units of the tracker's positions, as in reconstruct (default: what the stream "
        "states, else norm)",
    )
    group.add_argument(
        "--gaze-screen",
        type=size,
        metavar="HxW",
        help="pixels of the tracker's screen, where the unit is px",
    )
    group.add_argument(
        "--gaze-offset",
        type=milliseconds,
        default=0.0,
        metavar="MS",
        help="milliseconds to add to the tracker's times; negative for a delay that they lack",
    )
    group.add_argument(
        "--gaze-calibration",
        type=local_path,
        metavar="FILE",
        help="a calibration that the page has saved: from the tracker's positions to those "
        "in the video",
    )
    group.add_argument(
        "--predict-landing",
        action="store_true",
        help="during a saccade, sample where the eye will probably land",
    )
    group.add_argument(
        "--record-gaze",
        type=output_path,
        metavar="FILE",
        help="write the gaze of each frame shown as CSV for reconstruct and evaluate; for one "
        "video and one page",
    )
    group.add_argument("--overwrite", action="store_true", help="replace the file of --record-gaze")


def milliseconds(text: str) -> float:
    """Read a time in milliseconds, which may be negative, as seconds."""
    try:
        return seconds(text) / 1e3
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"received {text!r:.100}, expected milliseconds, as -20"
        ) from None


def host_name(text: str) -> str:
    """Read the host name in a name or an address: ``a.org`` of ``https://a.org:8080/viewer``."""
    with contextlib.suppress(ValueError):
        name = urlsplit(text if "//" in text else f"//{text}").hostname
        if name and "*" not in name:
            return name
    raise argparse.ArgumentTypeError(f"received {text!r:.100}, expected a name, as lab.example.org")


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"received {text!r:.100}, expected 0 to 65535")
    return int(text)


def _is_graphical(browsers: ModuleType) -> bool:
    """Whether the default browser is graphical, and not one that runs in the terminal."""
    try:
        browser = browsers.get()
    except browsers.Error:  # no browser is installed
        return False
    return Path(getattr(browser, "name", "")).name not in TEXT_BROWSERS


def _view(options: argparse.Namespace) -> None:
    missing = [name for name in ("starlette", "uvicorn", "websockets") if not find_spec(name)]
    if missing:
        raise InputError(
            f"view: {', '.join(missing)} is missing; pip install 'deepfovea[viewer]' brings it"
        )
    import webbrowser

    from ..checkpoint import bundled_models, resolve_path
    from ..demo import demo_video
    from ..runtime.device import pick_device
    from ..runtime.engine import BACKENDS, load_engine
    from ..video import find_videos
    from ..viewer.player import Player
    from ..viewer.server import serve
    from ..viewer.session import Catalog, LoadedModel

    source = options.input or demo_video()
    paths = find_videos(source) if source.is_dir() else [source]
    named = [(p, str(p.relative_to(source)) if p != source else p.name) for p in paths]
    problems: list[InputError] = []
    while named:  # find a video that can be shown, and report the others here
        try:
            Player(*named[0]).close()
            break
        except InputError as error:
            problems.append(error)
            del named[0]
    if not named:
        raise problems[0]
    for problem in problems:
        print(f"deepfovea: {one_line(problem)}; left out", file=sys.stderr)
    videos = {str(number): one for number, one in enumerate(named)}
    device = pick_device(options.device)
    resolve_path(options.model)
    # The page shows the last part of a path only, as it need not know this machine's folders.
    models = {Path(name).name: name for name in (options.model, *bundled_models())}

    def load_model(name: str) -> LoadedModel:
        model = load_engine(models[name], options.engine, device)
        return LoadedModel(model, f"{BACKENDS[model.name].title}, {device}")

    live = _live_viewing(options, videos)

    def ready(url: str) -> None:
        print(f"look at {url} (Ctrl+C ends)", flush=True)
        if live is not None:
            print(f"the gaze is that of: {live.gaze.title}", flush=True)
        if not options.no_browser and _is_graphical(webbrowser):
            webbrowser.open(url)

    if options.host not in LOOPBACK:
        print(
            f"deepfovea: --host {options.host}: whoever reaches this address can watch the "
            "videos, use this machine and drop files on it; there is no password",
            file=sys.stderr,
        )
    sampling = Sampling(options.noise, options.jitter)
    catalog = Catalog(videos, list(models), load_model, sampling, live=live)
    try:
        catalog.model(catalog.models[0])
        serve(
            catalog,
            host=options.host,
            port=options.port,
            allowed_hosts=options.allowed_host,
            max_clients=1 if options.record_gaze else options.max_clients,
            max_upload_bytes=options.max_upload * 2**20,
            on_ready=ready,
        )
    finally:
        if live is not None:
            live.close()
            _report(live)


def _live_viewing(
    options: argparse.Namespace, videos: dict[str, tuple[Path, str]]
) -> LiveViewing | None:
    """Open the tracker and the recording that the options ask for; None without a tracker."""
    from ..gaze.live import GazeRecording, LiveGaze, read_calibration
    from ..video import VideoReader
    from ..viewer.live import LiveViewing

    if options.gaze is None:
        for name in ("units", "screen", "offset", "calibration"):
            if getattr(options, f"gaze_{name}"):
                raise InputError(f"--gaze-{name}: received it without --gaze; add a tracker")
        if options.predict_landing or options.record_gaze:
            name = "--record-gaze" if options.record_gaze else "--predict-landing"
            raise InputError(f"{name}: received it without --gaze; add a tracker, as --gaze lsl")
        return None
    recording = None
    if options.record_gaze:
        if len(videos) != 1:
            raise InputError(
                f"--record-gaze: received {len(videos)} videos; expected one, to which it belongs"
            )
        path = videos["0"][0]
        protect_inputs(options, options.record_gaze, inputs=[path])
        with VideoReader(path) as reader:
            rate = float(reader.frame_rate)
        recording = GazeRecording(options.record_gaze, rate, overwrite=options.overwrite)
    calibration = read_calibration(options.gaze_calibration) if options.gaze_calibration else None
    gaze = LiveGaze(
        options.gaze,
        units=options.gaze_units,
        screen_size=options.gaze_screen,
        offset_seconds=options.gaze_offset,
        calibration=calibration,
        predict_landing=options.predict_landing,
    )
    return LiveViewing(gaze, recording, "" if recording is None else "0")


def _report(live: LiveViewing) -> None:
    """Print how many samples the tracker sent, and how good the predictions were."""
    counts, error = live.gaze.counts, live.gaze.prediction_error
    print(
        f"gaze: {pluralize(counts.received, 'sample')}, {counts.lost} of them lost; "
        f"{pluralize(counts.malformed, 'malformed packet')}, "
        f"{pluralize(counts.out_of_order, 'sample')} too late"
    )
    if error.saccades:
        print(
            f"saccades: {error.saccades}; the predicted landing was off by "
            f"{error.predicted_deg:.2f}°, the newest sample by {error.newest_deg:.2f}°"
        )
    if live.recording is not None and len(live.recording):
        print(f"wrote {live.recording.path}")
