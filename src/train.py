"""Train one run, or several with -m: `python src/train.py method=mpd_agl dataset=digits`. See --help."""

import sys

from gradspike.cli.hydra import run
from gradspike.cli.train import print_trials, train

if __name__ == "__main__":
    sys.exit(run(train, print_trials))
