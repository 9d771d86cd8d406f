"""What makes a process of a pool another host than this one. Each is a pool's initializer, so it lives in a module."""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context


def pool(n_processes=2, initializer=None, *arguments):
    """Processes that share nothing with this one but the variables that they start with."""
    return ProcessPoolExecutor(n_processes, get_context("spawn"), initializer, arguments)


def lacks(place):
    """Packages below `place` are not installed on this host."""
    sys.path[:] = [path for path in sys.path if path != str(place)]


def has_instead(place, other):
    """This host has another version of what lies at `place`."""
    sys.path[:] = [str(other) if path == str(place) else path for path in sys.path]


def has_variable(name, value):
    """This host sets a variable of its own."""
    os.environ[name] = value


def lacks_processes():
    """Nothing can be started on this host."""
    sys.executable = "/nonexistent/python"
