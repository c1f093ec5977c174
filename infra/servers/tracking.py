"""MLflow's server as a service: on PostgreSQL, artifacts in the S3 store, users and permissions on."""

import json
import sys
from pathlib import Path

from infra.servers import postgres
from infra.servers.place import Place, private, write_private
from infra.servers.service import Service, ask
from infra.servers.store import client_files

USER = "ganops"
SETTINGS = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_BASIC_AUTH_FAIL_CLOSED": "true",
    "MLFLOW_CREATE_MODEL_VERSION_SOURCE_VALIDATION_REGEX": "^(mlflow-artifacts|runs|models):",
}


def mlflow(where: Place, port: int, kept: dict[str, str]) -> Service:
    """The service. The flows are user `ganops`, who owns what they create; people use `admin` and users made by it."""
    folder = private(where.folder / "mlflow")
    return Service(
        name="mlflow",
        command=[
            sys.executable, "-m", "infra.servers.launch", str(folder / "secrets"), "mlflow", "server",
            "--app-name", "basic-auth", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
            "--allowed-hosts", f"127.0.0.1:{port},localhost:{port}",
            "--cors-allowed-origins", f"http://127.0.0.1:{port}",
            "--backend-store-uri", postgres.address(where, "mlflow", "psycopg2"),
            "--artifacts-destination", "s3://mlflow/artifacts",
        ],
        environment=SETTINGS | client_files(where, "mlflow") | {
            "MLFLOW_AUTH_CONFIG_PATH": str(folder / "users.ini"),
        },
        after=("postgres",),  # the store may come later: the first artifact needs it
        prepare=lambda: _prepare(where, folder, kept),
        healthy=lambda: ask(f"http://127.0.0.1:{port}/health")[0] == 200,
        complete=lambda: _make_user(port, kept),
        address=f"http://127.0.0.1:{port}",
    )  # fmt: skip


def _prepare(where: Place, folder: Path, kept: dict[str, str]) -> None:
    write_private(folder / "secrets", f"MLFLOW_FLASK_SERVER_SECRET_KEY={kept['mlflow_pages']}\n")
    users = {
        "default_permission": "READ",  # otherwise only admin can ask whether a model exists
        "database_uri": postgres.address(where, "mlflow_users", "psycopg2").replace("%", "%%"),
        "admin_username": "admin",
        "admin_password": kept["mlflow_admin"],
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
        "grant_default_workspace_access": "false",
        "auth_cache_ttl_seconds": "30",  # checking a password is slow by design; the flows ask several times per second
    }
    write_private(folder / "users.ini", "[mlflow]\n" + "".join(f"{name} = {value}\n" for name, value in users.items()))


def _make_user(port: int, kept: dict[str, str]) -> None:
    api, admin = f"http://127.0.0.1:{port}/api/2.0/mlflow/users", kept["mlflow_admin"]
    if ask(f"{api}/get?username={USER}", user="admin", password=admin, seconds=30)[0] == 200:
        return
    body = {"username": USER, "password": kept["mlflow_user"]}
    status, text = ask(f"{api}/create", body, user="admin", password=admin, seconds=30)
    if status != 200 and "RESOURCE_ALREADY_EXISTS" not in text:
        with_reason = json.loads(text).get("message", text) if text.startswith("{") else text
        raise ValueError(f"MLflow did not make the user {USER} (status {status}): {with_reason[:300]}")


def client(port: int, kept: dict[str, str]) -> dict[str, str]:
    """What a client of this server needs in its environment; MLflow has no other place for the password."""
    return {
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}",
        "MLFLOW_TRACKING_USERNAME": USER,
        "MLFLOW_TRACKING_PASSWORD": kept["mlflow_user"],
    }
