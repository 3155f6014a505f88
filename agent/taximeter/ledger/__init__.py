"""The node's records: written once, numbered without a gap, chained by hash."""
