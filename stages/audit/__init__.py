"""Room 7: whom the generator serves worse, and whether it copies."""

from pathlib import Path

from stages.common.summary import Summary
from stages.config.audit import AuditConfig

__all__ = ["run"]


def run(config: AuditConfig, *, onnx: Path, reference: Path, images: Path, out: Path) -> Summary:
    """Audit an ONNX generator: shares of groups, quality and label agreement per group, copies of training images.

    Draws `audit.samples` images with labels from the serving prior that the file declares. Groups too small to say
    anything about are reported as not assessed, with the reason. Writes `audit.json`, `index.html` (a single file) and
    `closest.png`.
    Raises ValueError if file, reference and image store do not belong together.
    """
    from stages.audit._work import audit

    return audit(config, onnx=onnx, reference=reference, images=images, out=out)
