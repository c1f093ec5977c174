#!/usr/bin/env bash
# Resolve everything once (requirements/dev.lock); the other locks are parts of that resolution, so that a Prefect
# upgrade makes no stage stale and a torch upgrade does.
set -euo pipefail
cd "$(dirname "$0")/../requirements"
uv=../.venv/bin/uv
compile() { "$uv" pip compile --universal --python-version 3.11 --fork-strategy fewest --generate-hashes --no-header --quiet "$@"; }
part() { local out=$1; shift; printf '%s\n' "$@" | compile - --constraints dev.lock -o "$out"; }

compile ../pyproject.toml --extra dev -o dev.lock "$@"
part data.lock numpy pillow pyarrow pyyaml tqdm
part validate.lock great-expectations jinja2 numpy pandas pillow pyarrow pyyaml
part train.lock numpy nvidia-ml-py pillow pyyaml safetensors tensorboard torch torchvision tqdm
part onnx.lock jinja2 numpy onnx onnxruntime-gpu onnxscript pillow pyarrow pyyaml safetensors torch torchvision tqdm
part bootstrap.lock uv
compile ../pyproject.toml --extra serve-gpu --constraints dev.lock -o serve-gpu.lock
# What the containers of infra/docker hold.
compile ../pyproject.toml --extra flows --extra servers --constraints dev.lock -o servers.lock
compile ../pyproject.toml --extra pipeline --extra flows --extra servers --extra remotes --constraints dev.lock -o worker.lock
# onnxruntime is not in dev.lock: its GPU twin is. Everything else is shared.
part serve-cpu.lock numpy onnxruntime pillow
