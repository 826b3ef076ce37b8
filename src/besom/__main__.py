"""``python -m besom``."""

from besom.cli import main

if __name__ == "__main__":
    main()
