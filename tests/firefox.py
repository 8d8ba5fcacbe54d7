"""Controls Debian's Firefox over its WebSocket by WebDriver BiDi, a W3C standard.

Playwright controls only its own build of Firefox, and Debian has no geckodriver.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
from PIL import Image

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
PATIENCE = 20.0  # seconds
KEYS = {"Escape": "\ue00c", "Tab": "\ue004", "Home": "\ue011", "End": "\ue010", "Shift": "\ue008"}
KEYS |= {f"Arrow{way}": chr(0xE012 + i) for i, way in enumerate(("Left", "Up", "Right", "Down"))}
PREFERENCES = {
    "remote.active-protocols": 1,
    "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.reportingpolicy.firstRun": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.aboutwelcome.enabled": False,
    "app.update.disabledForTesting": True,
    "app.normandy.enabled": False,
    "extensions.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "browser.download.folderList": 2,
    "browser.download.alwaysOpenPanel": False,
}


@contextlib.contextmanager
def firefox(folder: Path, **preferences):
    """A headless Firefox with its own profile in an existing folder."""
    from websockets.sync.client import connect

    profile = folder / "profile"
    profile.mkdir()
    preferences = PREFERENCES | {"browser.download.dir": str(folder)} | preferences
    (profile / "user.js").write_text(
        "".join(
            f'user_pref("{key}", {json.dumps(value)});\n' for key, value in preferences.items()
        ),
        encoding="utf-8",
    )
    command = [FIREFOX, "--headless", "--no-remote", "--profile", str(profile)]
    log = folder / "firefox.log"
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [*command, "--remote-debugging-port", "0", "about:blank"],
            stdout=output,
            stderr=output,
        )
    try:
        until = time.monotonic() + 60.0  # the first start writes its profile
        while not (
            address := re.search(r"BiDi listening on (ws://\S+)", log.read_text(encoding="utf-8"))
        ):
            assert process.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < until, log.read_text(encoding="utf-8")
            time.sleep(0.1)
        with connect(address[1] + "/session", max_size=None) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        process.wait(timeout=30)


class Page:
    """One tab; collects the errors that it logs and the hosts that it contacts."""

    def __init__(self, socket) -> None:
        self._socket = socket
        self._number = 0
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.command("session.new", capabilities={})
        self.command("session.subscribe", events=["log.entryAdded", "network.beforeRequestSent"])
        tree = self.command("browsingContext.getTree")
        self.context = tree["contexts"][0]["context"]
        self.command("browsingContext.activate", context=self.context)  # gives it the focus

    def command(self, method, **parameters):
        """Send a command and return Firefox's answer; collect events that come before it."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv(timeout=PATIENCE))
            event = answer.get("params", {})
            if answer.get("method") == "log.entryAdded" and event["level"] == "error":
                self.complaints.append(event["text"])
            elif answer.get("method") == "network.beforeRequestSent":
                self.asked.append(event["request"]["url"])
            elif answer.get("id") == self._number:
                assert answer["type"] == "success", (method, answer)
                return answer["result"]

    def open(self, url, width, height):
        """Open an address in a window of the given size."""
        self.size(width, height)
        self.command("browsingContext.navigate", context=self.context, url=url, wait="complete")

    def size(self, width, height):
        """Set the size of the window."""
        viewport = {"width": width, "height": height}
        self.command("browsingContext.setViewport", context=self.context, viewport=viewport)

    def evaluate(self, expression):
        """The value of a JavaScript expression, through JSON; promises are awaited.

        It counts as done by a person, without which nothing becomes a full screen.
        """
        answer = self.command(
            "script.evaluate",
            expression=f"(async () => JSON.stringify(await ({expression}) ?? null))()",
            target={"context": self.context},
            awaitPromise=True,
            userActivation=True,
        )
        assert answer["type"] == "success", (expression, answer)
        return json.loads(answer["result"]["value"])

    def mouse(self, *actions, kind="mouse"):
        """Pointer actions, each a dictionary as in the standard."""
        source = {"type": "pointer", "id": kind, "parameters": {"pointerType": kind}}
        source["actions"] = list(actions)
        self.command("input.performActions", context=self.context, actions=[source])

    def move(self, x, y):
        """Move the mouse to a place of the window."""
        self.mouse({"type": "pointerMove", "x": round(x), "y": round(y)})

    def press(self, *keys):
        """Press keys together, then release them: "Shift", "ArrowLeft" or letters."""
        values = [KEYS.get(key, key) for key in keys]
        actions = [{"type": "keyDown", "value": value} for value in values]
        actions += [{"type": "keyUp", "value": value} for value in reversed(values)]
        source = {"type": "key", "id": "keyboard", "actions": actions}
        self.command("input.performActions", context=self.context, actions=[source])

    def files(self, selector, *paths):
        """Choose files in an input."""
        answer = self.command(
            "script.evaluate",
            expression=f"document.querySelector({json.dumps(selector)})",
            target={"context": self.context},
            awaitPromise=False,
        )
        element = {"sharedId": answer["result"]["sharedId"]}
        self.command(
            "input.setFiles", context=self.context, element=element, files=[*map(str, paths)]
        )

    def screenshot(self):
        """PNG of the window."""
        answer = self.command("browsingContext.captureScreenshot", context=self.context)
        return base64.b64decode(answer["data"])

    def picture(self):
        """The window as uint8 [H, W, 3]."""
        return np.asarray(Image.open(io.BytesIO(self.screenshot())).convert("RGB"))
