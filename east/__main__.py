"""`python -m east` is the `east` command."""

from east.cli import main

if __name__ == "__main__":
    main()
