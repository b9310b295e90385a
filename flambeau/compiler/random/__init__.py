"""Random streams equal to PyTorch's: the engine, its numbers, and how they become draws."""

__all__: list[str] = []
