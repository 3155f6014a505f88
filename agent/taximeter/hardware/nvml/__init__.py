"""What NVML says of the GPUs. The only door to it.

    agent ── door.py ──► python -I -m taximeter.hardware.nvml.child ──► pynvml ──► libnvidia-ml ──► driver
               ▲   a line a round, JSON    │
               └───── protocol.py ◄────────┘

A call into a sick driver may never return, and not even SIGKILL ends it: so every call is made in a child process that
can be left behind. In the agent: `door` (deadlines, replacing), `reader` (the child's pipes and pid), `protocol` (lines
to values). In the child: `child` (the loop; the only pynvml), `session` (when to look anew), `identity`, `sampling`,
`asking` (each call fails on its own), `answers` (what to do about which error: a table), `values` (what NVML gives by
mistake is unknown). Empty, so that the child loads none of the agent's.
"""
