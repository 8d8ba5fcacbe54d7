"""Claims about coming back: the page stands where it stood, whatever came in between.

A wire between browser and server takes the place of cables, sleeping computers and proxies.
"""

import contextlib
import json
import socket
import struct
import threading
from urllib.parse import urlsplit

import pytest
from noise import LEFT, PATIENCE, RIGHT, make_noise, wait_until
from test_viewer_browser import choose, fovea_is_at, look, small_fovea, wait_for_frames
from viewing import CHROMIUM, chromium, running_viewer

pytest.importorskip("playwright", reason="playwright is not installed (it is in the extra dev)")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium (Debian: apt-get install chromium)"),
    pytest.mark.flaky(reruns=2),  # a browser may starve where everything runs at once
]
MIDDLE = "1"  # second of the video


class Wire:
    """Carries bytes between the page and the server; it can be cut and mended."""

    def __init__(self, server):
        self.server = server
        self.port = 0
        self.ends = []  # the page's end and the server's of each connection
        self.forgotten = set()  # ends of the server that were given up in silence
        self.mend()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.port}/"

    def mend(self):
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def cut(self):
        """Nothing is reached any more, and both ends notice."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for end in [end for pair in self.ends for end in pair]:
            _close(end)
        self.ends.clear()

    def forget(self):
        """The server gives the connections up, and the page does not hear of it.

        So it is after a sleep that is longer than the server's patience: the page learns from
        the answer to what it sends next, a reset, that there is no connection.
        """
        self.forgotten |= {server for _, server in self.ends}
        for _, server in self.ends:
            _close(server)

    def _accept(self, listener):
        with contextlib.suppress(OSError):
            while True:
                page, _ = listener.accept()
                server = socket.create_connection(self.server)
                self.ends.append((page, server))
                for pump in (self._to_server, self._to_page):
                    threading.Thread(target=pump, args=(page, server), daemon=True).start()

    def _to_server(self, page, server):
        with contextlib.suppress(OSError):
            while data := page.recv(2**16):
                try:
                    server.sendall(data)
                except OSError:  # forgotten
                    page.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    break
        page.close()
        _close(server)

    def _to_page(self, page, server):
        with contextlib.suppress(OSError):
            while data := server.recv(2**16):
                page.sendall(data)
        if server not in self.forgotten:
            _close(page)


def _close(end):
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = make_noise(tmp_path_factory.mktemp("return"))
    words = (folder / "noise.mp4", "--model", folder / "tiny.safetensors", "--engine", "torch")
    with running_viewer(*words) as address:
        yield "127.0.0.1", urlsplit(address).port


@pytest.fixture
def wire(server):
    wire = Wire(server)
    yield wire
    wire.cut()


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


def opened_in_the_middle(context, wire):
    """A page that rests at MIDDLE, shows the samples, and looks to the left."""
    page = context.new_page()
    page.set_default_timeout(1e3 * PATIENCE)
    page.goto(wire.address)
    wait_for_frames(page)
    small_fovea(page)
    choose(page, "samples")
    page.fill("#position", MIDDLE)
    wait_until(lambda: page.inner_text("#clock").startswith("0:01.0"))
    look(page, LEFT)
    fovea_is_at(page, LEFT, away_from=RIGHT)
    return page


@pytest.fixture
def context(browser):
    with contextlib.closing(
        browser.new_context(viewport={"width": 1000, "height": 420}, reduced_motion="reduce")
    ) as context:
        yield context


def is_back(page):
    """Frames come again, of the same place, with what was chosen; the gaze is followed."""
    wait_for_frames(page)
    wait_until(lambda: page.inner_text("#clock").startswith("0:01.0"))
    for here, there in ((RIGHT, LEFT), (LEFT, RIGHT)):
        look(page, here)
        fovea_is_at(page, here, away_from=there)


def test_a_lost_connection(context, wire):
    page = opened_in_the_middle(context, wire)
    wire.cut()
    page.locator("#notice").filter(has_text="No connection").wait_for()
    wire.mend()
    is_back(page)


def test_each_tab_has_its_own_place(context, wire):
    first = opened_in_the_middle(context, wire)
    second = context.new_page()
    second.set_default_timeout(1e3 * PATIENCE)
    second.goto(wire.address)
    wait_for_frames(second)
    assert second.inner_text("#clock").startswith("0:00.0")
    wire.cut()
    for page in (first, second):
        page.locator("#notice").filter(has_text="No connection").wait_for()
    wire.mend()
    wait_for_frames(second)
    wait_until(lambda: second.inner_text("#clock").startswith("0:00.0"))
    first.bring_to_front()
    is_back(first)
    first.reload()
    wait_for_frames(first)
    wait_until(lambda: first.inner_text("#clock").startswith("0:01.0"))


def test_sleep_and_wake(context, wire):
    page = opened_in_the_middle(context, wire)
    session = context.new_cdp_session(page)
    session.send("Page.setWebLifecycleState", {"state": "frozen"})
    wire.forget()
    session.send("Page.setWebLifecycleState", {"state": "active"})
    # Nobody touches the page: it finds out by itself.
    page.locator("#notice").filter(has_text="No connection").wait_for()
    is_back(page)


def test_a_tab_that_the_browser_puts_aside_has_kept_its_place(context, wire):
    page = opened_in_the_middle(context, wire)
    # What a browser says first of all of a tab that it will put aside, and perhaps last.
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    place = json.loads(page.evaluate("sessionStorage.getItem('place')"))
    assert (place["video"], place["seconds"]) == ("noise.mp4", 1.0)
