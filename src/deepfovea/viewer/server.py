"""The server: the page's files, the WebSocket and the upload.

Clients cannot name files: the page's files are read once at the start, videos are requested by
identifier, and an uploaded video is stored under a random name.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import mimetypes
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..config import InputError
from .live import MAX_REQUEST_BYTES, calibrate
from .player import Player
from .request import MAX_MESSAGE_BYTES
from .session import Catalog, Session

STATIC = Path(__file__).parent / "static"
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
# Limits for one page; all are our choice.
MESSAGES_PER_SECOND = 500  # a page sends a few for each frame that it paints
MESSAGE_BURST = 1000  # messages at once, as after a page was asleep
MALFORMED_ALLOWED = 20  # malformed messages before the connection is closed
SEND_SECONDS = 20.0  # a client that accepts no data for so long is disconnected
# WebSocket close codes (RFC 6455, and IANA's registry of close codes)
TRY_AGAIN_LATER, POLICY_VIOLATION = 1013, 1008

# The container is recognised by its first bytes before FFmpeg opens the file: a playlist (HLS,
# concat, SDP) would make FFmpeg open other files and hosts.
CONTAINER_SIGNATURES: tuple[tuple[int, bytes], ...] = (
    (4, b"ftyp"), (4, b"moov"), (4, b"mdat"), (4, b"wide"), (4, b"free"),  # MP4, QuickTime
    (0, b"\x1aE\xdf\xa3"),  # Matroska, WebM
    (8, b"AVI "), (0, b"OggS"), (0, b"FLV\x01"), (0, b"GIF8"),
    (0, b"\x00\x00\x01\xba"),  # MPEG program stream
    (0, b"0&\xb2u\x8ef\xcf\x11"),  # ASF, WMV
)  # fmt: skip

_log = logging.getLogger(__name__)


@dataclass
class Client:
    """One open page: its session, and the folder of its uploads."""

    session: Session
    folder: Path
    uploading: bool = False


def rejection_reason(
    host: str | None,
    origin: str | None,
    listen_host: str,
    allowed_hosts: Collection[str] = (),
) -> str | None:
    """Why a request must be refused; None if it is allowed.

    A page of another site could make a visitor's browser send requests to this server: under the
    site's own name, which the site resolves to this machine (DNS rebinding; the Host header has
    that name), or across sites (the Origin header differs). Allowed are IP addresses,
    ``localhost``, ``listen_host``, this machine's name and ``allowed_hosts``. Behind a reverse
    proxy, which may set the Host header, the Origin has to be one of ``allowed_hosts``.

    Args:
        host: the Host header.
        origin: the Origin header; programs other than browsers send none.
        listen_host: the name or address that the server listens on.
        allowed_hosts: further names, lower case, without a port.
    """
    name = urlsplit(f"//{host}").hostname if host else None
    if name is None:
        return "received no Host header; expected one"
    ours = {"localhost", listen_host.lower(), socket.gethostname().lower(), *allowed_hosts}
    if name not in ours and not _is_address(name):
        return (
            f"received the host {name[:80]!r}, which is not this server's; if it is, start "
            f"deepfovea view with --allowed-host {name[:80]}"
        )
    if origin is None or urlsplit(origin).netloc.lower() == (host or "").lower():
        return None
    site = urlsplit(origin).hostname or "null"
    if site in allowed_hosts:
        return None
    return (
        f"received a request from a page of {site[:80]!r}, which is another site; if that is a "
        f"proxy before this server, start deepfovea view with --allowed-host {site[:80]}"
    )


def _is_address(name: str) -> bool:
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return False


class OriginCheckMiddleware:
    """Middleware that refuses requests and WebSockets by :func:`rejection_reason`."""

    def __init__(self, app: ASGIApp, listen_host: str, allowed_hosts: Collection[str]) -> None:
        self.app = app
        self.listen_host = listen_host
        self.allowed_hosts = {name.lower() for name in allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            try:
                # The page's files are public, and the page must load so that it can show the error.
                is_file = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
                host, origin = headers.get("host"), None if is_file else headers.get("origin")
                reason = rejection_reason(host, origin, self.listen_host, self.allowed_hosts)
            except ValueError:
                reason = "received a malformed host"
            if reason and scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": POLICY_VIOLATION})
                return
            if reason:
                await PlainTextResponse(reason, status_code=403)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def make_app(
    catalog: Catalog,
    uploads: Path,
    *,
    host: str = "127.0.0.1",
    allowed_hosts: Collection[str] = (),
    max_clients: int = 10,
    max_upload_bytes: int = 256 * 2**20,
) -> ASGIApp:
    """Make the application.

    Args:
        catalog: videos and models.
        uploads: an existing folder for uploaded videos; those of a client are removed when it
            leaves.
        host: the name or address that the server listens on.
        allowed_hosts: names under which the page may also be opened, as behind a proxy.
        max_clients: largest number of open pages; another one is refused with a message.
        max_upload_bytes: largest size of an uploaded video. A client has one at a time.
    """
    clients: dict[str, Client] = {}

    async def watch(websocket: WebSocket) -> None:
        await websocket.accept()
        if len(clients) >= max_clients:
            message = f"{max_clients} viewers are connected, which is the limit; try again later"
            await websocket.send_text(json.dumps({"error": message, "full": True}))
            await websocket.close(TRY_AGAIN_LATER)
            return
        token = secrets.token_urlsafe(18)
        lock, loop = asyncio.Lock(), asyncio.get_running_loop()

        async def send(message: str | bytes) -> None:
            async with lock:
                if isinstance(message, str):
                    await websocket.send_text(message)
                else:
                    await websocket.send_bytes(message)

        session = Session(catalog, _blocking_sender(send, loop))
        clients[token] = client = Client(session, uploads / secrets.token_hex(8))
        hello = {
            "token": token,
            "models": list(catalog.models),
            "videos": [
                {"id": key, "name": name, "picture": f"thumbnails/{key}"}
                for key, (_, name) in catalog.videos.items()
            ],
            "max_upload_bytes": max_upload_bytes,
            "sampling": {
                "blue_noise": catalog.sampling.noise == "blue",
                "jitter": catalog.sampling.jitter,
            },
            "live": catalog.live and catalog.live.hello(),
        }

        def run() -> None:
            try:
                session.run()
            finally:  # if the session ends by itself, close the connection
                with contextlib.suppress(RuntimeError):  # the server has stopped
                    loop.call_soon_threadsafe(lambda: loop.create_task(_close(websocket)))

        thread = threading.Thread(target=run, name="viewer", daemon=True)
        try:
            await send(json.dumps({"hello": hello}))
            thread.start()
            await _receive_messages(websocket, session, send)
        except (WebSocketDisconnect, RuntimeError, OSError):
            pass  # the client is gone
        finally:
            session.close()
            del clients[token]
            # In a thread, as the session may still make a frame, and this must not be cancelled.
            threading.Thread(
                target=_remove_uploads, args=(thread, client.folder), daemon=True
            ).start()

    async def picture(request: Request) -> Response:
        try:
            content = await run_in_threadpool(catalog.thumbnail, request.path_params["video"])
        except (InputError, KeyError):
            return Response(status_code=404, headers=SECURITY_HEADERS)
        return Response(content, media_type="image/jpeg", headers=SECURITY_HEADERS)

    async def upload(request: Request) -> Response:
        client = clients.get(request.query_params.get("token", ""))
        if client is None:
            return _json_error(403, "received an unknown token; reload the page")
        if client.uploading:
            return _json_error(429, "received a second video; wait for the first")
        client.uploading = True
        identifier = secrets.token_hex(8)
        path = client.folder / identifier
        try:
            client.folder.mkdir(mode=0o700, exist_ok=True)
            await _save_upload(request, path, max_upload_bytes)
            await run_in_threadpool(_check_video, path)
        except (InputError, OSError, ClientDisconnect) as error:
            path.unlink(missing_ok=True)
            too_large = isinstance(error, UploadTooLarge)
            return _json_error(413 if too_large else 400, str(error) or "the upload was cut short")
        finally:
            client.uploading = False
        client.session.add_video(identifier, path, "dropped video")
        for earlier in client.folder.iterdir():
            if earlier != path:
                with contextlib.suppress(OSError):
                    earlier.unlink()
        return JSONResponse({"id": identifier})

    async def calibration(request: Request) -> Response:
        if catalog.live is None or request.query_params.get("token", "") not in clients:
            return _json_error(403, "received an unknown token; reload the page")
        try:
            body = b""
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_REQUEST_BYTES:
                    raise InputError(
                        f"calibration: received more than {MAX_REQUEST_BYTES} bytes; expected a "
                        "few points"
                    )
            return JSONResponse(calibrate(catalog.live.gaze, body))
        except (InputError, ClientDisconnect) as error:
            return _json_error(400, str(error))

    routes = [Route(f"/{name}", _static_endpoint(STATIC / name)) for name in _static_names()]
    app = Starlette(
        routes=[
            Route("/", _static_endpoint(STATIC / "index.html")),
            *routes,
            Route("/thumbnails/{video}", picture),
            Route("/upload", upload, methods=["POST"]),
            Route("/calibrate", calibration, methods=["POST"]),
            WebSocketRoute("/watch", watch),
        ]
    )
    return OriginCheckMiddleware(app, host, allowed_hosts)


async def _receive_messages(
    websocket: WebSocket, session: Session, send: Callable[..., Any]
) -> None:
    """Pass messages to the session until the client leaves or exceeds the limits."""
    allowance, before, malformed = float(MESSAGE_BURST), time.monotonic(), 0
    while True:
        event = await websocket.receive()
        if event["type"] == "websocket.disconnect":
            return
        now = time.monotonic()
        allowance = min(MESSAGE_BURST, allowance + MESSAGES_PER_SECOND * (now - before)) - 1
        before = now
        if allowance < 0:
            await websocket.close(POLICY_VIOLATION, "too many messages")
            return
        try:
            text = event.get("text")
            if text is None:
                raise InputError("a message: received bytes; expected JSON as text")
            session.apply_message(text)
        except InputError as error:
            malformed += 1
            if malformed > MALFORMED_ALLOWED:
                await websocket.close(POLICY_VIOLATION, "too many malformed messages")
                return
            await send(json.dumps({"error": str(error)}))


async def _close(websocket: WebSocket) -> None:
    with contextlib.suppress(Exception):
        await websocket.close()


def _blocking_sender(
    deliver: Callable[[str | bytes], Any], loop: asyncio.AbstractEventLoop
) -> Callable[[str | bytes], None]:
    """Make a function that sends from a thread and waits until it is sent, so that a slow client
    delays only its own thread."""

    def send(message: str | bytes) -> None:
        coroutine = deliver(message)
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        except RuntimeError as error:  # the server has stopped
            coroutine.close()
            raise ConnectionError from error
        try:
            future.result(SEND_SECONDS)
        except Exception as error:
            future.cancel()
            raise ConnectionError from error

    return send


def _remove_uploads(thread: threading.Thread, folder: Path) -> None:
    if thread.ident is not None:
        thread.join()
    shutil.rmtree(folder, ignore_errors=True)


class UploadTooLarge(InputError):
    """An upload beyond the limit."""


async def _save_upload(request: Request, path: Path, limit: int) -> None:
    """Write a request's body to a file, at most ``limit`` bytes of it."""
    too_large = UploadTooLarge(f"received a video of more than {limit / 2**20:g} MiB; shorten it")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    size = 0
    with path.open("xb") as file:
        async for chunk in request.stream():
            if size == 0 and chunk and not _has_signature(chunk):
                raise InputError("received no video; expected MP4, MOV, WebM, MKV, AVI or the like")
            size += len(chunk)
            if size > limit:
                raise too_large
            await run_in_threadpool(file.write, chunk)


