"""A Prefect server that lives as long as a run, for runs that were given none.

Prefect would start one itself, but only after its imports, and a flow that is killed would leave it running. This one
starts while the imports go on, and is on a leash. It has no web page and listens on the loopback address.
"""

import contextlib
import os
import socket
import sys
import threading
import time
import tomllib
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from flows.work.process import leashed

START_SECONDS = 180.0
_URL = "PREFECT_API_URL"
_APART = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}


@contextlib.contextmanager
def temporary_server(held: int) -> Iterator[Callable[[], None]]:
    """Make sure that Prefect knows a server while the block runs: the configured one, else a temporary one.

    Yields a function that returns when the server answers; call it once what the run needs is imported. It raises
    ValueError if the server does not start. `held` is the descriptor of the lock, kept as long as the server lives.
    """
    if os.environ.get(_URL) or _named_in_profile() or _named_here():
        yield lambda: None
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ[_URL], os.environ["PREFECT_UI_URL"] = f"http://127.0.0.1:{port}/api", ""
    command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "error", "--lifespan", "on"]
    command += ["--timeout-graceful-shutdown", "2"]  # seconds
    try:
        with leashed(command, cwd=Path.cwd(), held=held, extra=_APART) as process:
            said: deque[str] = deque(maxlen=20)
            assert process.stdout is not None
            reader = threading.Thread(target=said.extend, args=(process.stdout,), daemon=True)
            reader.start()

            def ready() -> None:
                deadline = time.monotonic() + START_SECONDS
                while not _healthy(os.environ[_URL]):
                    if process.poll() is not None or time.monotonic() > deadline:
                        told = next((line.strip() for line in reversed(said) if line.strip()), "it said nothing")
                        raise ValueError(f"Prefect's temporary server did not start: {told}")
                    time.sleep(0.1)

            yield ready
    finally:
        del os.environ[_URL], os.environ["PREFECT_UI_URL"]


def _named_in_profile() -> bool:
    """Whether the user's Prefect profiles name a server; Prefect itself then works out which."""
    home = os.environ["PREFECT_HOME"]
    path = Path(os.environ.get("PREFECT_PROFILES_PATH") or Path(home, "profiles.toml"))
    return path.is_file() and _URL in path.read_text(encoding="utf-8", errors="replace")


def _named_here() -> bool:
    """Whether a file of the working folder that Prefect reads names a server: .env, prefect.toml or pyproject.toml."""
    lines = _text(".env").splitlines()
    if any(line.removeprefix("export ").lstrip().startswith(f"{_URL}=") for line in lines):
        return True
    try:
        own, shared = (tomllib.loads(_text(name)) for name in ("prefect.toml", "pyproject.toml"))
    except tomllib.TOMLDecodeError:
        return False  # Prefect reports what is wrong with the file
    sections = own, shared.get("tool", {}).get("prefect", {})
    return any("url" in section.get("api", {}) for section in sections)


def _text(name: str) -> str:
    return Path(name).read_text(encoding="utf-8", errors="replace") if Path(name).is_file() else ""


def _healthy(api: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{api}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
