"""Long programs are planned piece by piece: layers that are written down alike are planned once.

`repeats.py` finds what repeats, `division.py` cuts the program there, `joining.py` plans the pieces
and puts their plans in one line. What a piece needs and what it makes for others lies in memory at
its ends, so no pass of the compiler needs to know of it.
"""

__all__: list[str] = []
