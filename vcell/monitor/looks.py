"""Settings of the curves' display: axes, smoothing, which part is shown."""

from __future__ import annotations

from dataclasses import dataclass, field

from vcell.monitor.curves import AXES, SMOOTHING

Range = tuple[float, float]


@dataclass
class Looks:
    """Settings of the curves' display."""

    smoothing: int = 0  # index into SMOOTHING
    log: set[str] = field(default_factory=lambda: {"grad_norm"})  # names on a logarithmic axis
    axis: int = 0  # index into AXES
    focus: int = 0  # the chart that keys apply to
    large: bool = False  # the focused chart alone
    window: Range | None = None  # part of the x axis
    cursor: float | None = None
    shown: dict[int, int] = field(default_factory=dict)  # chart -> index in the list of curves
    compared: int = 0  # index in the list of curves of the compare screen

    @property
    def unit(self) -> str:
        """Unit of the x axis."""
        return AXES[self.axis]

    @property
    def over(self) -> int:
        """Steps over which curves are smoothed; 0: chosen by their length."""
        return SMOOTHING[self.smoothing]

    def next_axis(self) -> None:
        """Change the unit of the x axis, and show all of it."""
        self.axis = (self.axis + 1) % len(AXES)
        self.unzoom()

    def zoom(self, factor: float, extent: Range | None) -> None:
        """Show more or less of the x axis, around the cursor or up to the end of its `extent`."""
        if extent is None:
            return
        low, high = self.window or extent
        centre = self.cursor if self.cursor is not None else high
        new = (centre - (centre - low) * factor, centre + (high - centre) * factor)
        new = (max(extent[0], new[0]), min(extent[1], new[1]))
        if new[1] - new[0] >= (extent[1] - extent[0]) * 0.999:
            self.window = None
        elif new[1] - new[0] > (extent[1] - extent[0]) * 1e-6:
            self.window = new

    def move_cursor(self, by: float, extent: Range | None) -> None:
        """Move the cursor by a share of the x axis; the window follows it."""
        if extent is None:
            return
        low, high = self.window or extent
        at = high if self.cursor is None else self.cursor + by * (high - low)
        at = self.cursor = min(extent[1], max(extent[0], at))
        if self.window is not None:
            shift = min(0.0, at - low) + max(0.0, at - high)
            self.window = (low + shift, high + shift)

    def unzoom(self) -> None:
        """Show the whole x axis, without a cursor."""
        self.window = self.cursor = None
