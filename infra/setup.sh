#!/usr/bin/env bash
# Make .venv from requirements/dev.lock. Needs Python 3.11, 3.12 or 3.13 and network access to a package index.
set -euo pipefail
cd "$(dirname "$0")/.."

fits() { "$1" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; }

python=""
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
    if fits "$candidate"; then python=$candidate; break; fi
done
if [ -z "$python" ]; then
    echo "setup: ganops needs Python 3.11, 3.12 or 3.13 with its venv module; found $(${PYTHON:-python3} --version 2>&1 | head -n 1); install one, or name it: make PYTHON=/path/to/python" >&2
    exit 1
fi

stamp=.venv/requirements.sha256
wanted=$("$python" -c 'import hashlib, pathlib; print(hashlib.sha256(pathlib.Path("requirements/dev.lock").read_bytes()).hexdigest())')
if [ "$(cat "$stamp" 2>/dev/null || true)" != "$wanted" ]; then
    echo "setup: installing the locked dependencies into .venv with $("$python" --version) (about 6 GB with torch and its CUDA libraries)" >&2
    [ -x .venv/bin/python ] && fits .venv/bin/python || { rm -rf .venv; "$python" -m venv .venv; }
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.lock
    .venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes -r requirements/dev.lock
    echo "$wanted" > "$stamp"
fi

# By default DVC keeps pickled indexes in a shared world-writable folder: give it a private one.
state=${GANOPS_STATE:-$(dirname "$(git rev-parse --path-format=absolute --git-common-dir)")/.ganops}
(umask 077 && mkdir -p "$state")
if ! grep -qsF "site_cache_dir = $state/dvc" .dvc/config.local; then
    .venv/bin/dvc config --local core.site_cache_dir "$state/dvc"
fi
