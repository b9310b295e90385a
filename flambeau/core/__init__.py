"""Facts without computing: dtypes and promotion, shapes and strides, devices, errors, settings.

Nothing here may import another layer of Flambeau.
"""

__all__: list[str] = []
