"""Room 8: the decision, and the documents that go with the generator."""

from collections.abc import Sequence
from pathlib import Path

from stages.common.summary import Summary
from stages.config.card import CardConfig

__all__ = ["run"]


def run(config: CardConfig, *, summaries: Sequence[Path], passed: Path, out: Path) -> Summary:
    """Decide from the summaries of all stages whether the generator earned its place, and write its model card.

    Reads nothing but `summary.json` of each folder, validate's `passed.json` and the grid of samples. Writes
    `verdict.json`, `MODEL_CARD.md` with `samples.png` beside it, and `provenance.json`. A red verdict is a result, not
    a failure.
    Raises ValueError if the summaries do not belong to one run: other data, another ONNX file, another extractor.
    """
    from stages.card._work import write_card

    return write_card(config, summaries=summaries, passed=passed, out=out)
