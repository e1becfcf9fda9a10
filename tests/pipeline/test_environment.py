"""One set of packages: pyproject.toml, requirements.lock and environment.yml agree, and no file names a package index."""

import re
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sslrepro.pipeline import environment

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
LOCK = (REPOSITORY / "requirements.lock").read_text()


def locked() -> list[Requirement]:
    return [Requirement(line) for line in environment.pinned()]


def test_every_declared_package_is_locked_within_its_range():
    by_name = {canonicalize_name(r.name): r for r in locked()}
    for line in PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"]:
        declared = Requirement(line)
        pin = by_name[canonicalize_name(declared.name)]
        assert declared.specifier.contains(str(pin.specifier).removeprefix("==")), f"{declared} is locked at {pin}"


def test_every_locked_package_is_pinned_and_hashed():
    blocks = re.split(r"\n(?=\S)", LOCK.strip())
    assert len(blocks) == len(locked()) > 100
    for block in blocks:
        assert re.match(r"\S+==\S+", block) and "--hash=sha256:" in block, block[:80]


def test_environment_yml_is_the_lock_and_this_package():
    assert (REPOSITORY / "environment.yml").read_text() == environment.text(), "run make lock"
    pip = yaml.safe_load(environment.text())["dependencies"][-1]["pip"]
    assert pip[-1] == "--editable ." and {str(Requirement(line)) for line in pip[:-1]} == {str(r) for r in locked()}
    python = next(d for d in yaml.safe_load(environment.text())["dependencies"] if str(d).startswith("python="))
    assert PROJECT["project"]["requires-python"].startswith(">=" + python.removeprefix("python="))


def test_what_is_installed_is_what_is_locked():
    wrong = {r.name: version(r.name) for r in locked() if r.marker is None and not r.specifier.contains(version(r.name))}
    assert not wrong


def test_the_pinned_uv_can_build_the_package():
    uv = Requirement((REPOSITORY / "requirements-uv.lock").read_text().split("\\")[0])
    (backend,) = map(Requirement, PROJECT["build-system"]["requires"])
    assert backend.name == "uv_build" and backend.specifier.contains(str(uv.specifier).removeprefix("=="))


@pytest.mark.parametrize("pattern", [r"--index-url", r"--extra-index-url", r"--find-links", r"https?://[^\s\"']*(/simple\b|py[p]i\.)"])
def test_no_file_names_a_package_index(pattern):  # the bracket keeps this file from naming one itself
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        path = REPOSITORY / name
        if path.suffix in (".lock", ".toml", ".yml", ".yaml", ".cfg", ".ini", ".md", "") and path.is_file():
            assert not re.search(pattern, path.read_text(errors="ignore")), name
