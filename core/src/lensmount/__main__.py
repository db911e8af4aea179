"""`python -m lensmount` is the `lensmount` command."""

from lensmount.cli import main

if __name__ == "__main__":
    main()
