"""Exact cost of models from their settings, budgets in updates and back, memory, fits of size against budget, and the planner."""
