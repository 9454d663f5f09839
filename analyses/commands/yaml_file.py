"""YAML as files of arguments: numbers such as 1e-3 are numbers, and a key given twice is refused."""

import re
from pathlib import Path
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} is given twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    def represent_text(self, text: str) -> yaml.ScalarNode:
        # These end a line for YAML 1.1; only between double quotes are they written by number.
        style = '"' if re.search("[\x85\u2028\u2029]", text) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _Dumper.represent_text)


# YAML 1.1 reads 1e-3 as text; 1.2 and everyone who writes a learning rate read a number. Text like it is quoted.
for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )


def read(path: Path) -> dict[str, Any]:
    """Keys and values of a file.

    Raises:
        ValueError: If there is no such file, or it is not YAML.
    """
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ValueError(f"--config is {path}, but there is no such file: give a YAML file of arguments.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8: give a YAML file of arguments.") from error
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{path} cannot be read as YAML: {error.problem}{line}; correct it there.") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path} cannot be read as YAML: {error}; correct it there.") from error
    if found is not None and not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, but arguments are `key: value` lines: write such.")
    return found or {}


def written(value: Any) -> str:
    """Plain values as YAML, in their own order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
