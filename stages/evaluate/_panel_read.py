"""Read answers of a panel: error rates with intervals, and whether the images can be told apart.

As in HYPE (Zhou et al.: "HYPE: A benchmark for human eye perceptual evaluation of generative models", NeurIPS 2019) the
figure is the error rate over real and generated images: 0 means always right, 50 % is a coin toss's, and above that
generated images are taken for real more readily than real ones are.
"""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gan.intervals import LEVEL, mean_interval, proportion
from stages.common.files import read_json

REAL, GENERATED = "real", "generated"  # what an image is, and what an answer says
_MOST_BYTES = 1 << 20  # of an answer file; an honest one has some hundred
_NAME = 60  # characters of a rater's name that are kept
METHOD = (
    f"one rater: Wilson, level {LEVEL:g}, and the exact binomial test of one half; several: Student t over raters' "
    "error rates, never narrower than Wilson over all answers, and the larger of both p-values. Estimand: the error "
    "rate that raters like these expect on these images; other images of this generator are not covered"
)


def read(key: Path, answers: Sequence[Path]) -> dict[str, Any]:
    """Error rates by rater and together. Raises ValueError for files that are not complete answers to this panel."""
    truth = read_json(key, needs=("panel", "answers", "onnx_sha256"))
    right = truth["answers"]
    if not isinstance(right, list) or any(each not in (REAL, GENERATED) for each in right) or len(set(right)) != 2:
        raise ValueError(f"{key} is not the key of a panel: its answers must be {REAL} and {GENERATED}")
    given = [_answers(path, truth["panel"], len(right)) for path in answers]
    _check_raters(answers, given, right)
    raters = [{"rater": name, **_rates(right, said)} for name, said in given]
    together = _together(raters)
    return {
        "format": 1, "panel": truth["panel"], "onnx_sha256": truth["onnx_sha256"], "images": len(right),
        "raters": raters, "together": together, "method": METHOD, "reading": _reading(together, len(raters)),
    }  # fmt: skip


def _answers(path: Path, panel: str, count: int) -> tuple[str, list[str]]:
    """(rater, answers) of one file."""
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes; an answer file has at most {_MOST_BYTES}")
    found = read_json(path, needs=("panel", "rater", "answers"))
    if found["panel"] != panel:
        raise ValueError(f"{path} answers panel {str(found['panel'])[:40]!r}, but the key is that of panel {panel!r}")
    said = found["answers"]
    if not isinstance(said, list) or len(said) != count:
        shown = f"{len(said)} answers" if isinstance(said, list) else type(said).__name__
        raise ValueError(f"{path} must hold a list of {count} answers, one per image; it holds {shown}")
    missing = [place + 1 for place, each in enumerate(said) if each is None]
    if missing:
        raise ValueError(
            f"{path} is not finished: {len(missing)} of {count} images have no answer, the first is image "
            f"{missing[0]}; leaving out images that are hard to tell would make the rate better than it is"
        )
    wrong = [place + 1 for place, each in enumerate(said) if each not in (REAL, GENERATED)]
    if wrong:
        value = str(said[wrong[0] - 1])[:40]
        raise ValueError(f"{path} must answer {REAL} or {GENERATED}; received {value!r} for image {wrong[0]}")
    return _rater(found["rater"], path), said


def _rater(name: object, path: Path) -> str:
    if not isinstance(name, str):
        raise ValueError(f"{path} must name its rater in text; received {type(name).__name__}")
    name = " ".join(name.split())
    if not name.isprintable():
        raise ValueError(f"{path} names its rater with characters that cannot be printed")
    return name[:_NAME] or path.stem[:_NAME]


def _check_raters(paths: Sequence[Path], given: Sequence[tuple[str, list[str]]], right: Sequence[str]) -> None:
    """Raise ValueError if a rater occurs twice: the same answers counted twice would make the interval too narrow.

    Two people may have the same answers if these are all right; if they hold an error, they are taken for one person's.
    """
    for place, (name, said) in enumerate(given):
        for before in range(place):
            same = given[before][0].casefold() == name.casefold()
            if same or (given[before][1] == said and said != right):
                what = "rater" if same else "answers"
                raise ValueError(
                    f"{paths[before]} and {paths[place]} have the same {what}; each person counts once: give one file"
                )


def _rates(right: Sequence[str], said: Sequence[str]) -> dict[str, Any]:
    """Error rate of one rater, overall and by side, with Wilson intervals, and the exact test of one half."""
    pairs = list(zip(right, said, strict=True))
    wrong = sum(truth != answer for truth, answer in pairs)
    sides = {
        f"{side}_taken_for_{other}": proportion(pairs.count((side, other)), right.count(side))
        for side, other in ((GENERATED, REAL), (REAL, GENERATED))
    }
    return {"error_rate": proportion(wrong, len(pairs)), "p": binomial_p(wrong, len(pairs)), **sides}


def _together(raters: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The same over all raters: answers of one person are not independent of each other."""
    names = ("error_rate", f"{GENERATED}_taken_for_{REAL}", f"{REAL}_taken_for_{GENERATED}")
    found = {name: _pooled([rater[name] for rater in raters]) for name in names}
    rates = [rater["error_rate"] for rater in raters]
    count = sum(rate["n"] for rate in rates)
    p = binomial_p(round(sum(rate["value"] * rate["n"] for rate in rates)), count)
    return {**found, "p": max([p, *([t_test_p([rate["value"] for rate in rates])] if len(rates) > 1 else [])])}


def _pooled(rates: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean over raters, who all saw the same images; the wider of the interval over raters and over answers."""
    count = sum(rate["n"] for rate in rates)
    found = proportion(round(sum(rate["value"] * rate["n"] for rate in rates)), count)
    if len(rates) > 1:
        _, low, high = mean_interval([rate["value"] for rate in rates])
        found |= {"low": max(0.0, min(low, found["low"])), "high": min(1.0, max(high, found["high"]))}
    return found


def binomial_p(wrong: int, count: int) -> float:
    """Exact two-sided p-value of an error probability of one half."""
    tail = sum(math.comb(count, hits) for hits in range(min(wrong, count - wrong) + 1))
    return min(1.0, 2 * tail / 2**count)


def t_test_p(rates: Sequence[float]) -> float:
    """Two-sided p-value of a mean of one half, by Student's t: the level at which the interval just reaches it."""
    if statistics.mean(rates) == 0.5:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(40):
        level = (low + high) / 2
        _, bottom, top = mean_interval(rates, level=level)
        low, high = (low, level) if bottom <= 0.5 <= top else (level, high)
    return 1 - high


def _reading(found: dict[str, Any], raters: int) -> str:
    """The result in a sentence."""
    rate = found["error_rate"]
    people = f"{raters} raters" if raters > 1 else "one rater"
    said = (
        f"error rate {100 * rate['value']:.1f} % ({100 * rate['low']:.1f} to {100 * rate['high']:.1f} %), {people}, "
        f"{rate['n']} answers, p {found['p']:.2g} against 50 %"
    )
    if rate["high"] < 0.5:
        return f"{said}: the generated images are told from real ones more often than by chance"
    if rate["low"] > 0.5:
        return f"{said}: generated images are taken for real ones more readily than real ones are"
    return f"{said}: not shown to be told apart; an error rate down to {100 * rate['low']:.1f} % is not excluded"
