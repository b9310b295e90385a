"""Facts without computing: dtypes and promotion, shapes and strides, devices, errors, configuration.

Nothing here may import another layer of Flambeau.
"""

__all__: list[str] = []
