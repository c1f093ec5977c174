"""`summary.json`: what a stage read, wrote and found. Written last, so its presence means that the stage finished."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from stages.common.files import digest, read_json, tree_digests, write_json
from stages.config import recorded

FORMAT = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """One finished stage; digests are SHA-256, output paths are relative to the stage's folder. `config` holds all
    settings except those that no byte of the result depends on."""

    stage: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    config: dict[str, Any]
    results: dict[str, Any]


def write_summary(
    work: Path,
    *,
    stage: str,
    config: Any,
    inputs: Mapping[str, Path | str],
    results: Mapping[str, Any],
    known: Mapping[str, str] = MappingProxyType({}),
) -> Summary:
    """Digest the inputs and all files in `work`, write `work/summary.json`, and return it.

    An input is the path to digest, or the digest itself if the stage has read the files already; `known` are digests of
    files in `work` that are known in the same way.
    """
    summary = Summary(
        stage=stage,
        inputs={name: digest(value) if isinstance(value, Path) else value for name, value in inputs.items()},
        outputs=tree_digests(work, known),
        config=recorded(config),
        results=dict(results),
    )
    write_json(work / "summary.json", {"format": FORMAT, **dataclasses.asdict(summary)})
    return summary


def measure(
    value: float | None, low: float | None, high: float | None, *, n_real: int, n_fake: int, protocol: str,
    reference: dict[str, Any] | None = None, reason: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """One of a stage's measures, as the gate and the card read it; `protocol` is a key of the protocols beside it."""
    return {
        "value": value, "low": low, "high": high, "n_real": n_real, "n_fake": n_fake, "protocol": protocol,
        "reference": reference, "reason": reason,
    }  # fmt: skip


def not_assessed(reason: str, *, n_real: int, n_fake: int, protocol: str) -> dict[str, Any]:
    """A measure without a value, and why; the gate fails if the measure is required."""
    return measure(None, None, None, n_real=n_real, n_fake=n_fake, protocol=protocol, reason=reason)


def read_summary(folder: Path) -> Summary:
    """The summary of a stage's folder. Raises ValueError if the stage has not finished or the format differs."""
    path = folder / "summary.json"
    if not path.is_file():
        raise ValueError(f"{folder} holds no summary.json: that stage has not finished; run `dvc repro`")
    names = [field.name for field in dataclasses.fields(Summary)]
    value = read_json(path, format=FORMAT, needs=names)
    return Summary(**{name: value[name] for name in names})
