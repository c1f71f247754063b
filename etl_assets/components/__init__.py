"""What a user writes in YAML."""

from etl_assets.components.connections import Connections as Connections
from etl_assets.components.pipeline import Pipeline as Pipeline
