"""Activations: a formula for each element, and its derivative."""
