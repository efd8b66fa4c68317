"""Prepare a data set once, check it, look at it: `python src/prepare.py dataset=cifar10 data_dir=data`. See --help."""

import sys

from gradspike.cli.arguments import reporting_errors
from gradspike.cli.prepare import prepare

if __name__ == "__main__":
    sys.exit(reporting_errors(lambda: prepare(sys.argv[1:])))
