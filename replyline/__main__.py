"""`python -m replyline`: the command."""

from replyline.entry import main

if __name__ == "__main__":
    main()
