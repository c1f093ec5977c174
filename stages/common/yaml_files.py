"""YAML files that people write: a key given twice is a mistake, and refused."""

from pathlib import Path
from typing import Any

import yaml


class _Once(yaml.composer.Composer):
    """Refuses a mapping with a repeated key; PyYAML's own loaders silently take the last one."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:  # as written: merges (`<<`) come later
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"`{key.value}` is given twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return node


class _Values(_Once, yaml.SafeLoader): ...


class _Texts(_Once, yaml.BaseLoader): ...


def read_yaml(path: Path, *, texts: bool = False) -> Any:
    """What a YAML file says; with `texts`, every value as the text that was written: no dates, and `no` stays `no`.

    Raises ValueError if it is not YAML in UTF-8, or gives a key twice.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Texts if texts else _Values)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ValueError(f"{path} cannot be read: its YAML is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8: {error}") from None
