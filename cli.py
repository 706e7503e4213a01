"""``python cli.py``: the command line, run from a checkout."""

from mlx_starflow.cli.app import main

if __name__ == "__main__":
    main()
