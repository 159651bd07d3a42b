"""Roof, research side: training runs, backtests and reports."""
