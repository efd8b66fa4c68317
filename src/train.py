"""`python src/train.py ...` is `gradspike train ...`; W&B sweep files name it as their program."""

import sys

from gradspike.__main__ import main
from gradspike.cli.ending import run_program

if __name__ == "__main__":
    run_program(lambda: main(["train", *sys.argv[1:]]))
