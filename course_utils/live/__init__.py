"""Panels that run a model in the reader's browser, with a kernel behind them or without."""

from course_utils.live.layers import LayersPanel

__all__ = ["LayersPanel"]
