"""Draw charts as inline SVG; the page's style sheet gives the colours.

A chart is drawn for a column of about 340 pixels: the width of a phone, and a third of a desktop's.
"""

import math
from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

WIDTH, HEIGHT = 340, 190  # in units of the SVG
LEFT, RIGHT, TOP, BOTTOM = 40, 8, 10, 22  # margins
MOST_POINTS = 240  # of a line; more detail is not visible on the screen


class Line(NamedTuple):
    """One line of a chart."""

    color: int  # index of a colour of the style sheet
    x: np.ndarray  # [n]
    y: np.ndarray  # [n]
    low: Optional[np.ndarray] = None  # [n], lower edge of a band around the line
    high: Optional[np.ndarray] = None  # [n], upper edge


def line_chart(label: str, lines: Sequence[Line], smooth: bool = True) -> str:
    """Return an SVG of lines over a shared x axis; '' if there are no points.

    Points that are not finite are left out.

    Args:
      label: the text for screen readers.
      smooth: draw a long line faintly, and its moving average over it.
    """
    lines = [_thinned(line) for line in map(_finite, lines) if len(line.x)]
    if not lines:
        return ''
    heights = [edge for line in lines for edge in (line.y, line.low, line.high) if edge is not None]
    frame = _Frame(
        _span(min(line.x[0] for line in lines), max(line.x[-1] for line in lines)),
        _padded(min(h.min() for h in heights), max(h.max() for h in heights)),
    )
    parts = frame.axes()
    for line in lines:
        window = len(line.x) // 40 if smooth else 0
        averaged = _averaged(line, window)
        if averaged.low is not None:
            edge = list(zip(line.x, averaged.high)) + list(zip(line.x[::-1], averaged.low[::-1]))
            parts.append(f'<path class="band c{line.color}" d="{frame.path(edge)}Z"/>')
        elif window:
            parts.append(f'<path class="line faint c{line.color}" d="{frame.path(zip(line.x, line.y))}"/>')
        parts.append(f'<path class="line c{line.color}" d="{frame.path(zip(line.x, averaged.y))}"/>')
        x, y = frame.place(line.x[-1], averaged.y[-1])
        parts.append(f'<circle class="dot c{line.color}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>')
    return _svg(label, parts)


def reliability_chart(label: str, bins: Sequence[dict]) -> str:
    """Return an SVG of accuracy over confidence, with a dot for each bin; larger dots hold more choices.

    On the diagonal, the model's confidence equals its accuracy.
    """
    frame = _Frame((0.0, 1.0), (0.0, 1.0))
    parts = frame.axes()
    parts.append(f'<path class="diagonal" d="{frame.path([(0, 0), (1, 1)])}"/>')
    total = sum(b['count'] for b in bins)
    for b in bins:
        x, y = frame.place(b['confidence'], b['accuracy'])
        radius = 2 + 8 * math.sqrt(b['count'] / total)
        tip = f'{b["count"]} choices: confidence {b["confidence"]:.0%}, accuracy {b["accuracy"]:.0%}'
        parts.append(f'<circle class="dot c0" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"><title>{tip}</title></circle>')
    return _svg(label, parts)


class _Frame:
    """The area in which the data are drawn, and its axes."""

    def __init__(self, x_range: Tuple[float, float], y_range: Tuple[float, float]):
        self._x, self._y = x_range, y_range

    def place(self, x: float, y: float) -> Tuple[float, float]:
        """Return the position of a data point in units of the SVG."""
        across = (x - self._x[0]) / (self._x[1] - self._x[0])
        up = (y - self._y[0]) / (self._y[1] - self._y[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def path(self, points) -> str:
        """Return the path through data points (x, y), in the syntax of SVG."""
        return 'M' + 'L'.join('{:.1f} {:.1f}'.format(*self.place(x, y)) for x, y in points)

    def axes(self) -> List[str]:
        """Return grid lines and tick labels as SVG elements."""
        parts = []
        for tick, label in labelled(ticks(*self._y, 4)):
            _, y = self.place(self._x[0], tick)
            parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
            parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 3:.1f}" text-anchor="end">{label}</text>')
        for tick, label in labelled(ticks(*self._x, 5)):
            x, _ = self.place(tick, self._y[0])
            anchor = 'end' if x > WIDTH - RIGHT - 4 else 'middle'
            parts.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{label}</text>')
        return parts


def ticks(low: float, high: float, most: int) -> List[float]:
    """Return evenly spaced round numbers from `low` to `high`: about `most` of them."""
    rough = (high - low) / most
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = magnitude * next(factor for factor in (1, 2, 5, 10) if magnitude * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f'{i * step:.15g}') for i in range(first, last + 1)]


def labelled(values: Sequence[float]) -> List[Tuple[float, str]]:
    """Return each of the ticks with its label, with as many digits as it takes to tell the ticks apart."""
    for digits in range(3, 16):
        labels = [number(value, digits) for value in values]
        if len(set(labels)) == len(labels):
            break
    return list(zip(values, labels))


def number(value: float, digits: int = 3) -> str:
    """Format a number for an axis with so many digits: 0.25, 12k, 1e−5 (a small one has one less)."""
    for size, suffix in ((1e6, 'M'), (1e3, 'k')):
        if abs(value) >= size:
            return f'{value / size:.{digits}g}{suffix}'
    if value and abs(value) < 1e-3:
        return f'{value:.{digits - 1}g}'.replace('e-0', 'e-').replace('-', '−')
    return f'{value:.{digits}g}'.replace('-', '−')


def _svg(label: str, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _span(low: float, high: float) -> Tuple[float, float]:
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _padded(low: float, high: float) -> Tuple[float, float]:
    """Return a range with some space above and below; for a single number, a range around it."""
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        half = abs(low) / 2 or 0.5
        return low - half, high + half
    space = 0.06 * (high - low)
    # The axis of a quantity that is never negative, such as a loss, should not go below 0.
    return (low - space if low < 0 or low > 2 * space else 0.0), high + space


def _finite(line: Line) -> Line:
    """Return the line without points that are not finite."""
    columns = [np.asarray(c, float) for c in line[1:] if c is not None]
    keep = np.all([np.isfinite(c) for c in columns], axis=0)
    return Line(line.color, *(None if c is None else np.asarray(c, float)[keep] for c in line[1:]))


def _thinned(line: Line) -> Line:
    """Return a line of at most MOST_POINTS points, each the mean of neighbouring points."""
    size = -(-len(line.x) // MOST_POINTS)  # points per mean, rounded up
    if size < 2:
        return line
    starts = np.arange(0, len(line.x), size)
    counts = np.diff(np.append(starts, len(line.x)))
    return Line(line.color, *(None if c is None else np.add.reduceat(c, starts) / counts for c in line[1:]))


def _averaged(line: Line, window: int) -> Line:
    """Return the moving average of a line and its band over `window` points on each side (fewer at the ends)."""
    place = np.arange(len(line.x))
    first, last = np.maximum(place - window, 0), np.minimum(place + window + 1, len(place))

    def means(column):
        sums = np.concatenate([[0], np.cumsum(column)])
        return (sums[last] - sums[first]) / (last - first)

    return Line(line.color, line.x, *(None if column is None else means(column) for column in line[2:]))
