"""Make a panel: half real, half generated, the same classes on both sides, in an order that only the key knows.

Anything else that could tell them apart is removed: all images are PNGs of the same number of bytes (stored, not
compressed, so that the number depends on the resolution alone), identified only by their place. The page holds neither
the seed nor a digest of the generator, from which the order could be reproduced.
"""

import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from consumer import Generator
from gan.draws import ORDER, SUBSETS, permutation
from stages.common.files import output_folder, write_atomically, write_json
from stages.evaluate._inputs import check_pair
from stages.evaluate._panel_read import GENERATED, REAL
from stages.reference_folder import Reference, open_reference

_TEMPLATE = Path(__file__).with_name("panel.html.j2")
LEAST = 20  # images; of 20, a rater may get five wrong and still differ from a coin toss (p .04)

Images = NDArray[np.uint8]


def make(onnx: Path, reference: Path, *, out: Path, images: int, seed: int) -> dict[str, Any]:
    """Write `panel.html` and `key.json` into `out`. Returns their paths and what was asked for.

    Raises ValueError if generator and reference do not belong together, if `images` is odd, too few, or more than twice
    the held-out images, if these are fewer than half of LEAST, or if `out` exists.
    """
    opened = open_reference(reference)
    generator = Generator(onnx, providers=["CPUExecutionProvider"])
    check_pair(generator, onnx, opened)
    _check(images, seed, opened, out)
    real, fake = _sides(generator, opened, images // 2, seed)
    order = permutation(seed, ORDER, 0, images)
    shown = [png(image) for image in np.concatenate([real, fake])[order]]
    answers = [REAL if place < images // 2 else GENERATED for place in order]
    name = hashlib.sha256(b"".join(shown)).hexdigest()[:16]
    key = {
        "format": 1, "panel": name, "answers": answers, "seed": seed, "onnx_sha256": generator.sha256,
        "generator": generator.name, "data_hash": opened.info["data_hash"],
    }  # fmt: skip
    with output_folder(out) as work:
        write_atomically(work / "panel.html", _page(name, shown, generator.resolution))
        write_json(work / "key.json", key)
    return {"page": str(out / "panel.html"), "key": str(out / "key.json"), "panel": name, "images": images}


def _check(images: int, seed: int, reference: Reference, out: Path) -> None:
    most = 2 * reference.heldout
    if most < LEAST:
        raise ValueError(
            f"a panel shows {LEAST} images or more, half of them held out; {reference.path} has {reference.heldout} "
            "held-out images: give ingest more images, or heldout a larger share in ingest.splits"
        )
    if images % 2 or not LEAST <= images <= most:
        raise ValueError(
            f"--images must be an even number from {LEAST} to {most}, twice the held-out images; received {images}"
        )
    if not 0 <= seed < 2**63:
        raise ValueError(f"--seed must lie in [0, 2**63); received {seed}")
    if out.exists():
        raise ValueError(f"{out} exists; a panel whose key is replaced can never be read, so name another folder")


def _sides(generator: Generator, reference: Reference, count: int, seed: int) -> tuple[Images, Images]:
    """`count` held-out images, and as many generated ones of the same classes (or any images, without classes)."""
    held, labels = reference.pictures("heldout")
    chosen = permutation(seed, SUBSETS, 0, len(held))[:count]
    if not generator.classes or not reference.classes:
        return held[chosen], generator.generate(count, seed)
    wanted = labels[chosen]
    fake, start = np.empty_like(held[chosen]), 0
    for label in np.unique(wanted):
        places = np.flatnonzero(wanted == label)
        fake[places] = generator.generate(len(places), seed, int(label), start=start)
        start += len(places)  # other latents for each class: with the same ones, classes would look alike
    return held[chosen], fake


def png(image: Images) -> bytes:
    """One image uint8 [H, W, C] as PNG at its own size, stored without compression: equal shapes, equal sizes."""
    buffer = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[-1] == 1 else image).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def _page(name: str, shown: list[bytes], resolution: int) -> bytes:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    content = json.dumps([base64.b64encode(each).decode("ascii") for each in shown])
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(panel=name, images=content, count=len(shown), resolution=resolution).encode("utf-8")
