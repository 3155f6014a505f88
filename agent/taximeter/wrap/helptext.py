"""What `taximeter run --help` prints, and a guess at what a misspelt option should have been.

Owns words only. Imported when somebody needs help, never on the way to a command.
"""

from taximeter.wrap.argv import KNOWN

TEXT = """\
usage: taximeter run [OPTIONS] -- CMD [ARG...]

Measure what CMD really uses, as one prediction or (--worker) as a server of
many. CMD keeps its terminal, its environment, its signals and its exit status.

what it is for
  --model NAME          the model that runs
  --version NAME        its version
  --account NAME        who is billed; also from $TAXIMETER_ACCOUNT
  --class CLASS         who pays for which phase: public (default), private,
                        fast_boot, deployment or training
  --pool NAME           the shared hardware it runs on
  --label KEY=VALUE     kept with its records; may be repeated
  --unit NAME=NUMBER    what it takes in or puts out, known beforehand; may be
                        repeated (not with --worker)

which prediction it is
  --prediction ID       its id; made here by default (not with --worker)
  --parent ID           the prediction that asked for it; also from
                        $TAXIMETER_PARENT
  --root ID             the first of that chain; also from $TAXIMETER_ROOT

how it runs
  --worker              a long-lived server: its predictions come as marks
  --ready WHEN          when it can take work; a {"mark":"ready"} counts, too
            exec                once it runs (default)
            notify              once it says so: sd_notify READY=1
            http://HOST:PORT/PATH   once that answers 200 (of Cog's health
                                check: with status READY, or BUSY)
            tcp:HOST:PORT       once that takes a connection
            log:REGEX           once such a line is on its stdout or stderr
  --ready-timeout S     note it if that takes longer than S seconds; stops
                        nothing, and a later one still counts
  --on-term WHAT        what a SIGTERM from outside means for a prediction:
                        canceled (default), aborted or drain
  --require-meter       do not run if it cannot be measured (exit 125); by
                        default it runs, and this says so
  --summary             print one line at the end, to stderr: time, exit, and
                        what it cost if an agent says so within a second

Marks: one JSON object a line into $TAXIMETER_MARKS, for instance
  echo '{"mark":"ready"}' 1<>"$TAXIMETER_MARKS"

exit status: that of CMD, which also passes on the signal it died of; 127 CMD
not found, 126 CMD cannot be executed, 125 the meter failed before CMD started,
77 this node refuses to run it, 2 these options make no sense.
"""


def guess(word: str) -> str | None:
    """The option that was probably meant, or None."""
    import difflib  # nobody who spells well pays for it

    near = difflib.get_close_matches(word, KNOWN, n=1)
    return near[0] if near else None
