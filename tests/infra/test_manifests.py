"""What needs a container engine is checked as far as possible without one: against schemas and our own promises."""

import copy
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema

pytestmark = pytest.mark.fast
ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
KUBERNETES = sorted((INFRA / "kubernetes").glob("*.yaml"))
UNVALIDATED = sorted((INFRA / "kubernetes" / "jobs").glob("*.yaml"))
DOCKERFILES = sorted((INFRA / "docker").glob("*.Dockerfile"))
PINNED = re.compile(r"[\w./-]+:(RELEASE\.)?[0-9]+[.-][0-9]+[\w.-]*")
RUNS_ONCE = {"buckets"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((INFRA / "compose.yaml").read_text()))


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in KUBERNETES:
        for document in yaml.safe_load_all(path.read_text()):
            yield f"{path.name} {document['kind']}/{document['metadata']['name']}", document


def valid(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def work_pool_job(**given: Any) -> dict[str, Any]:
    """The manifest of one run, as the worker fills the template with its defaults and what a deployment gives."""
    template = json.loads((INFRA / "kubernetes" / "jobs" / "work-pool.json").read_text())
    values = {name: entry["default"] for name, entry in template["variables"]["properties"].items()}
    values |= {"name": "run", "command": ["prefect flow-run execute"], "env": [{"name": "A", "value": "1"}], **given}

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: fill(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [fill(entry) for entry in value]
        whole = re.fullmatch(r"\{\{ (\w+) \}\}", value) if isinstance(value, str) else None
        if whole:
            return values[whole[1]]
        return re.sub(r"\{\{ (\w+) \}\}", lambda name: str(values[name[1]]), value) if isinstance(value, str) else value

    job: dict[str, Any] = fill(template["job_configuration"]["job_manifest"])
    return job


def test_compose_follows_its_specification(compose: dict[str, Any]) -> None:
    schema = get_builtin_schema("vendor.compose-spec")
    jsonschema.Draft202012Validator(schema).validate(compose)
    broken = copy.deepcopy(compose)
    broken["services"]["mlflow"]["helthcheck"] = {}
    with pytest.raises(jsonschema.ValidationError, match="helthcheck"):
        jsonschema.Draft202012Validator(schema).validate(broken)


def test_containers_are_confined(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {"postgres", "store", "buckets", "mlflow", "prefect", "worker"}
    for name, service in compose["services"].items():
        assert service["user"].startswith("${GANOPS_UID:?"), name
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}, name
        assert PINNED.fullmatch(service["image"]), service["image"]
        assert name in RUNS_ONCE or name == "worker" or service["healthcheck"], name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} listens on {port}"
        for variable in service.get("environment", {}):
            assert variable.endswith("_FILE") or not re.search("PASSWORD|SECRET|AUTH_STRING|TOKEN", variable), variable
        named = {item if isinstance(item, str) else item["source"] for item in service.get("secrets", [])}
        assert named <= set(compose["secrets"]), name
    assert compose["networks"]["data"]["internal"]
    for name in ("postgres", "store"):
        assert compose["services"][name]["networks"] == ["data"]
    worker = compose["services"]["worker"]  # the same path inside and outside, since deployments name it
    assert worker["volumes"][0] == f"{worker['working_dir']}:{worker['working_dir']}" and "pages" in worker["networks"]
    devices = compose["services"]["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_images_are_pinned_and_not_root(path: Path) -> None:
    text = path.read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.M)
    assert bases
    for base in bases:
        assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", base)
    assert re.findall(r"^USER (\S+)$", text, re.M)[-1] == "10001"
    for arguments in re.findall(r"^COPY (?!--from)(.+)$", text, re.M):
        for source in arguments.split()[:-1]:
            assert (ROOT / source).exists(), f"{path.name} copies {source}, which is not there"
    for lock in re.findall(r"requirements/(\S+\.lock)", text):
        assert "--hash=sha256:" in (ROOT / "requirements" / lock).read_text()
    assert text.count("pip install") == text.count("--require-hashes")


def pins(lock: str) -> dict[str, str]:
    text = (ROOT / "requirements" / lock).read_text()
    return dict(re.findall(r"^([a-z0-9._-]+)==([^ ;\\\n]+)", text, re.M))


@pytest.mark.parametrize("lock", ["servers.lock", "worker.lock"])
def test_locks_of_images_are_parts_of_the_one_resolution(lock: str) -> None:
    part, whole = pins(lock), pins("dev.lock")
    assert {"mlflow", "prefect", "psycopg2-binary", "boto3"} <= set(part)
    assert {name: whole.get(name) for name in part} == part


@pytest.mark.parametrize(
    ("name", "document"), [*documents()], ids=lambda value: value if isinstance(value, str) else ""
)
def test_kubernetes_knows_every_field(name: str, document: dict[str, Any]) -> None:
    valid(document)


def test_kubernetes_refuses_a_field_that_it_does_not_know() -> None:
    document = next(document for _, document in documents())
    document["metadata"]["nmae"] = "x"
    with pytest.raises(kubernetes_validate.ValidationError):
        valid(document)


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, document in documents():
        if "template" in document.get("spec", {}):
            yield name, document["spec"]["template"]
    yield "work pool", work_pool_job()["spec"]["template"]
    job = yaml.safe_load((INFRA / "kubernetes" / "jobs" / "train-pytorchjob.yaml").read_text())
    yield "PyTorchJob", job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]


