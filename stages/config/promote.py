"""Section `promote` of params.yaml: what the flows may do after the verdict. No DVC stage reads it."""

import dataclasses
from typing import Annotated

from stages.config import Range


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromoteConfig:
    """How a green candidate meets the champion of the registry."""

    compare_minutes: Annotated[float, Range(gt=0, le=1440)]
    """Longest time, in minutes, that scoring candidate and champion anew may take before the flow gives up."""
