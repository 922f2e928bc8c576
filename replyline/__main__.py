"""`python -m replyline`: the command."""

from replyline.cli import main

if __name__ == "__main__":
    main()
