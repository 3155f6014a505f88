"""The few errors that Taximeter raises; a class exists only where some caller acts differently on it."""


class TaximeterError(Exception):
    """Anything that Taximeter can say about its own trouble: `cannot <do> <value>: expected <what>`."""


class ConfigError(TaximeterError):
    """A configuration that cannot be used; `faults` names every one, not just the first."""

    def __init__(self, faults: "tuple[str, ...]") -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class JournalFault(TaximeterError):
    """A journal, or a line of one, that cannot be believed; `reason` is a bounded word for the metric."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class LedgerError(TaximeterError):
    """A ledger that cannot be opened, read or written."""


class SinkError(TaximeterError):
    """A sink that did not take a batch; `reason` is a bounded word, `retry_after_s` what the sink asked for."""

    def __init__(self, reason: str, message: str, retry_after_s: "float | None" = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_s = retry_after_s


class HardwareError(TaximeterError):
    """Devices that cannot be read; the agent goes on with what it knows."""
