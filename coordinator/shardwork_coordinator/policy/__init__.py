"""Policy: the rules of the house, which an operator may change while everything runs.

A rule is a setting that people with their hands on the dashboard or the command line may overrule; the newest change of
a name counts, on every coordinator of the database.

    rules     which settings are rules, their bounds in words, values read from text
    changes   a change as a row, with its entry in the audit log; what is in force by the rows
    house     what is in force in this process, looked up again and again
    commands  the same from the coordinator's own machine
"""
