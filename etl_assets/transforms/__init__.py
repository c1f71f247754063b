"""Steps: pure Ibis functions from table to table, named in YAML. Importing this does not import Ibis."""

from etl_assets.transforms.apply import apply_steps, step_function
from etl_assets.transforms.step import Draft, Flag, Layer, Step, parse_steps

__all__ = ["Draft", "Flag", "Layer", "Step", "apply_steps", "parse_steps", "step_function"]
