"""Recurrent networks: long short-term memory, gated recurrent units, plain ones, and their cells."""
