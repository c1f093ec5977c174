#!/usr/bin/env bash
# Resolve everything once (requirements/dev.lock). The other locks are parts of that resolution, so that upgrading
# Prefect makes no stage stale, while upgrading torch does.
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
# dev.lock holds onnxruntime-gpu, not onnxruntime. Everything else is shared.
part serve-cpu.lock numpy onnxruntime pillow
