"""Regions of interest: features of boxes, boxes among themselves, and convolution at sampled places."""
