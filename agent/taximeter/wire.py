"""The words on the wire: names of facts and marks, environment variables, file names, limits.

Owns the constants that the wrapper, the client and the agent must agree on. Refuses to hold anything
but constants: the wrapper imports this module before it starts the command, so it must cost nothing.
"""

#: The one place of the version: the wrapper cannot afford to ask the package metadata, and the build reads it here.
VERSION = "0.1.0"

JOURNAL_VERSION = 1

# Facts: what the wrapper writes into an instance's journal, one JSON object a line, key "f".
FACT_OPEN = "open"
FACT_SPAWN = "spawn"
FACT_READY = "ready"
FACT_READY_TIMEOUT = "ready_timeout"
FACT_MARK = "mark"
FACT_STOPPING = "stopping"
FACT_SIGNAL = "signal"
FACT_HEARTBEAT = "heartbeat"
FACT_EXIT = "exit"

# Who found an instance ready, key "by" of that fact: its start, the worker itself, or what asked it.
BY_EXEC = "exec"
BY_NOTIFY = "notify"
BY_HTTP = "http"
BY_TCP = "tcp"
BY_LOG = "log"

# Marks: what a worker says, one JSON object a line, key "mark".
MARK_READY = "ready"
MARK_START = "start"
MARK_ACTIVE = "active"
MARK_UNITS = "units"
MARK_FINISH = "finish"
MARK_STOPPING = "stopping"

#: A mark is one write of at most this many bytes (PIPE_BUF: writers never interleave), newline included.
MARK_MAX_BYTES = 4096
#: A journal line is at most this long; the wrapper shortens argv to stay below it.
LINE_MAX_BYTES = 65_536
#: An id, account, model, class, pool, label key or unit name is at most this many characters.
NAME_MAX_CHARS = 256
#: The wrapper notes a sign of life this often.
HEARTBEAT_NS = 1_000_000_000
#: A journal that is empty, and of this mode, is of a run that ended before there was room to write that it ran.
UNWRITTEN_MODE = 0o440
#: Bytes kept free at the end of a journal for its last facts, should the disk fill up.
RESERVE_BYTES = 8192
#: A journal goes on in a new segment once it is this long, or a quarter of its part of the disk.
SEGMENT_BYTES = 16_777_216
#: An instance's part of the disk: once its segments that still lie there hold this much, its marks wait.
JOURNAL_MAX_BYTES = 1_073_741_824
#: Marks leave this much of the disk free for everything else, or such a part of a smaller one.
SPARE_BYTES = 1_073_741_824
SPARE_PART = 16

JOURNAL_SUFFIX = ".ndjson"
MARKS_SUFFIX = ".marks"
NOTIFY_SUFFIX = ".notify"

ENV_MARKS = "TAXIMETER_MARKS"
ENV_PARENT = "TAXIMETER_PARENT"
ENV_ROOT = "TAXIMETER_ROOT"
ENV_ACCOUNT = "TAXIMETER_ACCOUNT"
ENV_STATE_DIR = "TAXIMETER_STATE_DIR"
ENV_RUN_DIR = "TAXIMETER_RUN_DIR"
ENV_JOURNAL_MIB = "TAXIMETER_JOURNAL_MIB"
ENV_CONFIG = "TAXIMETER_CONFIG"
ENV_TRACEPARENT = "TRACEPARENT"
ENV_NOTIFY = "NOTIFY_SOCKET"

SYSTEM_STATE_DIR = "/var/lib/taximeter"
SYSTEM_RUN_DIR = "/run/taximeter"
SYSTEM_CONFIG = "/etc/taximeter/agent.toml"
JOURNAL_DIR = "journal"
AGENT_FILE = "agent"
DENIED_DIR = "denied"
REFUSE_FILE = "refuse-without-agent"
FULL_FILE = "refuse-when-full"
#: A name of an account or a model that takes more than this in percent-encoding is the name of its hash in file names.
DENIED_MAX_BYTES = 120

#: What says which devices a process may use; the journal carries them, since /proc may hide an environment.
ENV_VISIBLE = (
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "NVIDIA_VISIBLE_DEVICES",
    "CUDA_MPS_PIPE_DIRECTORY",
    "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE",
)

CLASSES = ("public", "private", "fast_boot", "deployment", "training")
ON_TERM = ("canceled", "aborted", "drain")
#: Whose want of memory the kernel killed a command for; nobody's, where it was killed for something else.
OOM = ("limit", "node", "none")

EXIT_REFUSED = 77
EXIT_METER = 125
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
