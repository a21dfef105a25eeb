"""What a coordinator tells of itself: figures, lines of its log, and traces. Nothing here changes anything.

    instruments   what this process counts and times as it works
    reasons       the short list of reasons that a label may name
    verdicts      results judged since the start, read from the events
    waiting       how long the oldest of each kind waits
    calls         counts, times and names each RPC
    lag           how late the event loop is
    logs          lines without job data, secrets, names of files or addresses of parties
    traces        OpenTelemetry spans, where somebody asks for them

`web.metrics` puts the figures together; `app` wires the rest.
"""
