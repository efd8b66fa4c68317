"""The loss surface around a run's trained weights: `python src/landscape.py run=runs/<run>`. See --help."""

import sys

from gradspike.cli.arguments import reporting_errors
from gradspike.tools.landscape.command import landscape

if __name__ == "__main__":
    sys.exit(reporting_errors(lambda: landscape(sys.argv[1:])))
