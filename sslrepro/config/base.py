"""What all settings share: strictness, named number types, reading YAML, errors that name the key, and a hash."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sslrepro.errors import UserError

Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


def distinct(values: list) -> list:
    if len(set(values)) < len(values):
        raise ValueError(f"a value occurs twice in {values}")
    return values


def ascending(values: list[float]) -> list[float]:
    if not 0 < values[0] <= values[1]:
        raise ValueError(f"{values} is not a range of positive numbers from low to high")
    return values


class Settings(BaseModel):
    """Strict: no unknown keys, and a string is never taken for a number (PyYAML reads `1e-4` as one; write `1.0e-4`), and
    numbers are finite."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file; an error that names file and line otherwise."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}: save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None


T = TypeVar("T", bound=Settings)


def parse(kind: type[T], values: Any, where: str) -> T:
    """Settings of the given kind from plain values. Errors name each key by its full path, what it got and what it wants."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = [f"{where}: {error.error_count()} setting(s) are wrong"]
        for item in error.errors():
            key = ".".join(str(part) for part in item["loc"]) or "(top)"
            got = "" if item["type"] in ("missing", "extra_forbidden", "value_error") else f", got {item['input']!r}"
            if item["type"] == "extra_forbidden":
                lines.append(f"  {key}: no such setting")
            else:
                lines.append(f"  {key}: {item['msg']}{got}")
            if isinstance(item.get("input"), str) and "float" in item["type"] and _is_number(item["input"]):
                lines.append(f"    YAML 1.1 reads {item['input']} as text; write it with a point, such as 1.0e-4")
        raise UserError("\n".join(lines)) from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def settings_hash(settings: Settings) -> str:
    """A short name for exactly these settings."""
    text = json.dumps(settings.model_dump(mode="json"), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
