"""Save a W&B workspace that compares methods: `python src/dashboard.py project=gradspike`. See --help."""

import sys

from gradspike.cli.arguments import reporting_errors
from gradspike.tools.dashboard.command import dashboard

if __name__ == "__main__":
    sys.exit(reporting_errors(lambda: dashboard(sys.argv[1:])))
