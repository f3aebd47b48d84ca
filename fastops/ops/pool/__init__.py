"""Pooling: a maximum, a mean or a norm over windows of an image."""
