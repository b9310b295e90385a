"""`Compare`: measurements side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flambeau.utils.benchmark.measurement import Measurement, select_unit, trim_sigfig

__all__ = ["Compare"]

_BEST, _GOOD, _BAD, _END = "\033[92m\033[1m", "\033[34m\033[1m", "\033[31m\033[1m", "\033[0m\033[0m"


class Compare:
    """Tables of measurements: one for each label, a row for each sub-label and number of threads, a
    column for each description."""

    def __init__(self, results: Iterable[Measurement]) -> None:
        self._results: list[Measurement] = []
        self.extend_results(results)
        self._trim = self._warn = False
        self._colour: str | None = None

    def extend_results(self, results: Iterable[Measurement]) -> None:
        """Add measurements.

        Raises:
            ValueError: something else is among them.
        """
        results = list(results)
        for each in results:
            if not isinstance(each, Measurement):
                raise ValueError("Expected an instance of `Measurement`, got "
                                 f"{type(each).__name__} instead.")
        self._results += results

    def trim_significant_figures(self) -> None:
        """Show only digits that mean something."""
        self._trim = True

    def colorize(self, rowwise: bool = False) -> None:
        """Colour the best of each column, or of each row; and what is twice as slow."""
        self._colour = "row" if rowwise else "column"

    def highlight_warnings(self) -> None:
        """Mark times that differ too much."""
        self._warn = True

    def print(self) -> None:
        """Print the tables."""
        print(str(self))

    def __str__(self) -> str:
        merged = Measurement.merge(self._results)
        labels: dict[str | None, list[Measurement]] = {}
        for each in merged:
            labels.setdefault(each.task_spec.label, []).append(each)
        return "\n\n".join(self._table(label, group) for label, group in labels.items()) + "\n"

    def _table(self, label: str | None, results: Sequence[Measurement]) -> str:
        columns = list(dict.fromkeys(each.task_spec.description or "" for each in results))
        rows = list(dict.fromkeys((each.task_spec.num_threads, each.task_spec.env,
                                   each.as_row_name) for each in results))
        rows.sort(key=lambda row: (row[0], row[1] or ""))
        cells = {((each.task_spec.num_threads, each.task_spec.env, each.as_row_name),
                  each.task_spec.description or ""): each for each in results}
        unit, seconds = select_unit(min(each.median for each in results))
        names = {row: (f"({row[1]}) " if row[1] else "") + row[2] for row in rows}
        width = max(4 + max(map(len, names.values())),
                    max(len(_threads(row[0])) for row in rows))
        text = {key: self._number(each, seconds) for key, each in cells.items()}
        widths = [max([len(column), *(len(text.get((row, column), "")) for row in rows)])
                  for column in columns]
        lines = [" " * width + "".join(f"  |  {name:^{w}}" for name, w in
                                       zip(columns, widths, strict=True))]
        total = len(lines[0])
        before = None
        for row in rows:
            if row[0] != before:
                before = row[0]
                lines.append(_threads(before) + " " + "-" * (total - len(_threads(before)) - 1))
            line = f"{'    ' + names[row]:<{width}}"
            for column, w in zip(columns, widths, strict=True):
                shown = f"{text.get((row, column), ''):>{w}}"
                line += "  |  " + self._coloured(shown, cells, row, column, rows, columns)
            lines.append(line)
        title = f" {label or ''} ".center(total - 2, "-")
        notes = [f"Times are in {_LONG[unit]} ({unit})."]
        if self._warn and any(each.has_warnings for each in results):
            notes.append("(! marks times whose middle half is wider than 10 % of their median)")
        return "\n".join([f"[{title}]", *lines, "", *notes])

    def _number(self, each: Measurement, seconds: float) -> str:
        value = each.median / seconds
        if self._trim:
            digits = each.significant_figures
            value = trim_sigfig(value, digits)
            text = f"{value:.{max(0, digits - len(str(int(value))))}f}"
        else:
            text = f"{value:.1f}"
        return ("! " if self._warn and each.has_warnings else "") + text

    def _coloured(self, shown: str, cells: dict, row: tuple, column: str, rows: Sequence,
                  columns: Sequence) -> str:
        each = cells.get((row, column))
        if self._colour is None or each is None:
            return shown
        others = ([(row, other) for other in columns] if self._colour == "row"
                  else [(other, column) for other in rows])
        best = min(cells[key].median for key in others if key in cells)
        ratio = each.median / best
        colour = _BEST if ratio <= 1.05 else _GOOD if ratio <= 1.5 else _BAD if ratio > 2 else ""
        return f"{colour}{shown}{_END}" if colour else shown


_LONG = {"ns": "nanoseconds", "us": "microseconds", "ms": "milliseconds", "s": "seconds"}


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}:"
