"""Prefect's server and a process worker as services: on PostgreSQL, behind one authentication string."""

import json
import sys
from pathlib import Path

import yaml

from infra.servers import postgres
from infra.servers.place import PROJECT, Place, private, write_private
from infra.servers.service import Service, ask

USER = "ganops"
SETTINGS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    "PREFECT_CLI_PROMPT": "false",
    "NO_COLOR": "1",
}


def server(where: Place, port: int, kept: dict[str, str]) -> Service:
    """The server, in a home of its own."""
    home, name = private(where.folder / "prefect-server"), pool()
    secret = f"PREFECT_SERVER_API_AUTH_STRING={USER}:{kept['prefect']}\n"
    return Service(
        name="prefect",
        command=[
            sys.executable, "-m", "infra.servers.launch", str(home / "secrets"), "prefect", "server", "start",
            "--host", "127.0.0.1", "--port", str(port),
        ],
        environment=SETTINGS | {
            "PREFECT_HOME": str(home),
            "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
            "PREFECT_API_DATABASE_CONNECTION_URL": postgres.address(where, "prefect", "asyncpg"),
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{port}",
            "PREFECT_SERVER_UI_API_URL": "/api",  # the pages ask the server that they came from
        },
        after=("postgres",),
        prepare=lambda: write_private(home / "secrets", secret),
        healthy=lambda: ask(f"http://127.0.0.1:{port}/api/health")[0] == 200,
        complete=lambda: _make_pool(port, kept, name),
        address=f"http://127.0.0.1:{port}",
    )  # fmt: skip


def worker(where: Place, port: int, settings: Path) -> Service:
    """The worker: runs flows in this working copy, with the settings that users source."""
    name = pool()
    return Service(
        name="worker",
        command=[
            sys.executable, "-m", "infra.servers.launch", str(settings), "prefect", "worker", "start",
            "--pool", name, "--type", "process", "--name", "local", "--no-create-pool-if-not-found",
            "--install-policy", "never",
        ],
        environment=SETTINGS,
        after=("prefect", "mlflow"),
        healthy=lambda: _online(port, where, name),
        address=f"work pool {name}",
    )  # fmt: skip


def pool() -> str:
    """The work pool that the deployments of prefect.yaml name first."""
    deployments = yaml.safe_load((PROJECT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    return str(deployments[0]["work_pool"]["name"])


def client(where: Place, port: int, kept: dict[str, str]) -> dict[str, str]:
    """What a client of this server needs in its environment; the authentication string is in a profile."""
    home = private(where.folder / "prefect")
    api = f"http://127.0.0.1:{port}/api"
    profile = f'active = "ganops"\n\n[profiles.ganops]\nPREFECT_API_URL = "{api}"\n'
    write_private(home / "profiles.toml", f'{profile}PREFECT_API_AUTH_STRING = "{USER}:{kept["prefect"]}"\n')
    return {
        "PREFECT_API_URL": api,
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
    }


def _make_pool(port: int, kept: dict[str, str], name: str) -> None:
    body = {"name": name, "type": "process"}
    status, text = ask(
        f"http://127.0.0.1:{port}/api/work_pools/", body, user=USER, password=kept["prefect"], seconds=30
    )
    if status not in (201, 409):  # created, or there already
        raise ValueError(f"Prefect did not make the work pool {name} (status {status}): {text[:300]}")


def _online(port: int, where: Place, name: str) -> bool:
    password = json.loads((where.folder / "secrets.json").read_text())["prefect"]
    url = f"http://127.0.0.1:{port}/api/work_pools/{name}/workers/filter"
    status, text = ask(url, {}, user=USER, password=password)
    return status == 200 and any(found["status"] == "ONLINE" for found in json.loads(text))
