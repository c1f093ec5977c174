"""Where candidates are tested: folders, settings, and one leashed process per test."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from flows.work.process import leashed
from stages.common.yaml_files import read_yaml
from stages.config.promote import PromoteConfig

STOPPED = 143


@dataclasses.dataclass(frozen=True, kw_only=True)
class Testbench:
    """`held` is the descriptor of a lock that each test keeps while it runs; `log` takes one line of text."""

    project: Path
    state: Path
    held: int
    config: PromoteConfig
    log: Callable[[str], None]

    def run(self, command: Sequence[str], *, minutes: float, shown: bool = True) -> tuple[int, list[str]]:
        """Exit code and lines of `command`, run in the project's folder; 143 if it took longer than `minutes`."""
        lines: list[str] = []
        with leashed(command, cwd=self.project, held=self.held, timeout=minutes * 60) as process:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.rstrip())
                if shown:
                    self.log(lines[-1])
            return process.wait(), lines


def rules_sha256(params: Path) -> str:
    """Digest of the sections `compare` and `promote`: a decision holds as long as the rules by which it was taken.

    Raises ValueError if the file is not valid YAML.
    """
    content = read_yaml(params)
    rules = {section: content.get(section) for section in ("compare", "promote")}
    return hashlib.sha256(json.dumps(rules, sort_keys=True, default=str).encode()).hexdigest()
