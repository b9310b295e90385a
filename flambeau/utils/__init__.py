"""Helpers beside the core: hook handles and data loading.

Lives here: `hooks` (removable handles) and `data` (datasets, samplers, the loader). May not live
here: anything that computes on tensors.
"""
