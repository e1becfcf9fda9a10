"""`python -m sslrepro.report PROFILE`: the last stage. DVC's tables, the static pages, the W&B mirror, from finished results."""

from __future__ import annotations

import argparse

from sslrepro.report import html, tables, track


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sslrepro.report")
    parser.add_argument("profile")
    profile = parser.parse_args(arguments).profile
    tables.write(profile)
    print(f"report: {html.build(profile)}", flush=True)
    mirrored = track.mirror(profile)
    print(f"W&B ({track.mode()}): {mirrored.written} run(s) written, {mirrored.kept} as they were", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
