"""The subcommand page."""

from __future__ import annotations

import argparse

from .options import MODEL_HELP, Subcommands, local_path, output_path, protect_inputs


def add(subcommands: Subcommands) -> None:
    """Add this subcommand to the command line."""
    parser = subcommands.add_parser(
        "page",
        help="a folder of static files: the viewer without a server",
        description="Write a page that runs a model in the visitor's browser. Any web host serves "
        "the folder, also below a prefix; videos and gaze stay on the visitor's machine. ONNX "
        "Runtime is fetched from npm's registry once, checked and kept in the user's cache.",
        examples=(
            "deepfovea page -o page",
            "deepfovea page -o page --model stream --model stream-perceptual",
            "deepfovea page -o page --video walk.mp4 --video street.webm",
        ),
    )
    parser.add_argument(
        "-o",
        "--output",
        type=output_path,
        required=True,
        metavar="FOLDER",
        help="folder to write: a new one, or with --overwrite an earlier page",
    )
    parser.add_argument(
        "--model",
        action="append",
        metavar="NAME|PATH",
        help=f"a stream network: {MODEL_HELP}; may be given several times (default: stream)",
    )
    parser.add_argument(
        "--video",
        action="append",
        type=local_path,
        metavar="FILE",
        help="an MP4 or WebM that the page offers beside the drawn ones; may be given several "
        "times (default: none)",
    )
    parser.add_argument(
        "--size",
        default="auto",
        metavar="PIXELS",
        help="longer side of the frame that the network makes: auto (as large as 10 frames per "
        "second allow) | 384 | 512 | 768 | 1024; the page can change it",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier page")
    parser.set_defaults(handler=_page)


def _page(options: argparse.Namespace) -> None:
    from ..viewer.page import build_page

    protect_inputs(options, options.output)
    page = build_page(
        options.output,
        options.model or ["stream"],
        videos=options.video or (),
        size=options.size,
        overwrite=options.overwrite,
        log=print,
    )
    print(
        f"{page.folder}: {page.total / 1e6:.1f} MB, of which a first visit fetches "
        f"{page.first_visit / 1e6:.1f} MB by gzip ({page.first_visit_webgpu / 1e6:.1f} MB with "
        f"WebGPU); python -m http.server --directory {page.folder} serves it"
    )
