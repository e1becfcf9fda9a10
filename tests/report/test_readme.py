"""README's scoreboard is computed, and is what it would be computed to now."""

from sslrepro.paths import root
from sslrepro.report.readme import BEGIN, rewritten


def test_the_scoreboard_in_the_readme_is_current():
    readme = (root() / "README.md").read_text(encoding="utf-8")
    assert BEGIN in readme
    assert rewritten(readme) == readme, "python -m sslrepro.report.readme writes it anew"
