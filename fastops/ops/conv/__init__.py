"""Convolution: the public functions, their strategies, and what they share."""
