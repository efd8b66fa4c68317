"""Run a W&B sweep file without a server: `python src/sweep.py sweeps/quick.yaml workers=2`. See --help."""

import sys

from gradspike.cli.arguments import reporting_errors
from gradspike.tools.sweep.command import sweep

if __name__ == "__main__":
    sys.exit(reporting_errors(lambda: sweep(sys.argv[1:])))
