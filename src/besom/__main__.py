"""``python -m besom``."""

from besom.app.cli import main

if __name__ == "__main__":
    main()
