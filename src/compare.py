"""Compare trained runs: `python src/compare.py runs --out report.html`. See --help."""

import sys

from gradspike.cli.arguments import reporting_errors
from gradspike.tools.compare.command import compare

if __name__ == "__main__":
    sys.exit(reporting_errors(lambda: compare(sys.argv[1:])))
