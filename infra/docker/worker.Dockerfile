# What runs flows, DVC and the trainer: a Prefect worker, or one process of a distributed training. The CUDA libraries come
# with torch; the host needs NVIDIA's driver and container toolkit. The code is not in the image: the working copy is mounted.
#     docker build -f infra/docker/worker.Dockerfile -t ganops-worker:0.1.0 .
# Not built or run in a container yet. When you build it, add the base image's digest to its tag.
FROM python:3.11.13-slim-bookworm AS build
COPY requirements/bootstrap.lock requirements/worker.lock /locks/
RUN python -m venv /venv \
    && python -m pip install --no-cache-dir --require-hashes -r /locks/bootstrap.lock \
    && uv pip install --no-cache --python /venv/bin/python --require-hashes --compile-bytecode \
        -r /locks/worker.lock

FROM python:3.11.13-slim-bookworm
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git openssh-client \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --shell /usr/sbin/nologin ganops
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUTF8=1 HOME=/tmp OMP_WAIT_POLICY=PASSIVE \
    PYTORCH_ALLOC_CONF=expandable_segments:True \
    DO_NOT_TRACK=1 DVC_NO_ANALYTICS=1 MLFLOW_DISABLE_TELEMETRY=true GX_ANALYTICS_ENABLED=false HF_HUB_DISABLE_TELEMETRY=1 \
    MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false PREFECT_RESULTS_DEFAULT_SERIALIZER=json
USER 10001
WORKDIR /project
ENTRYPOINT ["python", "-m", "infra.servers.launch"]
