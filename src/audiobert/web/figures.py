"""Draw figures for papers and for the report with matplotlib, without a screen."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from audiobert.answers import FillMask
from audiobert.artefacts import whole_file
from audiobert.auditorybench.tables import ResultTable
from audiobert.errors import MissingExtraError
from audiobert.web.findings import STATES
from audiobert.web.predictions import Calibration, Group

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Given = ParamSpec("Given")
Result = TypeVar("Result")

# Okabe and Ito's colours, which people with any colour vision can distinguish.
WITH_SOUND, WITHOUT_SOUND, PUBLISHED, CONTROL = "#D55E00", "#7F8C99", "#A9B8C6", "#E7C66B"
_SECTION = {"published": PUBLISHED, "control": CONTROL, "model": WITH_SOUND}
_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "svg.fonttype": "path",
    "svg.hashsalt": "audiobert",
    "pdf.fonttype": 42,
}
_PNG_DPI = 200


def _new_figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _styled(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Draw or save with this module's style without changing matplotlib's settings."""

    @wraps(function)
    def with_style(*values: Given.args, **options: Given.kwargs) -> Result:
        try:
            from matplotlib import rc_context
        except ImportError:
            raise MissingExtraError("matplotlib", "web") from None
        with rc_context(_STYLE):
            return function(*values, **options)

    return with_style


def _bars(axes: Any, names: Sequence[str], values: Sequence[float], colours: Any, errors: Any = None) -> None:
    """Draw horizontal bars from the top down, in percent."""
    places = range(len(names))
    axes.barh(places, values, color=colours, height=0.72)
    if errors is not None:
        axes.errorbar(values, places, xerr=errors, fmt="none", ecolor="#333333", elinewidth=1, capsize=2)
    axes.set_yticks(places, names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="x", color="#E5E7EB", linewidth=0.6)


@_styled
def predictions_figure(answers: Sequence[FillMask]) -> Figure:
    """Draw the paper's Figure 1: the probabilities of the first mask's words, switched off beside with sound."""
    figure = _new_figure(7.2, 2.0 * len(answers))
    rows = figure.subfigures(len(answers), 1, squeeze=False)[:, 0]
    for row, answer in zip(rows, answers, strict=True):
        mask = answer.masks[0]
        best = max(p.score for p in (*mask.predictions, *mask.base_predictions))
        shown = (
            (mask.base_predictions, WITHOUT_SOUND, "Plain language model (%)"),
            (mask.predictions, WITH_SOUND, "AudioBERT (%)"),
        )
        row.suptitle(f"“{answer.text}”", fontsize=9)
        for axes, (predictions, colour, name) in zip(row.subplots(1, 2), shown, strict=True):
            _bars(axes, [p.token for p in predictions], [100 * p.score for p in predictions], colour)
            axes.set_xlim(0, 105 * best)
            axes.set_xlabel(name, fontsize=8)
    return figure


@_styled
def table_figure(table: ResultTable) -> Figure:
    """Draw a table as bars with error bars: 95% intervals of own rows, standard deviations of published ones."""
    names = [row.label for row in table.rows]
    columns = len(table.columns)
    across = min(columns, 3)
    down = -(-columns // across)
    height = 0.21 * len(names) + 0.75
    figure = _new_figure(2.0 + 2.3 * across, height * down)
    grid = figure.subplots(down, across, squeeze=False, sharey=True)
    for index, column in enumerate(table.columns):
        axes = grid[index // across][index % across]
        values, low, high, colours = [], [], [], []
        for row in table.rows:
            cell = row.cells.get(column)
            value = cell.value if cell else 0.0
            values.append(value)
            interval = cell.interval if cell else None
            spread = (cell.deviation if cell else None) or 0.0
            low.append(max(0.0, value - interval[0]) if interval else spread)
            high.append(max(0.0, interval[1] - value) if interval else spread)
            colours.append(WITHOUT_SOUND if row.name.endswith(tuple(STATES)) else _SECTION[row.section])
        _bars(axes, names, values, colours, errors=[low, high])
        axes.set_title(f"{table.titles.get(column[0], column[0])}, {column[1]}", fontsize=9)
        axes.set_xlim(0, min(100, 1.12 * max([*values, 1.0])))
    for unused in range(columns, across * down):
        grid[unused // across][unused % across].set_visible(False)
    figure.supxlabel(table.title, fontsize=9)
    return figure


@_styled
def groups_figure(groups: Sequence[Group]) -> Figure:
    """Draw the accuracy by group with 95% intervals, and a mark at that of `:unheard`."""
    figure = _new_figure(6.4, 0.24 * len(groups) + 0.9)
    axes = figure.subplots()
    values = [100 * group.accuracy for group in groups]
    errors = [
        [max(0.0, 100 * (group.accuracy - group.low)) for group in groups],
        [max(0.0, 100 * (group.high - group.accuracy)) for group in groups],
    ]
    _bars(axes, [f"{group.name} (n={group.n})" for group in groups], values, WITH_SOUND, errors)
    marked = [(100 * g.unheard, place) for place, g in enumerate(groups) if g.unheard is not None]
    if marked:
        x, y = ([mark[i] for mark in marked] for i in range(2))
        axes.scatter(x, y, marker="|", s=80, color="#1F2937", zorder=3, label="unheard")
        figure.legend(loc="outside upper right", frameon=False)
    axes.set_xlim(0, 100)
    axes.set_xlabel("Accuracy (%)")
    return figure


@_styled
def calibration_figure(found: Calibration) -> Figure:
    """Draw a reliability diagram: the share of right answers by confidence."""
    figure = _new_figure(4.2, 3.6)
    axes = figure.subplots()
    axes.plot([50, 100], [50, 100], color="#9CA3AF", linestyle="--", linewidth=1)
    x, y = [100 * one.confidence for one in found.bins], [100 * one.accuracy for one in found.bins]
    sizes = [20 + 400 * one.n / found.n for one in found.bins]
    axes.scatter(x, y, s=sizes, color=WITH_SOUND, alpha=0.75)
    axes.plot(x, y, color=WITH_SOUND, linewidth=1)
    axes.set_xlabel("Confidence (%)")
    axes.set_ylabel("Right (%)")
    axes.set_xlim(49, 101)
    axes.set_ylim(0, 101)
    axes.set_title(f"expected calibration error {100 * found.error:.1f} points, n={found.n:,}", fontsize=9)
    return figure


@_styled
def retrieval_figure(classes: Sequence[tuple[str, float, int]], top_k: int) -> Figure:
    """Draw the precision of retrieval by class: label, share of the first clips with that label, clips of it."""
    figure = _new_figure(6.0, 0.19 * len(classes) + 0.8)
    axes = figure.subplots()
    names = [f"{label} ({clips})" for label, _, clips in classes]
    _bars(axes, names, [100 * precision for _, precision, _ in classes], WITH_SOUND)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"Clips of the class among the first {top_k} (%)")
    return figure


@_styled
def svg_address(figure: Figure) -> str:
    """Return the figure as a `data:` address."""
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(out.getvalue()).decode()


@_styled
def write_figures(folder: str | Path, figures: Mapping[str, Figure]) -> list[Path]:
    """Write each figure as PDF and PNG; returns the files."""
    written = []
    for name, figure in figures.items():
        for form in ("pdf", "png"):
            path = Path(folder) / f"{name}.{form}"
            metadata = {"CreationDate": None} if form == "pdf" else None
            with whole_file(path) as part:
                figure.savefig(part, format=form, dpi=_PNG_DPI, metadata=metadata)
            written.append(path)
    return written
