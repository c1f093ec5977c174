"""Real servers: PostgreSQL, MLflow with users, Prefect with a worker, and an S3 store, as `make up` starts them.

The order of the tests matters: the last ones crash servers, and then the supervisor itself.
"""

import datetime
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import pytest
from botocore.config import Config
from tiny_helpers import aliases, back, gone, night

from flows.state import settle
from flows.tracking.registry import connect
from infra.servers.orchestration import pool
from infra.servers.service import ask
from tests.infra.conftest import Servers

pytestmark = [
    pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning:botocore.*"),
]
FLOW = """
import os
from pathlib import Path
from prefect import flow

@flow
def said(word: str = "nothing") -> None:
    kind = os.environ["MLFLOW_TRACKING_URI"].partition(":")[0]
    with Path("said.txt").open("a") as file:
        file.write(f"{word} {kind} {os.environ['PREFECT_RESULTS_DEFAULT_SERIALIZER']}\\n")
"""


def eventually(holds: Callable[[], Any], seconds: float = 120) -> Any:
    """What `holds` returns as soon as it is true; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.2)
    return found


def processes_of(servers: Servers) -> set[int]:
    """All processes that have the servers' folder among their arguments, or PostgreSQL's."""
    names = (str(servers.folder), str((servers.folder / "postgres").resolve()))
    found = set()
    for arguments in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = arguments.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if any(name in text for name in names):
            found.add(int(arguments.parent.name))
    return found


def s3(servers: Servers, client: str, **wrong: str) -> Any:
    """boto3 as `client`, with the settings that `make up` wrote."""
    lines = (servers.folder / "store" / f"{client}.credentials").read_text().splitlines()
    keys = dict(line.split(" = ") for line in lines if "=" in line)
    old = Config(request_checksum_calculation="when_required", response_checksum_validation="when_required")
    where = {"endpoint_url": servers.url("store"), "region_name": "us-east-1"}
    return boto3.client("s3", **where, **(keys | wrong), config=old)


def test_what_make_up_leaves_on_the_machine(servers: Servers) -> None:
    listed = subprocess.run(["ps", "axeww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    logs = "".join(log.read_text(errors="replace") for log in (servers.folder / "logs").iterdir())
    assert str(servers.folder) in listed, "ps shows nothing of the servers: the test looks at the wrong place"
    for name, secret in servers.secrets().items():
        assert len(secret) >= 32
        assert secret not in listed, f"{name} can be seen with ps"
        assert secret not in logs, f"{name} stands in a log"
    for path in servers.folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and "store/data" not in str(path):
            text = path.read_text(errors="replace")
            if any(secret in text for secret in servers.secrets().values()):
                assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(servers.folder.stat().st_mode) == 0o700
    own = {f":{int(url.rpartition(':')[2]):04X}" for url in map(servers.url, ("store", "mlflow", "prefect"))}
    table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    heard = {address for _, address, _, state, *_ in table if state == "0A" and address[-5:] in own}
    assert {address[:8] for address in heard} == {"0100007F"}, "every server listens on the loopback address alone"
    assert len(heard) == 3


def test_up_again_changes_nothing(servers: Servers) -> None:
    before = servers.status()
    answer = servers.command("up")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert servers.url("mlflow") in answer.stdout
    assert not any(secret in answer.stdout for secret in servers.secrets().values())
    assert servers.status() == before


def test_nobody_gets_in_without_a_password(servers: Servers) -> None:
    mlflow, prefect, secrets = servers.url("mlflow"), servers.url("prefect"), servers.secrets()
    search = f"{mlflow}/api/2.0/mlflow/experiments/search?max_results=1"
    assert ask(search)[0] == 401
    assert ask(search, user="ganops", password="wrong")[0] == 401
    assert ask(search, user="ganops", password=secrets["mlflow_user"])[0] == 200
    users, somebody = f"{mlflow}/api/2.0/mlflow/users", {"username": "somebody", "password": "a long password"}
    flows = ask(f"{users}/create", somebody, user="ganops", password=secrets["mlflow_user"])
    assert flows[0] == 403, "flows administer nothing"
    form = ask(f"{users}/create-ui", somebody, user="admin", password=secrets["mlflow_admin"])
    assert form[0] == 400 and "CSRF" in form[1], "another site's page cannot make users in a person's browser"
    pools = f"{prefect}/api/work_pools/filter"
    assert ask(pools, {})[0] == 401
    assert ask(pools, {}, user="ganops", password="wrong")[0] == 401
    assert ask(pools, {}, user="ganops", password=secrets["prefect"])[0] == 200
    with pytest.raises(botocore.exceptions.ClientError, match="SignatureDoesNotMatch"):
        s3(servers, "dvc", aws_secret_access_key="wrong").list_buckets()
    with pytest.raises(botocore.exceptions.ClientError, match=r"NoSuchBucket|AccessDenied"):
        s3(servers, "dvc").list_objects_v2(Bucket="mlflow")


def test_foreign_host_names_are_refused(servers: Servers) -> None:
    import http.client

    connection = http.client.HTTPConnection(servers.url("mlflow").removeprefix("http://"), timeout=30)
    connection.request("GET", "/api/2.0/mlflow/experiments/search", headers={"Host": "evil.example"})
    assert connection.getresponse().status == 403
    connection.close()


def test_wrong_credentials_are_one_sentence(servers: Servers, project: Path) -> None:
    wrong = os.environ | servers.settings() | {"MLFLOW_TRACKING_PASSWORD": "wrong", "GANOPS_STATE": str(project / "s")}
    answer = subprocess.run(
        [sys.executable, "-m", "flows.status"], cwd=project, env=wrong, capture_output=True, text=True, timeout=300
    )
    assert answer.returncode == 1
    said = answer.stderr.strip().splitlines()
    assert len(said) == 1, answer.stderr
    assert servers.url("mlflow") in said[0]
    assert "wrong" not in said[0]


def test_champions_live_in_postgres_and_s3(
    servers: Servers, built: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in servers.settings().items():
        if name != "GANOPS_STATE":
            monkeypatch.setenv(name, value)
    for quality in (1.0, 2.0):
        folder = built(train__quality=quality)
        state = settle()
        assert night(folder, state).decision == "promoted"
    registry = connect(state, "tiny")
    assert aliases(registry) == {"champion": "2", "previous": "1"}
    assert back(folder, state, "stripes").startswith("version 1 of tiny is champion")
    assert aliases(registry)["champion"] == "1"
    assert not (state / "mlflow.db").exists(), "the embedded registry was not asked"

    from mlflow.artifacts import download_artifacts

    onnx = Path(download_artifacts("models:/tiny@champion/generator.onnx", dst_path=str(folder / "got"))).read_bytes()
    listed = s3(servers, "mlflow").list_objects_v2(Bucket="mlflow", Prefix="artifacts/")["Contents"]
    stored = [item["Key"] for item in listed if item["Key"].endswith("generator.onnx")]
    assert len(stored) == 2
    assert onnx in [s3(servers, "mlflow").get_object(Bucket="mlflow", Key=key)["Body"].read() for key in stored]


def test_a_dvc_remote_on_the_store(servers: Servers, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(project / "site"))
    for name in ("DVC_NO_ANALYTICS", "DO_NOT_TRACK"):
        monkeypatch.setenv(name, "1")
    store = servers.folder / "store"
    (project / ".dvc" / "config.local").write_text(
        f"[core]\n    remote = store\n['remote \"store\"']\n    url = s3://dvc/files\n"
        f"    configpath = {store / 'dvc.config'}\n    credentialpath = {store / 'dvc.credentials'}\n"
    )
    content = {"small.bin": os.urandom(10), "large.bin": os.urandom(20_000_000), "empty.bin": b""}
    (project / "images").mkdir()
    for name, data in content.items():
        (project / "images" / name).write_bytes(data)

    def dvc(*arguments: str) -> None:
        command = [sys.executable, "-m", "dvc", *arguments]
        answer = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=300)
        assert answer.returncode == 0, answer.stderr

    dvc("add", "-q", "images")
    dvc("push", "-q", "images.dvc")
    shutil.rmtree(project / ".dvc" / "cache")
    shutil.rmtree(project / "images")
    dvc("pull", "-q", "images.dvc")
    assert {path.name: path.read_bytes() for path in (project / "images").iterdir()} == content
    remote = s3(servers, "dvc")
    kept = [{"Key": item["Key"]} for item in remote.list_objects_v2(Bucket="dvc", Prefix="files/")["Contents"]]
    assert len(kept) == 4  # three files and the folder
    assert "Errors" not in remote.delete_objects(Bucket="dvc", Delete={"Objects": kept})
    assert "Contents" not in remote.list_objects_v2(Bucket="dvc", Prefix="files/")


def test_a_schedule_and_an_event_start_runs(servers: Servers, tmp_path: Path) -> None:
    (tmp_path / "said.py").write_text(FLOW)
    key = {"user": "ganops", "password": servers.secrets()["prefect"], "seconds": 60.0}
    api = f"{servers.url('prefect')}/api"

    def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
        status, text = ask(f"{api}/{path}", body, **key)  # type: ignore[arg-type]
        assert status in (200, 201), text
        return dict(json.loads(text))

    timer = {"interval": 60}  # no fixed time: a busy scheduler that misses it would wait for the next day
    flow = post("flows/", {"name": "said"})
    deployment = post(
        "deployments/",
        {
            "name": "said",
            "flow_id": flow["id"],
            "entrypoint": "said.py:said",
            "parameters": {"word": "clock"},
            "work_pool_name": pool(),
            "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": str(tmp_path)}}],
            "schedules": [{"schedule": timer, "active": True}],
        },
    )
    started = {"type": "run-deployment", "source": "selected", "deployment_id": deployment["id"]}
    post(
        "automations/",
        {
            "name": "on-data",
            "trigger": {
                "type": "event",
                "expect": ["data.changed"],
                "posture": "Reactive",
                "threshold": 1,
                "within": 0,
            },
            "actions": [started | {"parameters": {"word": "event"}}],
        },
    )

    def event() -> dict[str, Any]:
        return {
            "id": str(uuid.uuid4()),
            "event": "data.changed",
            "occurred": datetime.datetime.now(datetime.UTC).isoformat(),
            "resource": {"prefect.resource.id": "data.raw"},
            "payload": {"command": "touch hacked"},
        }

    unknown = ask(f"{api}/events", [event()], seconds=60)
    assert unknown[0] == 401, "an event from a stranger starts nothing"
    told = time.monotonic() - 60

    def heard() -> bool:
        """Told again each minute: what comes before Prefect has read the new automation is lost."""
        nonlocal told
        if time.monotonic() - told > 60:
            assert ask(f"{api}/events", [event()], **key)[0] == 204  # type: ignore[arg-type]
            told = time.monotonic()
        said = tmp_path / "said.txt"
        return said.is_file() and set(said.read_text().splitlines()) == {"clock http json", "event http json"}

    eventually(heard, 600)
    ask(f"{api}/deployments/{deployment['id']}", **key, method="DELETE")  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_retrain_is_seen_on_both_servers(servers: Servers, project: Path) -> None:
    sourced = os.environ | servers.settings() | {"GANOPS_STATE": str(project / ".ganops"), "PYTHONWARNINGS": "ignore"}
    answer = subprocess.run(
        [sys.executable, "-m", "flows.retrain"], cwd=project, env=sourced, capture_output=True, text=True, timeout=600
    )
    assert answer.returncode == 0, answer.stderr
    assert f"registry {servers.url('mlflow')}" in answer.stdout
    key = {"user": "ganops", "password": servers.secrets()["prefect"]}
    query = {"flows": {"name": {"any_": ["retrain"]}}}
    status, text = ask(f"{servers.url('prefect')}/api/flow_runs/filter", query, seconds=60, **key)
    assert status == 200, text
    assert [run["state_type"] for run in json.loads(text)] == ["COMPLETED"]
    assert not (project / ".ganops" / "prefect" / "prefect.db").exists(), "no temporary server was needed"


def test_a_crashed_server_is_started_again(servers: Servers) -> None:
    """The leash of one is killed, the server of another: neither leaves anything behind that would stand in the way."""
    before = servers.status()["services"]
    os.kill(before["store-object"]["process"], signal.SIGKILL)
    data = (servers.folder / "postgres").resolve() / "data"
    os.kill(int((data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)

    def again() -> bool:
        now = servers.status()["services"]
        return all(
            now[name]["state"] == "up" and now[name]["restarts"] == before[name]["restarts"] + 1
            for name in ("store-object", "postgres")
        )

    eventually(again)
    store = s3(servers, "dvc")
    store.put_object(Bucket="dvc", Key="after", Body=b"the crash")
    assert store.get_object(Bucket="dvc", Key="after")["Body"].read() == b"the crash"
    search = f"{servers.url('mlflow')}/api/2.0/mlflow/registered-models/get?name=tiny"
    key = {"user": "ganops", "password": servers.secrets()["mlflow_user"]}
    eventually(lambda: ask(search, **key)[0] == 200)  # type: ignore[arg-type]
    assert servers.command("up").returncode == 0


def test_a_killed_supervisor_leaves_nobody(servers: Servers) -> None:
    left = processes_of(servers)
    assert len(left) > 10
    os.kill(servers.status()["supervisor"], signal.SIGKILL)
    answer = servers.command("down")  # waits for whatever is still ending
    assert answer.returncode == 0
    assert not processes_of(servers)
    assert all(gone(process, 1) for process in left)
    answer = servers.command("down")
    assert (answer.returncode, answer.stdout) == (0, "the servers are not running\n")


@pytest.mark.slow
def test_data_outlive_the_servers(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up again on another port, where one was taken meanwhile, with what was stored."""
    import socket

    from mlflow import MlflowClient

    assert servers.command("up").returncode == 0
    s3(servers, "dvc").put_object(Bucket="dvc", Key="kept", Body=b"an object")
    for name, value in servers.settings().items():
        monkeypatch.setenv(name, value)
    MlflowClient().create_registered_model("kept")
    assert servers.command("down").returncode == 0
    port = int(servers.url("store").rpartition(":")[2])
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        answer = servers.command("up")
    assert answer.returncode == 0, answer.stderr
    assert f"port {port} of store is taken by another program: store moves to " in answer.stderr
    assert s3(servers, "dvc").get_object(Bucket="dvc", Key="kept")["Body"].read() == b"an object"
    for name, value in servers.settings().items():
        monkeypatch.setenv(name, value)
    assert MlflowClient().get_registered_model("kept").name == "kept"
    processes = processes_of(servers)
    answer = servers.command("down")
    assert answer.stdout.startswith("the servers are stopped; their data stay in ")
    assert all(gone(process, 1) for process in processes)
