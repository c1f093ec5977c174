"""Section `promote` of params.yaml: what the flows may do after the verdict. No DVC stage reads it."""

import dataclasses
import re
from typing import Annotated, Literal

from stages.config import Range


@dataclasses.dataclass(frozen=True, kw_only=True)
class Serving:
    """What the registered bytes must do where they will be served, in a process of their own."""

    python: str | None
    """Interpreter of the environment that serves; it needs numpy and onnxruntime. None: the one that runs the flow.

    A relative path starts at the folder that the flow runs in."""
    minutes: Annotated[float, Range(gt=0, le=1440)]
    """Longest time, in minutes, for the whole check."""
    load_seconds: Annotated[float, Range(gt=0)]
    """Longest time, in seconds, from the file to a session that can draw."""
    latency_ms: Annotated[float, Range(gt=0)]
    """Longest time, in milliseconds, for one image: median of 20 calls on one CPU thread."""
    size_mb: Annotated[float, Range(gt=0)]
    """Largest file size, in million bytes."""
    levels: Annotated[int, Range(ge=0, le=255)]
    """Largest difference, in 8-bit levels, between self-test images and those recorded at registration."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsOnly:
    """Promote although parity was measured on a provider that widens half precision before computing with it."""

    name: Literal["weights_only"]
    reason: str
    """Why that is enough here; it is recorded with each promotion."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LooserThresholds:
    """Promote one candidate although its gate was looser than the one the champion passed."""

    name: Literal["looser_thresholds"]
    onnx: str
    """SHA-256 of that candidate's ONNX file, its first 12 digits or more."""
    reason: str
    """Why; it is recorded with the promotion."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoChampion:
    """Promote one candidate by its verdict alone although there was a champion, whose version was deleted."""

    name: Literal["no_champion"]
    onnx: str
    """SHA-256 of that candidate's ONNX file, its first 12 digits or more."""
    reason: str
    """Why; it is recorded with the promotion."""


Waiver = WeightsOnly | LooserThresholds | NoChampion


@dataclasses.dataclass(frozen=True, kw_only=True)
class Approval:
    """Whether a person has the last word; docs/operations.md."""

    required: bool
    """Whether a version that has earned its promotion waits until somebody approves it."""
    hours: Annotated[float, Range(gt=0, le=8760)]
    """How long, in hours, the form on Prefect's page waits for an answer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromoteConfig:
    """How a green candidate becomes champion."""

    compare_minutes: Annotated[float, Range(gt=0, le=1440)]
    """Longest time, in minutes, that scoring candidate and champion anew may take before the flow gives up."""
    serving: Serving
    """The check of the registered bytes."""
    approval: Approval
    """A person's approval."""
    waivers: tuple[Waiver, ...]
    """Exceptions to the rules, each with its reason."""

    def __post_init__(self) -> None:
        """Refuse waivers without a reason or for no candidate in particular."""
        for waiver in self.waivers:
            if len(waiver.reason.split()) < 3:
                raise ValueError(f"waivers need a reason in words; {waiver.name} has {waiver.reason!r}")
            onnx = getattr(waiver, "onnx", "0" * 12)
            if not re.fullmatch(r"[0-9a-f]{12,64}", onnx):
                raise ValueError(f"waivers.onnx must be 12 to 64 hexadecimal digits; {waiver.name} has {onnx!r}")
