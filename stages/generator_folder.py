"""The folder `generator` that train writes: the names of its files, for whoever reads them."""

import hashlib
import json
from pathlib import Path

from stages.common.files import sha256_file

DESCRIPTION, WEIGHTS = "generator.json", "generator.safetensors"
FILES = (DESCRIPTION, WEIGHTS, "discriminator.safetensors")


def input_digest(folder: Path) -> str:
    """SHA-256 of the names and digests of the two files that a generator consists of; its ONNX file carries it."""
    files = {name: sha256_file(folder / name) for name in (DESCRIPTION, WEIGHTS)}
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()
