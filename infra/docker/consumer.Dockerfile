# A start for a downstream service: the consumer on CPUs, with only numpy and onnxruntime. From the project's folder:
#     docker build -f infra/docker/consumer.Dockerfile -t ganops-consumer:0.1.0 .
#     docker run --rm --read-only --network none -v "$PWD/data/export:/model:ro" -v "$PWD/out:/out" \
#         ganops-consumer:0.1.0 --model /model/generator.onnx --count 64 --out /out/grid.png
# Not built or run in a container yet. When you build it, add the base image's digest to its tag.
FROM python:3.11.13-slim-bookworm
COPY requirements/serve-cpu.lock /locks/
RUN python -m pip install --no-cache-dir --require-hashes -r /locks/serve-cpu.lock \
    && useradd --uid 10001 --create-home --shell /usr/sbin/nologin ganops
COPY gan/__init__.py gan/latents.py gan/pixels.py /app/gan/
COPY consumer /app/consumer
ENV PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /app
ENTRYPOINT ["python", "-m", "consumer"]
