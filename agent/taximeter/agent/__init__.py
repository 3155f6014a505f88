"""The daemon: it wires rooms together, and holds no rule about time or money.

`run` is its one door. `service` has the task group, `opening` what it works with, `reading` brings journals into
`books`, which have batches for the ledger, `inforce` puts rules and prices in force, `views` draws the snapshot,
`notify` speaks with systemd.
"""

from taximeter.agent.service import run

__all__ = ["run"]
