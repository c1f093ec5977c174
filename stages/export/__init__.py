"""Export: from the trained generator to the one ONNX file that ships."""

from pathlib import Path

from stages.common.summary import Summary
from stages.config.export import ExportConfig

__all__ = ["run"]


def run(config: ExportConfig, *, generator: Path, out: Path) -> Summary:
    """Export a trained generator to ONNX with FP16 inside, and compare the file with the network that was trained.

    Reads `generator.safetensors` and `generator.json` from the folder `generator`. Writes to `out`: `generator.onnx`
    (z float32 [N, z_dim] and, if there are classes, label int64 [N] in; image uint8 [N, H, W, C] out; any N; one file),
    `parity.json` and `summary.json`. Raises ValueError if the folder is not a generator, a layer leaves the range of
    FP16, or the file differs from the network by more than the settings allow.
    """
    from stages.export._work import export

    return export(config, generator=generator, out=out)
