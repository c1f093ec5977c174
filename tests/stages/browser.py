"""A real browser for tests of pages: headless Chromium, driven through its devtools socket."""

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((found for name in _NAMES if (found := shutil.which(name))), None)
_FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0",
          "--no-first-run", "--disable-background-networking", "--hide-scrollbars"]  # fmt: skip


class Page:
    """One tab."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self.requests: list[str] = []  # addresses that the page asked for, data: and blob: left out
        self.faults: list[str] = []  # uncaught exceptions of its scripts

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") == "Network.requestWillBeSent":
            address = message["params"]["request"]["url"]
            if not address.startswith(("data:", "blob:")):
                self.requests.append(address)
        if message.get("method") == "Runtime.exceptionThrown":
            self.faults.append(json.dumps(message["params"]))

    def open(self, path: Path) -> None:
        for domain in ("Page", "Network", "Runtime"):
            self.ask(f"{domain}.enable")
        self.run("window.left = true")  # the page before is complete, too, until the new one takes its place
        self.ask("Page.navigate", url=path.resolve().as_uri())
        while self.run("window.left || document.readyState !== 'complete'"):
            pass

    def run(self, script: str) -> Any:
        """The value of an expression in the page, awaited."""
        found = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.ask(
                "Input.dispatchKeyEvent", type=kind, key=key, text=key if len(key) == 1 and kind == "keyDown" else ""
            )

    def shape(self, width: int, height: int, *, dark: bool = False) -> None:
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path, *, whole: bool = True) -> None:
        found = self.ask("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))


def _first_page(port: str) -> str:
    """Address of the socket of the first tab, which comes into being after the browser has said that it listens."""
    for _ in range(600):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
            for target in json.load(answer):
                if target["type"] == "page":
                    return target["webSocketDebuggerUrl"]
        time.sleep(0.1)
    raise TimeoutError("the browser has no tab")


@contextlib.contextmanager
def tab(folder: Path) -> Iterator[Page]:
    """A fresh browser with its profile in `folder`; what pages save lands in `folder`/downloads."""
    from websockets.sync.client import connect

    assert CHROMIUM is not None
    (folder / "downloads").mkdir(parents=True)
    environment = os.environ | {"HOME": str(folder)}
    browser = subprocess.Popen(
        [CHROMIUM, *_FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment,
    )  # fmt: skip
    try:
        assert browser.stderr is not None
        address = next(line for line in browser.stderr if "DevTools listening on" in line).split()[-1]
        port = address.split(":")[2].split("/")[0]
        with connect(_first_page(port), max_size=None) as socket:
            page = Page(socket)
            page.ask("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder / "downloads"))
            yield page
    finally:
        browser.terminate()
        browser.wait(timeout=30)
        if browser.stderr is not None:
            browser.stderr.close()
