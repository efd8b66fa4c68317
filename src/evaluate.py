"""Evaluate a run's checkpoints on one split: `python src/evaluate.py run=runs/<run> split=test`. See --help."""

import sys

from gradspike.cli.arguments import reporting_errors
from gradspike.cli.train import evaluate

if __name__ == "__main__":
    sys.exit(reporting_errors(lambda: evaluate(sys.argv[1:])))
