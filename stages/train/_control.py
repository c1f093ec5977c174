"""What is decided while a run goes on: which moment was best, what is wrong, when to go back, when to stop.

All of it is a function of the losses and measures so far, which checkpoints carry: a resumed run decides the same.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from stages.config.train import TrainConfig

LOWER_IS_BETTER = ("fid_train",)


@dataclasses.dataclass(frozen=True, order=True)
class Moment:
    """A checkpoint by what names it: how often the run went back before it, and its step."""

    attempt: int
    step: int

    @staticmethod
    def of(record: Mapping[str, float]) -> "Moment":
        """The moment that an entry of the decisions names."""
        return Moment(int(record["attempt"]), int(record["step"]))


@dataclasses.dataclass
class Control:
    """The state of these decisions. `measures` has one row per evaluation, as the curves have one per logged step."""

    measures: list[dict[str, float]] = dataclasses.field(default_factory=list)
    alarms: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    rollbacks: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    best: dict[str, float] | None = None
    """Attempt, step, kimg and value of the best evaluation so far."""
    good: dict[str, int] | None = None
    """The checkpoint to go back to; None for the start of the run."""
    pending: dict[str, int] | None = None
    """The newest sound checkpoint, which becomes `good` with the next."""
    ancestry: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """What the run began with besides random weights, the oldest first."""
    stopped: str | None = None
    """Why the run ended before its budget."""

    @property
    def attempt(self) -> int:
        return len(self.rollbacks)

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return dataclasses.asdict(self)

    def needs(self) -> set[Moment]:
        """The checkpoints that later decisions may ask for."""
        return {Moment.of(record) for record in (self.best, self.good, self.pending) if record}

    def to_publish(self, config: TrainConfig) -> dict[str, float] | None:
        """The best moment where that is what the run publishes; None where it is the last one."""
        return self.best if config.selection.name == "domain" and config.selection.keep == "best" else None

    def belongs(self, steps: int) -> bool:
        """Whether a run of `steps` steps would have made the same rollbacks: none lies beyond its end, or was triggered
        by checks made only at another budget's last step."""
        return all(back["at"] <= steps and (not back["final"] or back["at"] == steps) for back in self.rollbacks)

    # What is seen.

    def evaluated(self, config: TrainConfig, row: dict[str, float], *, regular: bool) -> list[tuple[str, str]]:
        """Enter the measures of an evaluation; returns what they raise an alarm about, as (kind, sentence).

        The evaluation at the end of a budget is no `regular` one where it falls between two others: a larger budget
        would not have it, so it decides nothing but which generator is published.
        """
        selection = config.selection
        assert selection.name == "domain"
        self.measures.append(row)
        if not regular:
            return []
        place = {"attempt": self.attempt, "step": int(row["step"])}
        value = row[selection.metric]
        wrong = self._wrong(config)
        # Where the run goes back, no checkpoint is made of this moment.
        leaves = bool(wrong) and config.rollbacks.most > 0
        if not leaves and (self.best is None or better(selection.metric, value, self.best["value"])):
            self.best = {**place, "kimg": row["kimg"], "value": value}
        if not any(self._suspicious(config, row).values()):
            self._sound(config, place)
        images = round(1000 * (row["kimg"] - self.best["kimg"])) if self.best else 0
        if selection.patience_kimg is not None and images >= round(1000 * selection.patience_kimg):
            self.stopped = f"{selection.metric} has not improved for {images / 1000:g} kimg"
        return wrong

    def checkpointed(self, config: TrainConfig, step: int) -> None:
        """Note a regular checkpoint with finite weights, where no evaluations say which one is good."""
        if config.selection.name == "none":
            self._sound(config, {"attempt": self.attempt, "step": step})

    def _sound(self, config: TrainConfig, place: dict[str, int]) -> None:
        """Nothing is wrong at this checkpoint. The one before it becomes the one to go back to: trouble shows late."""
        if config.rollbacks.most:
            self.good, self.pending = self.pending, place

    def _wrong(self, config: TrainConfig) -> list[tuple[str, str]]:
        """What has just been suspicious in so many regular evaluations in a row."""
        needed = config.alarms.in_a_row
        latest = [self._suspicious(config, row) for row in self.measures[-needed - 1 :]]
        found = []
        for kind, said in self._suspicious(config, self.measures[-1]).items():
            run = [bool(row[kind]) for row in latest]
            if said and all(run[-needed:]) and len(run) >= needed and (len(run) == needed or not run[0]):
                found.append((kind, said))
        return found

    def _suspicious(self, config: TrainConfig, row: dict[str, float]) -> dict[str, str]:
        """A sentence for each kind of trouble, empty where the evaluation shows none of it.

        A separation beyond its limit counts only once it was within: before, it shows how bad the generator still is.
        """
        before = [other for other in self.measures if other["step"] <= row["step"]]
        said = {"collapse": "", "overfitting": ""}
        for name in ("coverage_train", "diversity_train"):
            most = min(1.0, max(other[name] for other in before))  # beyond the real images' there is nothing to lose
            if row[name] < config.alarms.collapse * most:
                said["collapse"] = f"{name} fell from {most:.3f} to {row[name]:.3f}"
        limit = config.alarms.separation
        if row["separation"] > limit and any(other["separation"] <= limit for other in before):
            said["overfitting"] = f"the discriminator tells {100 * row['separation']:.1f} % of pairs apart"
        return said

    def alarmed(self, step: int, kind: str, said: str) -> None:
        """Enter an alarm in the record."""
        self.alarms.append({"attempt": self.attempt, "step": step, "kind": kind, "said": said})

    # What is done.

    def went_back(self, earlier: "Control", *, step: int, to: int, kind: str, final: bool) -> "Control":
        """The state after going back to the checkpoint that carries `earlier`: what was seen since is forgotten but
        for the alarms and the best moment."""
        back = {"at": step, "to": to, "kind": kind, "final": final}
        here = {"attempt": self.attempt + 1, "step": to}
        rollbacks = [*self.rollbacks, back]
        return Control(
            earlier.measures, self.alarms, rollbacks, best=self.best, good=here, pending=here, ancestry=self.ancestry
        )


def better(metric: str, value: float, than: float) -> bool:
    """Whether one value of a metric is better than another; equal ones are not, so the earlier stays."""
    return value < than if metric in LOWER_IS_BETTER else value > than


def seed(config: TrainConfig, attempt: int) -> int:
    """Seed of batches and latents after going back `attempt` times; at first the run's own."""
    return (config.seed + attempt * 0x9E3779B97F4A7C15) % 2**63 if config.rollbacks.reseed else config.seed


def slowed(config: TrainConfig, attempt: int) -> float:
    """What learning rates are multiplied by after going back `attempt` times."""
    return config.rollbacks.lr_factor**attempt
