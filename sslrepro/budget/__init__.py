"""Exact cost of models from their settings, budgets in updates and back, memory, fits of size against budget, and the planner.

What the trainer needs is here and imports nothing heavy; the rest is in its own module: `names`, `memory`, `activations`, `energy`,
`fits`, `plan`.
"""

from sslrepro.budget.count import Cost, cell_cost, count
from sslrepro.budget.updates import flops_for, hours_seen, update_flops, updates_for

__all__ = ["Cost", "cell_cost", "count", "flops_for", "hours_seen", "update_flops", "updates_for"]
