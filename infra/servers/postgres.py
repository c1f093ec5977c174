"""PostgreSQL as a service: a cluster of its own that listens only on a Unix socket.

There are no passwords: the server asks the kernel who connects (peer authentication) and admits one user of this
machine.
"""

import os
import pwd
import shutil
import subprocess
from pathlib import Path
from urllib.parse import quote

from infra.servers.place import Place
from infra.servers.service import Service

DATABASES = {"mlflow": "mlflow", "mlflow_users": "mlflow", "prefect": "prefect"}  # each with its owner
PACKAGE = "install it (Debian: apt-get install postgresql), or put its programs on the PATH"


def postgres(where: Place) -> Service:
    """The service. Raises ValueError if PostgreSQL is missing."""
    programs = find_programs()
    data = where.database / "data"
    return Service(
        name="postgres",
        command=[
            str(programs / "postgres"), "-D", str(data), "-c", "listen_addresses=",
            "-c", "unix_socket_permissions=0700", "-c", f"unix_socket_directories={socket_folder(where)}",
            "-c", "max_connections=100",
        ],
        user="postgres" if os.geteuid() == 0 else None,
        prepare=lambda: _prepare(where, programs, data),
        healthy=lambda: _answers(where),
        complete=lambda: _make_databases(where),
        stop="SIGINT",  # PostgreSQL's "fast" shutdown: sessions are ended, data are written
        address=f"Unix socket in {socket_folder(where)}",
    )  # fmt: skip


def find_programs(debian: Path = Path("/usr/lib/postgresql")) -> Path:
    """The folder of initdb and postgres: from the PATH, else the newest in `debian`, where Debian puts them."""
    found = [Path(path).resolve().parent for path in [shutil.which("postgres")] if path]
    found += sorted(debian.glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    for folder in found:
        if (folder / "initdb").is_file() and (folder / "postgres").is_file():
            return folder
    raise ValueError(f"PostgreSQL is not on this machine; {PACKAGE}")


def socket_folder(where: Place) -> Path:
    """Where PostgreSQL's socket lies."""
    return where.database / "socket" if os.geteuid() == 0 else where.sockets


def address(where: Place, database: str, driver: str) -> str:
    """SQLAlchemy's address of a database; it holds no secret."""
    return f"postgresql+{driver}://{DATABASES[database]}@/{database}?host={quote(str(socket_folder(where)), safe='/')}"


def _prepare(where: Place, programs: Path, data: Path) -> None:
    if os.geteuid() == 0:
        _make_for_postgres(where)
    if not (data / "PG_VERSION").is_file():
        shutil.rmtree(data, ignore_errors=True)  # left by a first start that was killed
        command = [
            str(programs / "initdb"),
            "-D",
            str(data),
            "-U",
            "postgres",
            "--auth-local=peer",
            "--auth-host=reject",
        ]
        command += ["--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"]
        as_postgres = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        answer = subprocess.run(command, capture_output=True, text=True, cwd="/", **as_postgres)  # type: ignore[call-overload]
        if answer.returncode:
            shutil.rmtree(data, ignore_errors=True)
            raise ValueError(f"initdb failed: {(answer.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    made = int((data / "PG_VERSION").read_text())
    if made != int(programs.parent.name if programs.parent.name.isdigit() else made):
        raise ValueError(
            f"{data} was made by PostgreSQL {made}, but {programs.parent.name} is installed; use pg_upgrade, or move"
            " it away"
        )
    (data / "pg_hba.conf").write_text("local all all peer map=ganops\n")
    owner = pwd.getpwuid(data.stat().st_uid).pw_name
    roles = ("postgres", *sorted(set(DATABASES.values())))
    admitted = sorted({(user, role) for user in (owner, where.user) for role in roles})
    (data / "pg_ident.conf").write_text("".join(f'ganops "{user}" {role}\n' for user, role in admitted))


def _make_for_postgres(where: Place) -> None:
    """PostgreSQL refuses to run as root: for root its files belong to user postgres, outside root's private folder."""
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        raise ValueError(
            "PostgreSQL does not run as root, and there is no user postgres; run this as another user"
        ) from None
    for folder in (where.database.parent, where.database, where.database / "socket"):
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder != where.database.parent:
            os.chown(folder, user.pw_uid, user.pw_gid)
    link = where.folder / "postgres"
    if not link.is_symlink():
        link.symlink_to(where.database)


def _connect(where: Place):  # type: ignore[no-untyped-def]
    import psycopg2

    connection = psycopg2.connect(
        host=str(socket_folder(where)), user="postgres", dbname="postgres", connect_timeout=5, port=5432
    )
    connection.autocommit = True
    return connection


def _answers(where: Place) -> bool:
    import psycopg2

    try:
        _connect(where).close()
    except psycopg2.OperationalError:
        return False
    return True


def _make_databases(where: Place) -> None:
    connection = _connect(where)
    try:
        with connection.cursor() as cursor:
            for role in sorted(set(DATABASES.values())):
                cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role])
                if cursor.fetchone() is None:
                    cursor.execute(f"CREATE ROLE {role} LOGIN")
            for database, owner in DATABASES.items():
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database])
                if cursor.fetchone() is None:
                    cursor.execute(f"CREATE DATABASE {database} OWNER {owner}")
                cursor.execute(f"REVOKE CONNECT ON DATABASE {database} FROM PUBLIC")
    finally:
        connection.close()
