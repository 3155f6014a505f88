"""From the ledger to whoever bills: the shipper, and the sinks it drains into."""
