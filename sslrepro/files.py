"""Files and folders whole or not at all, wherever the process is killed and however full the disk is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from sslrepro.errors import UserError


@contextmanager
def writing(target: Path, what: str) -> Iterator[None]:
    """The system's error while `what` is written at `target` becomes a UserError: what, where, why, how much is free, what to do."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        why = error.args[0][0][2] if isinstance(error, shutil.Error) else error  # copytree's lists every file; the first will do
        there = next((folder for folder in (target, *target.resolve().parents) if folder.is_dir()), Path("/"))
        raise UserError(
            f"{target}: {what} could not be written ({why}); {shutil.disk_usage(there).free / 1e6:.0f} MB are free there. "
            "Free some space and run the same command again: what is finished is kept."
        ) from None


def empty(folder: Path) -> None:
    """UserError where something stands that `folder` would be written over, or where its parents are no folders."""
    for above in (folder, *folder.parents):
        if above.exists() and not above.is_dir():
            raise UserError(f"{above}: a file, so {folder} cannot be a folder; choose another")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: exists already and is not empty; choose another folder")


def save_weights(tensors: dict[str, Tensor], target: Path) -> None:
    """A safetensors file, whole or not at all. UserError on a full disk."""
    scratch = target.with_name(target.name + ".tmp")
    try:
        with writing(target, "the weights"):
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, scratch)
            scratch.rename(target)
    finally:
        scratch.unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Out of the way in one rename, then deleted: a remnant never stands in its place. What an earlier kill left aside goes, too."""
    aside = folder.with_name(folder.name + ".old")
    shutil.rmtree(aside, ignore_errors=True)
    if folder.exists():
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def copy_whole(parts: dict[Path, Path], target: Path, without: tuple[str, ...] = ()) -> None:
    """Folder -> its place inside `target` (`.` for all of it), which stands whole or as it was. Names of `without` are left out."""
    scratch = target.with_name(target.name + ".tmp")
    try:
        with writing(target, "the copy"):
            shutil.rmtree(scratch, ignore_errors=True)
            for source, place in parts.items():
                shutil.copytree(source, scratch / place, ignore=shutil.ignore_patterns(*without))
            remove(target)
            scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
