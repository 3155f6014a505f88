"""Configuration: TOML to a frozen, validated Config, or every fault of it at once.

`load` and `directories` are the doors; `model` has the values, `agent_file` and `tiers_file` the keys.
"""

from taximeter.config.files import Directories, directories
from taximeter.config.load import fingerprint, load
from taximeter.config.model import Config, SinkConfig
from taximeter.config.tiers_file import parse_catalogue

__all__ = ["Config", "Directories", "SinkConfig", "directories", "fingerprint", "load", "parse_catalogue"]
