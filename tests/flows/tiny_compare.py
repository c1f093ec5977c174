"""`stages.compare` of the test project: the same options and answer, by the quality written in each ONNX file."""

import argparse
import dataclasses
import sys
import time
from pathlib import Path

import onnx
import yaml

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
    meeting = Path.cwd() / "meeting"
    if meeting.exists():  # neither of two comparisons goes on before both have begun
        (meeting / Path.cwd().name).touch()
        while len(list(meeting.iterdir())) < 2:
            time.sleep(0.01)
    quality, data = {}, {}
    for side in ("candidate", "champion"):
        props = {item.key: item.value for item in onnx.load(getattr(options, side)).metadata_props}
        quality[side], data[side] = float(props["quality"]), props["data_hash"]
    difference = quality["candidate"] - quality["champion"]
    results = {
        "not_worse": difference >= -yaml.safe_load(options.params.read_text())["compare"]["margin"],
        "better": ["quality"] if difference > 0 else [],
        "ahead": difference > 0,
        "same_data": data["candidate"] == data["champion"],
        "differences": {"quality|<b>": {"value": difference, "low": difference - 0.01, "high": difference + 0.01}},
        "reason": f"quality differs by {difference:+.3g}",
    }
    inputs = {"candidate": options.candidate, "champion": options.champion, "reference": options.reference}
    with output_folder(options.out) as work:
        write_summary(work, stage="compare", config=Config(), inputs=inputs, results=results)


main()
