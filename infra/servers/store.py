"""The S3-compatible store: OpenStack Swift with its s3api, from Debian's packages. One replica, in one folder.

Six processes: proxy (S3 and signatures), account, container and object server, and the two updaters that repair
listings after a crash. MLflow and DVC have an account each, with its own key: neither can read the other's files.
"""

import os
import subprocess
import sys
from pathlib import Path

from infra.servers.place import Place, private, write_private
from infra.servers.service import Service, ask

SYSTEM_PYTHON = "/usr/bin/python3"
BACK_ENDS = {"account": 1, "container": 2, "object": 3}  # names of sockets, which Swift takes for port numbers
ROLES = (*BACK_ENDS, "proxy", "object-updater", "container-updater")
CLIENTS = ("mlflow", "dvc")
PACKAGES = "apt-get install --no-install-recommends swift-proxy swift-account swift-container swift-object"
FILTERS = {
    "clients": "paste.filter_factory = swift_node:todays_clients",
    "catch_errors": "use = egg:swift#catch_errors",
    "gatekeeper": "use = egg:swift#gatekeeper",
    "healthcheck": "use = egg:swift#healthcheck",
    "cache": "paste.filter_factory = swift_node:no_memory",
    "listing_formats": "use = egg:swift#listing_formats",
    "s3api": "use = egg:swift#s3api\nlocation = us-east-1",
    "tempauth": "use = egg:swift#tempauth\n{users}",
    "copy": "use = egg:swift#copy",
    "slo": "use = egg:swift#slo",
    "dlo": "use = egg:swift#dlo",
}


def store(where: Place, port: int, keys: dict[str, str], names: str) -> list[Service]:
    """The services. `keys`: the secret key of each client; `names`: the salt of Swift's hashed names."""
    folder = private(where.folder / "store")
    services = [
        Service(
            name=f"store-{role}",
            command=[SYSTEM_PYTHON, "-I", str(Path(__file__).with_name("swift_node.py")), role, str(folder)],
            prepare=(lambda: prepare(where, folder, port, keys, names)) if role == "account" else lambda: None,
            after=() if role == "account" else ("store-account",),
            healthy=(lambda: ask(f"http://127.0.0.1:{port}/healthcheck")[0] == 200) if role == "proxy"
            else lambda role=role: role not in BACK_ENDS or (where.sockets / str(BACK_ENDS[role])).exists(),  # type: ignore[misc]
            complete=(lambda: _make_buckets(where)) if role == "proxy" else lambda: None,
            address=f"http://127.0.0.1:{port} (S3)" if role == "proxy" else "",
        )
        for role in ROLES
    ]  # fmt: skip
    return services


def client_files(where: Place, client: str) -> dict[str, str]:
    """The environment variables that give boto3 the address and keys of `client`."""
    folder = where.folder / "store"
    return {
        "AWS_CONFIG_FILE": str(folder / f"{client}.config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / f"{client}.credentials"),
    }


def check() -> None:
    """Raises ValueError if Swift is missing."""
    command = [SYSTEM_PYTHON, "-I", "-c", "import swift.common.middleware.s3api, swift.proxy.server, swift.obj.server"]
    try:
        found = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        found = False
    if not found:
        raise ValueError(f"the S3 store, OpenStack Swift, is not on this machine; run {PACKAGES}")


def prepare(where: Place, folder: Path, port: int, keys: dict[str, str], names: str) -> None:
    """Write configuration, rings and the clients' files. Raises ValueError if the file system cannot hold a store."""
    data = private(folder / "data")
    _check_attributes(data)
    private(data / "disk")
    link = folder / "sockets"
    link.unlink(missing_ok=True)
    link.symlink_to(where.sockets)
    common = (
        f"[DEFAULT]\nswift_dir = {folder}\nworkers = 0\nuser = {where.user}\nlog_level = WARNING\nbind_ip = 127.0.0.1\n"
    )
    policies = "[storage-policy:0]\nname = files\ndefault = yes\n"
    write_private(folder / "swift.conf", f"[swift-hash]\nswift_hash_path_suffix = {names}\n{policies}")
    for role, number in BACK_ENDS.items():
        disk = f"bind_port = {number}\ndevices = {data}\nmount_check = false\n"
        app = f"[pipeline:main]\npipeline = {role}-server\n[app:{role}-server]\nuse = egg:swift#{role}\n"
        write_private(folder / f"{role}.conf", f"{common}{disk}{app}[{role}-updater]\ninterval = 60\n")
        if not (folder / f"{role}.ring.gz").is_file():
            _make_ring(folder, role, number)
    users = "\n".join(f"user_{client}_{client} = {keys[client]} .admin" for client in CLIENTS)
    filters = "".join(f"[filter:{name}]\n{how}\n" for name, how in FILTERS.items()).format(users=users)
    pipeline = f"[pipeline:main]\npipeline = {' '.join(FILTERS)} proxy-server\n"
    proxy = "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n"
    write_private(folder / "proxy.conf", f"{common}bind_port = {port}\n{pipeline}{filters}{proxy}")
    for client in CLIENTS:
        files = client_files(where, client)
        # This Swift does not know checksums in trailers.
        config = (
            f"[default]\nregion = us-east-1\nendpoint_url = http://127.0.0.1:{port}\ns3 =\n  addressing_style = path\n"
        )
        config += "request_checksum_calculation = when_required\nresponse_checksum_validation = when_required\n"
        credentials = f"[default]\naws_access_key_id = {client}:{client}\naws_secret_access_key = {keys[client]}\n"
        write_private(Path(files["AWS_CONFIG_FILE"]), config)
        write_private(Path(files["AWS_SHARED_CREDENTIALS_FILE"]), credentials)


def _check_attributes(data: Path) -> None:
    try:
        os.setxattr(data, "user.ganops", b"1")
    except OSError:
        raise ValueError(
            f"the file system of {data} has no extended attributes, which the S3 store needs; set GANOPS_STATE "
            "to a folder on ext4, xfs or btrfs"
        ) from None


def _make_ring(folder: Path, role: str, number: int) -> None:
    (folder / f"{role}.builder").unlink(missing_ok=True)
    for step in (["create", "6", "1", "0"], ["add", f"r1z1-127.0.0.1:{number}/disk", "1"], ["rebalance"]):
        command = ["swift-ring-builder", f"{role}.builder", *step]
        answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
        if answer.returncode not in (0, 1):  # 1 is a warning
            raise ValueError(f"swift-ring-builder failed: {(answer.stdout + answer.stderr).strip()[-300:]}")


def _make_buckets(where: Place) -> None:
    """Runs in a process of its own: boto3 reads its settings from the environment, and stays out of the supervisor."""
    make = "import boto3, sys; boto3.client('s3').create_bucket(Bucket=sys.argv[1])"
    for client in CLIENTS:
        told = os.environ | client_files(where, client)
        answer = subprocess.run([sys.executable, "-c", make, client], capture_output=True, text=True, env=told)
        if answer.returncode and "BucketAlreadyOwnedByYou" not in answer.stderr:
            raise ValueError(f"bucket {client} could not be made: {answer.stderr.strip().splitlines()[-1]}")
