"""What a downstream service imports: one ONNX file in, uint8 images out. Needs numpy and onnxruntime, nothing else."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from consumer._generator import Generator

__all__ = ["Generator"]


def __getattr__(name: str) -> Any:
    """`Generator` is loaded at first use, so that the command can explain itself if onnxruntime is absent."""
    if name != "Generator":
        raise AttributeError(f"module 'consumer' has no attribute {name!r}")
    from consumer._generator import Generator

    return Generator
