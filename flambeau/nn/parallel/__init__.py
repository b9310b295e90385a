"""Modules on several devices of one machine. There is one device, so each runs as it is."""

from flambeau.nn.parallel.data_parallel import DataParallel, data_parallel

__all__ = ["DataParallel", "data_parallel"]
