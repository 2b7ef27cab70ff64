"""Gives versions of clients from before Python 3.10 what Python has taken away since."""

import collections
import collections.abc
import inspect

collections.Callable = collections.abc.Callable
collections.Iterable = collections.abc.Iterable
collections.Mapping = collections.abc.Mapping
if not hasattr(inspect, "formatargspec"):
    inspect.formatargspec = lambda *args, **_: str(inspect.Signature())
if not hasattr(inspect, "getargspec"):
    inspect.getargspec = lambda f: inspect.getfullargspec(f)[:4]
