"""Where a training step's time and memory go: `python src/profile.py model=resnet19 dataset=digits_events`. See --help.

The standard library has a module of this name, which torch imports (through cProfile), and `python src/x.py` puts
src/ before the standard library. Imported as a module, this file therefore gives way to that one.
"""

import sys

if __name__ == "__main__":
    from gradspike.cli.arguments import reporting_errors
    from gradspike.tools.profile.command import profile

    sys.exit(reporting_errors(lambda: profile(sys.argv[1:])))

import os
from importlib.machinery import PathFinder
from importlib.util import module_from_spec

_spec = PathFinder.find_spec(__name__, [os.path.dirname(os.__file__)])
assert _spec is not None
assert _spec.loader is not None
# An import gives what stands here when the file has been run.
sys.modules[__name__] = module_from_spec(_spec)
_spec.loader.exec_module(sys.modules[__name__])