def _has_signature(start: bytes) -> bool:
    return any(start[at : at + len(magic)] == magic for at, magic in CONTAINER_SIGNATURES)


def _check_video(path: Path) -> None:
    Player(path, "the video").close()


def _json_error(status: int, message: str) -> Response:
    return JSONResponse({"error": " ".join(message.splitlines())}, status_code=status)


def _static_names() -> list[str]:
    return sorted(path.name for path in STATIC.iterdir() if path.suffix in (".html", ".css",
                  ".js", ".svg"))  # fmt: skip


def _static_endpoint(path: Path) -> Callable[[Request], Response]:
    content = path.read_bytes()
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    if path.suffix == ".js":  # some systems guess another type, which browsers refuse for modules
        kind = "text/javascript"
    return lambda _: Response(content, media_type=kind, headers=SECURITY_HEADERS)


def serve(
    catalog: Catalog,
    *,
    host: str,
    port: int,
    allowed_hosts: Collection[str] = (),
    max_clients: int,
    max_upload_bytes: int,
    on_ready: Callable[[str], None],
) -> None:
    """Serve until interrupted.

    Args:
        catalog: see :func:`make_app`, also for the other arguments.
        host: name or address to listen on.
        port: port to listen on; 0 takes a free one.
        on_ready: called with the page's address once it can be opened.

    Raises:
        InputError: the server cannot listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"--host {host} --port {port}: cannot listen there ({reason}); "
            "choose another, --port 0 takes a free one"
        ) from None
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    address = f"[{shown}]" if ":" in shown else shown
    url = f"http://{address}:{listener.getsockname()[1]}/"
    with (
        listener,
        tempfile.TemporaryDirectory(prefix="deepfovea-", ignore_cleanup_errors=True) as uploads,
    ):
        app = make_app(
            catalog,
            Path(uploads),
            host=host,
            allowed_hosts=allowed_hosts,
            max_clients=max_clients,
            max_upload_bytes=max_upload_bytes,
        )
        config = uvicorn.Config(
            app,
            log_level="warning",
            ws_max_size=2 * MAX_MESSAGE_BYTES,
            timeout_graceful_shutdown=1,
            lifespan="off",
            server_header=False,
        )
        server = uvicorn.Server(config)
        threading.Thread(target=_announce, args=(server, url, on_ready), daemon=True).start()
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


def _announce(server: uvicorn.Server, url: str, on_ready: Callable[[str], None]) -> None:
    while not server.started and not server.should_exit:
        time.sleep(0.02)
    if server.started:
        on_ready(url)
