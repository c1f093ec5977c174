# MLflow's server and Prefect's server, one image. From the project's folder:
#     docker build -f infra/docker/servers.Dockerfile -t ganops-servers:0.1.0 .
# Not built or run in a container yet. When you build it, add the base image's digest to its tag.
FROM python:3.11.13-slim-bookworm AS build
COPY requirements/bootstrap.lock requirements/servers.lock /locks/
RUN python -m venv /venv \
    && python -m pip install --no-cache-dir --require-hashes -r /locks/bootstrap.lock \
    && uv pip install --no-cache --python /venv/bin/python --require-hashes --compile-bytecode \
        -r /locks/servers.lock

FROM python:3.11.13-slim-bookworm
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin ganops
COPY --from=build /venv /venv
COPY infra/__init__.py /app/infra/
COPY infra/servers/__init__.py infra/servers/launch.py /app/infra/servers/
ENV PATH=/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp \
    DO_NOT_TRACK=1 MLFLOW_DISABLE_TELEMETRY=true PREFECT_SERVER_ANALYTICS_ENABLED=false \
    MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false MLFLOW_BASIC_AUTH_FAIL_CLOSED=true \
    PREFECT_RESULTS_DEFAULT_SERIALIZER=json
USER 10001
WORKDIR /app
ENTRYPOINT ["python", "-m", "infra.servers.launch"]
