"""Verdicts on the papers' own claims: the ledger, the margins, the intervals, the scoreboard. See docs/claims.md."""
