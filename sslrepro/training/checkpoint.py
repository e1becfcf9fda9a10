"""Checkpoints: written beside, checked, then moved into place; a damaged newest one falls back to the one before.

One folder a checkpoint: `model.safetensors`, `optimizer.pt` (tensors and plain numbers, loaded weights-only), `state.json` (the rest), and
`checksums.json`, whose presence says that the others are whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sslrepro.errors import UserError

FILES = ("model.safetensors", "optimizer.pt", "state.json")


def save(folder: Path, update: int, model: dict[str, Tensor], optimizer: dict[str, Any], state: dict[str, Any], keep: int) -> Path:
    """Write `folder/<update>` whole or not at all, then drop all but the newest `keep`. UserError on a full disk; older ones stay."""
    target = folder / f"{update:09d}"
    scratch = folder / f".{target.name}.tmp"
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in model.items()}, scratch / FILES[0])
        torch.save(optimizer, scratch / FILES[1])
        (scratch / FILES[2]).write_text(json.dumps(state))
        sums = {name: _digest(scratch / name) for name in FILES}
        (scratch / "checksums.json").write_text(json.dumps(sums))
        for name in (*FILES, "checksums.json"):
            _flush(scratch / name)
        shutil.rmtree(target, ignore_errors=True)
        scratch.rename(target)
    except (OSError, RuntimeError, SafetensorError) as error:  # safetensors and torch wrap the system's error in their own
        shutil.rmtree(scratch, ignore_errors=True)
        left = shutil.disk_usage(folder).free / 1e6 if folder.exists() else 0
        raise UserError(
            f"{target}: the checkpoint could not be written ({error}); {left:.0f} MB are free there. "
            "Free some space and run the same command again: it resumes from the checkpoint before."
        ) from None
    for old in _all(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load_latest(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]] | None:
    """(model, optimizer, state) of the newest whole checkpoint, or None. A damaged one is named in a warning and passed over."""
    for candidate in reversed(_all(folder)):
        reason = _damage(candidate)
        if reason is None:
            optimizer = torch.load(candidate / FILES[1], map_location="cpu", weights_only=True)
            return load_file(candidate / FILES[0]), optimizer, json.loads((candidate / FILES[2]).read_text())
        warnings.warn(f"{candidate}: {reason}; falling back to the checkpoint before it", stacklevel=2)
    return None


def _all(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[0-9]*") if path.is_dir())


def _damage(checkpoint: Path) -> str | None:
    try:
        sums = json.loads((checkpoint / "checksums.json").read_text())
        for name in FILES:
            if _digest(checkpoint / name) != sums.get(name):
                return f"{name} does not match its checksum"
    except (OSError, ValueError) as error:
        return f"not readable ({error})"
    return None


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "blake2b").hexdigest()


def _flush(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
