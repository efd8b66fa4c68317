"""Shapes and cost of a network, layer by layer: `python src/describe.py model=resnet19 dataset=cifar10`. See --help."""

import sys

from gradspike.cli.arguments import reporting_errors
from gradspike.tools.describe.command import describe

if __name__ == "__main__":
    sys.exit(reporting_errors(lambda: describe(sys.argv[1:])))
