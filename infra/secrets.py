"""`python -m infra.secrets`: the secrets of compose.yaml and of kubernetes/, as files that git ignores.

One file per secret, mode 0600, in `containers/` of the state folder; existing files are kept. `infra/README.md` says
how Docker Compose and Kubernetes get them.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex

from infra.servers.place import private, write_private
from infra.servers.postgres import DATABASES
from stages.state import state_folder

DATA = ("postgres", "store", "prefect", "prefect-worker")


def files(secret: dict[str, str], user: int, group: int, folder: Path) -> dict[str, str]:
    """Name and content of each file."""
    roles = "".join(
        f"CREATE ROLE {role} LOGIN PASSWORD '{secret[role]}';\n" for role in ("mlflow", "prefect")
    )  # fmt: skip
    databases = "".join(
        f"CREATE DATABASE {name} OWNER {owner};\nREVOKE CONNECT ON DATABASE {name} FROM PUBLIC;\n"
        for name, owner in DATABASES.items()
    )
    users = {
        "default_permission": "READ",  # otherwise only admin can ask whether a model exists
        "database_uri": "postgresql+psycopg2://mlflow@postgres/mlflow_users",
        "admin_username": "admin",
        "admin_password": secret["mlflow-admin"],
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
        "auth_cache_ttl_seconds": "30",
    }
    return {
        "postgres-password": secret["postgres"],
        "databases.sql": roles + databases,
        "pgpass": "".join(f"postgres:5432:*:{role}:{secret[role]}\n" for role in ("mlflow", "prefect")),
        "mlflow.env": f"MLFLOW_FLASK_SERVER_SECRET_KEY={secret['mlflow-pages']}\n",
        "mlflow-users.ini": "[mlflow]\n" + "".join(f"{name} = {value}\n" for name, value in users.items()),
        "prefect.env": f"PREFECT_SERVER_API_AUTH_STRING=ganops:{secret['prefect-string']}\n",
        "worker.env": f"PREFECT_API_AUTH_STRING=ganops:{secret['prefect-string']}\n"
        "MLFLOW_TRACKING_URI=http://mlflow:5000\n"
        f"MLFLOW_TRACKING_USERNAME=ganops\nMLFLOW_TRACKING_PASSWORD={secret['mlflow-user']}\n",
        "store-user": "ganops",
        "store-password": secret["store"],
        "store-credentials": f"[default]\naws_access_key_id = ganops\naws_secret_access_key = {secret['store']}\n",
        "compose.env": f"GANOPS_UID={user}\nGANOPS_GID={group}\nGANOPS_FOLDER='{folder}'\n"
        f"GANOPS_PROJECT='{Path.cwd()}'\n",
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files unless they exist, and print the folder; exit code 1 if only some of them exist."""
    argparse.ArgumentParser(prog="python -m infra.secrets", description=__doc__).parse_args(argv)
    os.umask(0o077)
    folder = private(state_folder() / "containers")
    names = ("postgres", "mlflow", "prefect", "mlflow-pages", "mlflow-admin", "mlflow-user", "prefect-string", "store")
    fresh = files({name: token_hex(24) for name in names}, os.geteuid(), os.getegid(), folder)
    there = {name for name in fresh if (folder / name).exists()}
    if there and there != set(fresh):
        lost = ", ".join(sorted(set(fresh) - there))
        sys.stderr.write(f"secrets: {folder} lacks {lost}; restore them, or move the folder away to make new secrets\n")
        return 1
    for name, content in fresh.items():
        if not there:
            write_private(folder / name, content)
    for name in DATA:
        private(folder / name)
    sys.stdout.write(f"{folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
