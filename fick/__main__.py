"""``python -m fick`` is the command line."""

from .compiler.cli import main

if __name__ == "__main__":
    main()
