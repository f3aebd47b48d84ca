"""Dropout: of elements, channels, samples and blocks, with masks that are functions of a seed."""
