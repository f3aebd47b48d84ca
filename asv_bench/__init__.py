"""Benchmarks run by asv over the history of fastops; see README.md."""
