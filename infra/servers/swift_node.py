"""One process of OpenStack Swift, the S3 store of `make up`, under the system's Python, where Debian's Swift lives.

    /usr/bin/python3 -I swift_node.py ROLE FOLDER

ROLE is proxy, account, container, object, object-updater or container-updater; FOLDER holds `swift.conf`, `ROLE.conf`,
the rings, and `sockets/`. Swift is used as it is, except for three things. Its configuration is read from FOLDER
instead of /etc/swift. The back ends, which have no authentication, listen on Unix sockets in a private folder instead
of TCP ports; for the same reason there is no memcached, and the proxy looks everything up each time. And a filter makes
up for two points in which this Swift is too old for today's S3 clients.
"""

import base64
import hashlib
import io
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any

from eventlet.green import socket as green_socket
from swift.common import bufferedhttp, utils, wsgi
from swift.common.storage_policy import reload_storage_policies

MOST_BYTES_OF_NAMES = 2_100_000  # a thousand names of 1,024 bytes, written as XML
SERVERS = ("proxy", "account", "container", "object")


class NoMemory:
    """Takes the place of memcached and remembers nothing: S3 signatures are checked without a cache."""

    def get(self, *_: Any, **__: Any) -> None:
        return None

    def set(self, *_: Any, **__: Any) -> None:
        return None

    delete = set

    def incr(self, *_: Any, **__: Any) -> int:
        return 0


def no_memory(_global: dict[str, str], **_local: str) -> Any:
    """Paste filter factory for `NoMemory`."""

    def wrap(app: Any) -> Any:
        def call(env: dict[str, Any], start: Any) -> Any:
            env["swift.cache"] = NoMemory()
            return app(env, start)

        return call

    return wrap


def todays_clients(_global: dict[str, str], **_local: str) -> Any:
    """Paste filter factory. Today's clients send a CRC with deletes of many objects, where this s3api wants an MD5;
    answers to HEAD must have a length, or this eventlet sends an end of chunks after them, which strict clients reject.
    """

    def wrap(app: Any) -> Any:
        def call(env: dict[str, Any], start: Any) -> Any:
            length = int(env.get("CONTENT_LENGTH") or 0)
            many = env["REQUEST_METHOD"] == "POST" and env.get("QUERY_STRING", "").split("=")[0] == "delete"
            if many and "HTTP_CONTENT_MD5" not in env and 0 < length <= MOST_BYTES_OF_NAMES:
                body = env["wsgi.input"].read(length)  # its SHA-256 is part of the signature that s3api checks
                md5 = hashlib.md5(body, usedforsecurity=False).digest()
                env |= {"wsgi.input": io.BytesIO(body), "HTTP_CONTENT_MD5": base64.b64encode(md5).decode()}
            if env["REQUEST_METHOD"] != "HEAD":
                return app(env, start)

            def with_length(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
                if not any(name.lower() == "content-length" for name, _ in headers):
                    headers = [*headers, ("Content-Length", "0")]
                return start(status, headers, *more)

            return app(env, with_length)

        return call

    return wrap


class Stderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Takes the place of the syslog handler and writes to a copy of stderr, since Swift closes its own."""

    LOG_LOCAL0 = 0
    stream_of_all = os.fdopen(os.dup(2), "w", buffering=1)

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__(self.stream_of_all)


def main(role: str, folder: Path) -> int:
    """Run until stopped."""
    sockets = (folder / "sockets").resolve()  # a link's short target: socket paths have at most 107 bytes
    utils.SysLogHandler = Stderr
    utils.set_swift_dir(str(folder))
    reload_storage_policies()
    sys.modules["swift_node"] = sys.modules["__main__"]  # proxy.conf names its filters by that module
    _join(sockets)
    config = str(folder / f"{role.partition('-')[0]}.conf")
    if role in SERVERS:
        if role != "proxy":
            wsgi.get_socket = lambda conf: _listen(sockets / conf["bind_port"])
        return int(wsgi.run_wsgi(config, f"{role}-server"))
    from swift.common.daemon import run_daemon

    if role == "object-updater":
        from swift.obj.updater import ObjectUpdater as Updater
    else:
        from swift.container.updater import ContainerUpdater as Updater
    run_daemon(Updater, config, section_name=role)
    return 0


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    server = green_socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(path))
    server.listen(128)
    return server


def _join(sockets: Path) -> None:
    """Redirect Swift's own connections to 127.0.0.1:PORT to the socket called PORT."""

    def connect(connection: Any) -> None:
        connection._connected_time = bufferedhttp.time.time()
        connection.sock = green_socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(connection.timeout)
        connection.sock.connect(str(sockets / str(connection.port)))

    bufferedhttp.BufferedHTTPConnection.connect = connect


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
