"""The command line: ``main`` picks the subcommand, and one module a subcommand does the work.

A subcommand's module has ``add_arguments(parser)`` and ``run(args) -> int``, the exit status.
"""
