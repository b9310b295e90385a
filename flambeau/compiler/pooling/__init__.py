"""Pooling and resizing of images."""

__all__: list[str] = []
