"""Normalisation: one core for statistics, result and gradient, and the operations made of it."""
