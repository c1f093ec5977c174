"""Section `retrain` of params.yaml: how a retrain is run. No DVC stage reads it."""

import dataclasses
from typing import Annotated

from stages.config import Range


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """What one stage may cost. A stage that runs longer is stopped; what it saved is kept."""

    stage: str
    """A stage of dvc.yaml."""
    minutes: Annotated[float, Range(gt=0)]
    """Longest time, in minutes, that one run of the stage may take."""
    gpu_hours: Annotated[float, Range(gt=0)] | None
    """GPU hours that all runs of the stage may use in any 30 days; None: no limit."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """A separate deployment that runs stage `train` for a deployed run."""

    deployment: str
    """The flow's name, a slash, and the deployment's name: `train/train-gpu`."""
    minutes: Annotated[float, Range(gt=0, le=10080)]
    """Minutes within which a worker must have started; after that the run stops waiting."""

    def __post_init__(self) -> None:
        if not all(self.deployment.partition("/")):
            raise ValueError(f"deployment must be FLOW/NAME, as in train/train-gpu; received {self.deployment!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrainConfig:
    """Settings of `flows.retrain` and of the deployed flow."""

    rounds: Annotated[int, Range(ge=1, le=20)]
    """Most rounds in one run, the first included; another begins if data, code or settings changed meanwhile."""
    wait_minutes: Annotated[float, Range(ge=0, le=1440)]
    """Minutes that a deployed run waits for another retrain to end."""
    retries: Annotated[int, Range(ge=0, le=20)]
    """How often work is tried again after a failure of network, store, server or node; never after any other."""
    retry_seconds: Annotated[float, Range(gt=0, le=3600)]
    """Seconds before the first new attempt; each further pause is twice as long as the last."""
    elsewhere: Elsewhere | None
    """Which deployment trains for a deployed run; None: the run trains itself."""
    free_gb: Annotated[float, Range(ge=0)]
    """Free space, in billion bytes, that the project and the state folder must have before the start."""
    budgets: tuple[Budget, ...]
    """What stages may cost; a stage without an entry may take any time."""
