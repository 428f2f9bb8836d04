"""Figures in one style, that stay readable when printed in grey: groups differ by marker and line as well as colour.

| function | module | what it draws |
|---|---|---|
| `strength_figure` | `strength` | a score against strength, with tipping points and their intervals |
| `metric_figure` | `strength` | metrics against strength, the excluded trials greyed |
| `closing_figure` | `closing` | the strengths of a search in their order, with the interval closing |
| `curves`, `panel_curves` | `curves` | a metric over epochs, with bands over seeds |
| `layer_profile` | `curves` | a metric by layer, with bands over seeds |
| `map_panels` | `maps` | heat maps on a common scale |
| `saliency_figure` | `maps` | images with saliency maps, each on its own scale |
| `cam_panels` | `maps` | images under class activation maps |
| `pareto_figure` | `pareto` | two metrics against each other, the settings that no other beats joined |
| `profile_figure` | `profiles` | performance profiles, and the probability of improvement |
| `corruption_table` | `tables` | a score by corruption and setting, as numbers on a common scale |
| `forest_figure` | `tables` | differences with their intervals, one under the other |

Each returns a matplotlib figure and changes no global setting; `save` writes it as PNG, SVG and PDF, `render` gives one
of them as bytes, both with the sweep, its numbers of trials, seeds and images, and the record's hash in the metadata.
Numbers that are nan are left out everywhere.
"""

from __future__ import annotations

from analysis.figures.closing import ClosingPanel, closing_figure
from analysis.figures.curves import curves, layer_profile, panel_curves
from analysis.figures.files import files, render, save
from analysis.figures.maps import cam_panels, map_panels, saliency_figure
from analysis.figures.pareto import ParetoGroup, pareto_figure, pareto_front
from analysis.figures.profiles import MOST_PROFILES, ProfileCurve, profile_figure
from analysis.figures.strength import MetricPanel, StrengthGroup, metric_figure, strength_figure
from analysis.figures.style import STYLE, Band, Direction, axis_name
from analysis.figures.tables import ForestRow, corruption_table, forest_figure

__all__ = [
    "MOST_PROFILES",
    "STYLE",
    "Band",
    "ClosingPanel",
    "Direction",
    "ForestRow",
    "MetricPanel",
    "ParetoGroup",
    "ProfileCurve",
    "StrengthGroup",
    "axis_name",
    "cam_panels",
    "closing_figure",
    "corruption_table",
    "curves",
    "files",
    "forest_figure",
    "layer_profile",
    "map_panels",
    "metric_figure",
    "panel_curves",
    "pareto_figure",
    "pareto_front",
    "profile_figure",
    "render",
    "saliency_figure",
    "save",
    "strength_figure",
]
