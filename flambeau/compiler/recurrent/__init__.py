"""Recurrent layers over whole sequences, and gangs: threads that work through steps together."""

__all__: list[str] = []
