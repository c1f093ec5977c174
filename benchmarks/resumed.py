"""Long benchmarks that resume where they were stopped: results by key, one line each, and a table inside a page."""

import json
import math
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "recipes.md"
Result = dict[str, float]


def measured(path: Path, keys: Iterable[str], measure: Callable[[str], Result]) -> dict[str, Result]:
    """Results by key: `measure(key)` for each key that the file `path` does not hold yet, added to it at once and
    printed."""
    found: dict[str, Result] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found[row["key"]] = row["result"]
    path.parent.mkdir(parents=True, exist_ok=True)
    for key in keys:
        if key not in found:
            found[key] = measure(key)
            line = json.dumps({"key": key, "result": found[key]})
            print(line, flush=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
    return found


def spread(values: list[float]) -> str:
    """Mean of the seeds and the lowest and highest of them."""
    mean, low, high = (
        f"{value:.0f}" if 100 <= value < math.inf else f"{value:.3g}"
        for value in (statistics.fmean(values), min(values), max(values))
    )
    return mean if len(values) == 1 else f"{mean} ({low} to {high})"


def write_section(name: str, lines: list[str]) -> None:
    """Replace what lies between the page's marks of that name."""
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.split(f"<!-- {name} -->")[0], text.split(f"<!-- /{name} -->")[1]
    PAGE.write_text(f"{before}<!-- {name} -->\n" + "\n".join(lines) + f"\n<!-- /{name} -->{after}", encoding="utf-8")
