"""What the supervisor knows about one server."""

import json
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


def nothing() -> None:
    """Default for a step in which a service has nothing to do."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """One server: how it is started, when it is healthy, how it is stopped."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    """Added to the supervisor's environment; no secrets here, since `ps` shows it."""
    user: str | None = None
    """The user it runs as, if not the supervisor's."""
    after: tuple[str, ...] = ()
    """Services that must be up before this one is started for the first time."""
    prepare: Callable[[], object] = nothing
    """Called before the first start; raises ValueError if the service cannot work."""
    healthy: Callable[[], bool]
    complete: Callable[[], object] = nothing
    """Called once it is healthy for the first time, to create users, databases, buckets; safe to repeat."""
    stop: str = "SIGTERM"
    address: str = ""
    """The address that users are shown."""


def ask(
    url: str, body: Any = None, *, user: str = "", password: str = "", method: str | None = None, seconds: float = 5
) -> tuple[int, str]:
    """HTTP status and text of a request with a JSON body; status 0 if no server answers."""
    headers = {"Content-Type": "application/json"}
    if user:
        headers["Authorization"] = "Basic " + b64encode(f"{user}:{password}".encode()).decode()
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers, method=method)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=seconds) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(errors="replace")
    except (OSError, ValueError):
        return 0, ""
