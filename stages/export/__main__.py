"""`python -m stages.export`."""

import sys

from stages.common.command import main
from stages.config.export import ExportConfig
from stages.export import run

if __name__ == "__main__":
    sys.exit(main("export", ExportConfig, run, inputs={"generator": "folder with generator.safetensors and .json"}))
