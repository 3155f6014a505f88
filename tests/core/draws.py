"""What random histories are made of: gaps in time, marks, options, ends, prices."""

from hypothesis import strategies as st

from taximeter.events import (
    ActiveMark,
    Exited,
    FinishMark,
    Oom,
    Options,
    ReadyMark,
    ServiceClass,
    StartMark,
    Status,
    StoppingMark,
    StopReason,
    UnitsMark,
)
from tests.core.stories import CLASSES_SHIPPED, MS, SECOND


def around(least_tenths: int, most_tenths: int) -> st.SearchStrategy[int]:
    """Nanoseconds in so many tenths of a second and some: drawn at once, most numbers would be tiny."""
    return st.builds(lambda tenths, ns: tenths * 100 * MS + ns, st.integers(least_tenths, most_tenths), ODD_NS)


#: The command's own pid, two children's, and none.
PIDS = st.sampled_from([None, 4711, 11, 12, 12])
ODD_NS = st.one_of(st.just(0), st.integers(0, 100 * MS))

GAPS = st.one_of(st.integers(0, 3), around(0, 15), around(0, 200))
INTERIMS = st.one_of(around(4, 50), st.just(60 * SECOND))
NAMES = st.sampled_from(["a", "b", "c"])
CLASSES = st.sampled_from([None, *ServiceClass])
#: How long it takes to read the clocks.
READ = st.sampled_from([0, 400, MS])
WHICH = st.integers(0, 2)
UNITS = st.dictionaries(st.sampled_from(["image", "token"]), st.sampled_from(["1", "7"]), max_size=2)
ENDED = st.sampled_from([Status.SUCCEEDED, Status.FAILED, Status.CANCELED])
SAID_BEFORE = st.one_of(st.none(), st.integers(0, 60 * MS), around(-10, 300))
REASONS = st.sampled_from(StopReason)
#: Rows of the class matrix that are dear in every phase, with multipliers that leave something to round.
DEAR = {"boot": "0.3", "load": "0.07", "idle": "0.11", "active": "1.3", "teardown": "0.9"}
MATRICES = st.sampled_from(
    [CLASSES_SHIPPED]
    + [{name: {**row, **DEAR, "quantity": by} for name, row in CLASSES_SHIPPED.items()} for by in ("share", "active")]
)
MARKS = st.one_of(
    st.builds(
        StartMark,
        NAMES,
        service_class=CLASSES,
        account=st.sampled_from([None, "cus_1", "cus_2"]),
        pid=PIDS,
        detached=st.sampled_from([False, False, True]),
    ),
    st.builds(FinishMark, NAMES, ENDED, UNITS),
    st.builds(ActiveMark, NAMES),
    st.builds(UnitsMark, st.one_of(st.none(), NAMES), UNITS),
    st.builds(ReadyMark),
    st.builds(StoppingMark, REASONS),
)
STARTS = st.builds(StartMark, NAMES, service_class=st.sampled_from([None, ServiceClass.FAST_BOOT]), pid=PIDS)


OPTIONS = st.builds(
    lambda prediction, **told: Options(worker=prediction is None, prediction=prediction, **told),
    st.sampled_from([None, None, None, "a"]),
    account=st.sampled_from([None, None, "cus_1"]),
    service_class=st.one_of(st.none(), CLASSES),
    on_term=REASONS,
)
ENDS = st.builds(
    lambda how, **seen: Exited(0, *how, core_dumped=False, clock=None, **seen),
    st.sampled_from([(0, None), (0, None), (3, None), (None, 2), (None, 9), (None, None)]),
    kernel_ns=st.sampled_from([None, 1]),
    oom=st.sampled_from([None, None, Oom.LIMIT, Oom.NODE]),
)
MOSTLY, SELDOM = st.sampled_from([True] * 5 + [False]), st.sampled_from([False] * 5 + [True])
