"""environment.yml from requirements.lock: for those who use conda, the same packages at the same versions. `make lock` runs it."""

from __future__ import annotations

import sys

from sslrepro.paths import root

HEADER = """\
# conda env create -f environment.yml && conda activate sslrepro
# The packages and versions of requirements.lock, written by `make lock`; a test holds the two together.
name: sslrepro
channels: [conda-forge, nodefaults]
dependencies:
  - python=3.11
  - pip
  - git
  - make
  - pip:
"""


def pinned() -> list[str]:
    """`name==version`, with its marker where it is for some platforms alone, of each package in the lock."""
    lines = (root() / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return [line.removesuffix("\\").strip() for line in lines if line and not line.startswith((" ", "#"))]


def text() -> str:
    """What environment.yml holds: the locked packages, then this one."""
    quoted = [f'      - "{line}"' for line in pinned()]
    return HEADER + "\n".join([*quoted, "      - --editable .", ""])


if __name__ == "__main__":
    sys.stdout.write(text())
