"""`python src/train.py ...` is `gradspike train ...`; W&B sweep files name it as their program."""

import sys

from gradspike.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
