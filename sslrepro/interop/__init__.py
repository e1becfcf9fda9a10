"""Weights from and to the libraries that people trust."""