@pytest.mark.parametrize(("name", "template"), [*pods()], ids=lambda value: value if isinstance(value, str) else "")
def test_pods_are_confined(name: str, template: dict[str, Any]) -> None:
    spec = template["spec"]
    valid({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"restartPolicy": "Never"} | spec})
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["enableServiceLinks"] is False
    assert spec["automountServiceAccountToken"] is ("worker" in name and "Deployment" in name)
    assert template["metadata"]["labels"]["app"] in {"postgres", "mlflow", "prefect", "worker", "run"}
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False and context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= set(container["resources"]["limits"])
        assert PINNED.fullmatch(container["image"]), container["image"]
    if "Deployment" in name or "StatefulSet" in name:
        assert all({"readinessProbe", "livenessProbe"} <= set(container) for container in spec["containers"])


def test_a_run_of_the_work_pool_is_a_job() -> None:
    job = work_pool_job()
    valid(job)
    assert job["spec"]["backoffLimit"] == 0, "retries are the flow's business"
    job["spec"]["backofLimit"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        valid(job)


def test_a_run_may_have_a_mig_slice_and_a_runtime_class() -> None:
    mig = {"cpu": "8", "memory": "32Gi", "nvidia.com/mig-1g.10gb": "1"}
    job = work_pool_job(limits=mig, runtime_class="nvidia")
    valid(job)
    spec = job["spec"]["template"]["spec"]
    assert spec["runtimeClassName"] == "nvidia"
    assert spec["containers"][0]["resources"] == {"requests": {"cpu": "4", "memory": "32Gi"}, "limits": mig}


def test_networks_are_closed_first() -> None:
    policies = {d["metadata"]["name"]: d["spec"] for _, d in documents() if d["kind"] == "NetworkPolicy"}
    assert policies["nothing"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert "egress" not in policies["postgres"]
    enforced = next(d for _, d in documents() if d["kind"] == "Namespace")["metadata"]["labels"]
    assert enforced["pod-security.kubernetes.io/enforce"] == "restricted"


def test_no_secret_stands_in_a_manifest() -> None:
    for path in [*KUBERNETES, *UNVALIDATED, INFRA / "compose.yaml"]:
        text = path.read_text()
        assert "kind: Secret" not in text, path
        assert not re.search(r"[0-9a-f]{32}", text), path


@pytest.mark.parametrize("path", UNVALIDATED, ids=lambda path: path.stem)
def test_what_has_no_schema_says_so(path: Path) -> None:
    assert path.read_text().startswith("# UNVALIDATED: ")
    document = yaml.safe_load(path.read_text())
    assert document["kind"] in {"PyTorchJob", "TrainJob"}
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        valid(document)


def test_a_run_on_kubernetes_is_begun_by_what_prefect_says() -> None:
    """The worker splits Prefect's command into arguments: a shell would take the first as all there is to run."""
    template = json.loads((INFRA / "kubernetes" / "jobs" / "work-pool.json").read_text())
    (container,) = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]["containers"]
    begun = [*container["command"], *shlex.split("prefect flow-run execute --help")]
    path = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    answer = subprocess.run(begun, capture_output=True, text=True, check=True, env=os.environ | path)
    assert "flow-run execute" in answer.stdout
