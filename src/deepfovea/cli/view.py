"""The verb that shows it: view."""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from ..config import BEST_SAMPLING, InputError, Sampling
from .options import (
    Subcommands,
    add_jitter,
    add_model,
    add_noise,
    local_path,
    one_line,
    positive,
)

LOOPBACK = ("127.0.0.1", "localhost", "::1")
TEXT_BROWSERS = ("www-browser", "links", "elinks", "lynx", "w3m")  # all that webbrowser knows


def add(subcommands: Subcommands) -> None:
    """Add this subcommand to the command line."""
    parser = subcommands.add_parser(
        "view",
        help="a page in the browser where the pointer is the gaze",
        examples=("deepfovea view video.mp4", "deepfovea view videos --port 0 --no-browser"),
    )
    parser.add_argument(
        "input",
        nargs="?",
        type=local_path,
        metavar="VIDEO|FOLDER",
        help="full-resolution video, or a folder of them (default: the demo video)",
    )
    add_model(parser)
    add_noise(parser, BEST_SAMPLING.noise)
    add_jitter(parser, BEST_SAMPLING.jitter)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; the default is this machine only"
    )
    parser.add_argument(
        "--port", type=_port, default=8765, metavar="N", help="0 takes one that is free"
    )
    parser.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name under which the page may also be opened, as behind a reverse proxy; "
        "may be given several times",
    )
    parser.add_argument(
        "--max-clients", type=positive, default=10, metavar="N", help="pages at once"
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
    parser.set_defaults(handler=_view)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"received {text!r:.100}, expected 0 to 65535")
    return int(text)


def _is_graphical(browsers: ModuleType) -> bool:
    """Whether the browser that would open is not one of those that run in a terminal."""
    try:
        browser = browsers.get()
    except browsers.Error:  # there is none
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
    while named:  # said here rather than on the page
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
    # A path is shown by its last part alone: the page need not know this machine's folders.
    models = {Path(name).name: name for name in (options.model, *bundled_models())}

    def load_model(name: str) -> LoadedModel:
        model = load_engine(models[name], options.engine, device)
        return LoadedModel(model, f"{BACKENDS[model.name].title}, {device}")

    def ready(url: str) -> None:
        print(f"look at {url} (Ctrl+C ends)", flush=True)
        if not options.no_browser and _is_graphical(webbrowser):
            webbrowser.open(url)

    if options.host not in LOOPBACK:
        print(
            f"deepfovea: --host {options.host}: whoever reaches this address can watch the "
            "videos, use this machine and drop files on it; there is no password",
            file=sys.stderr,
        )
    sampling = Sampling(options.noise, options.jitter)
    catalog = Catalog(videos, list(models), load_model, sampling)
    catalog.model(catalog.models[0])
    serve(
        catalog,
        host=options.host,
        port=options.port,
        allowed_hosts=options.allowed_host,
        max_clients=options.max_clients,
        max_upload_bytes=options.max_upload * 2**20,
        on_ready=ready,
    )
