"""`stages.compare` of the test project: the same options and answer, by the quality written in each ONNX file."""

import argparse
import dataclasses
import sys
from pathlib import Path

import onnx

from stages.common.files import output_folder
from stages.common.summary import write_summary


@dataclasses.dataclass(frozen=True)
class Config:
    pass


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("candidate", "champion", "reference", "params", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    if (Path.cwd() / "compare-fails").exists():
        sys.exit("compare: the reference was made by another protocol; run dvc repro")
    quality = {}
    for side in ("candidate", "champion"):
        props = {item.key: item.value for item in onnx.load(getattr(options, side)).metadata_props}
        quality[side] = float(props["quality"])
    difference = quality["candidate"] - quality["champion"]
    reason = f"quality differs by {difference:+g}"
    results = {"not_worse": difference >= 0, "differences": {"quality": difference}, "reason": reason}
    inputs = {"candidate": options.candidate, "champion": options.champion, "reference": options.reference}
    with output_folder(options.out) as work:
        write_summary(work, stage="compare", config=Config(), inputs=inputs, results=results)


main()
