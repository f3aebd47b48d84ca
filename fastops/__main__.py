"""``python -m fastops``."""

from fastops.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
