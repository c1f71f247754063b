"""What a user may write in each step; free of Ibis, so that reading YAML stays light."""

from etl_assets.transforms.parameters import cleaning, conversions, numbers, rows, shaping, tables
from etl_assets.transforms.parameters.base import STEPS, Parameters

__all__ = ["STEPS", "Parameters", "cleaning", "conversions", "numbers", "rows", "shaping", "tables"]
