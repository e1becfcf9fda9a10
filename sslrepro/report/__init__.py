"""Results for people: figures, the static pages, DVC's tables, and the W&B mirror. Plain files are read; none of this is read back."""
