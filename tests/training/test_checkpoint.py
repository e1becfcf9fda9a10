"""Checkpoints: whole or not at all, damaged ones passed over, a full disk survived."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sslrepro.errors import UserError
from sslrepro.training import checkpoint


def write(folder: Path, update: int, keep: int = 2, size: int = 8) -> None:
    weights = {"w": torch.full((size,), float(update))}
    checkpoint.save(folder, update, weights, {"step": torch.tensor(update)}, {"update": update}, keep)


def test_the_newest_comes_back_and_only_the_last_are_kept(tmp_path):
    for update in (1, 2, 3):
        write(tmp_path, update)
    weights, optimizer, state = checkpoint.load_latest(tmp_path)
    assert weights["w"][0] == 3 and optimizer["step"] == 3 and state["update"] == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000002", "000000003"]
    assert checkpoint.load_latest(tmp_path / "none") is None


@pytest.mark.parametrize("name", [*checkpoint.FILES, "checksums.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_newest_falls_back_with_a_warning(tmp_path, name, damage):
    write(tmp_path, 1)
    write(tmp_path, 2)
    file = tmp_path / "000000002" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    with pytest.warns(UserWarning, match="000000002"):
        assert checkpoint.load_latest(tmp_path)[2]["update"] == 1


def test_nothing_is_unpickled(tmp_path):
    """An optimizer file that needs arbitrary objects is refused, not run."""
    write(tmp_path, 1)
    file = tmp_path / "000000001" / "optimizer.pt"
    torch.save({"x": os.system}, file)
    sums = tmp_path / "000000001" / "checksums.json"
    sums.write_text(sums.read_text().replace(sums.read_text().split('"optimizer.pt": "')[1][:128], checkpoint._digest(file)))
    with pytest.raises(Exception, match=r"[Ww]eights.only|Unsupported"):
        checkpoint.load_latest(tmp_path)


FILL = """
import sys, torch
from pathlib import Path
from sslrepro.errors import UserError
from sslrepro.training import checkpoint
folder = Path(sys.argv[1])
checkpoint.save(folder, 1, {"w": torch.ones(8)}, {}, {"update": 1}, 2)
try:
    checkpoint.save(folder, 2, {"w": torch.ones(4_000_000)}, {}, {"update": 2}, 2)
except UserError as error:
    print("UserError:", error)
print("kept", checkpoint.load_latest(folder)[2]["update"], sorted(p.name for p in folder.iterdir()))
"""


def test_a_full_disk_leaves_the_old_one_whole(tmp_path):
    """A real file system of 2 MB: the new checkpoint of 16 MB does not fit."""
    made = subprocess.run(["unshare", "-rm", "true"], capture_output=True)
    if made.returncode:
        pytest.skip("this machine allows no mount namespace, so no small file system can be mounted")
    script = tmp_path / "fill.py"
    script.write_text(FILL)
    small = tmp_path / "small"
    small.mkdir()
    command = f"mount -t tmpfs -o size=2m none {small} && {sys.executable} {script} {small}"
    done = subprocess.run(["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "UserError" in done.stdout and "could not be written" in done.stdout and "resumes" in done.stdout
    assert "kept 1 ['000000001']" in done.stdout


def test_an_unwritable_folder_says_so(tmp_path):
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="could not be written"):
        write(tmp_path / "checkpoints", 1)
