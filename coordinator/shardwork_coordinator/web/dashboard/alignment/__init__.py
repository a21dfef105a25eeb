"""What only jobs of alignment have on their pages: people who judge, loops, and answers to read.

    panel    a stage that asks people: how far, who, how well, for how much
    reports  what votes say of people, judge and blend; `sides` draws it
    samples  answers and preferences side by side, a page of their own

`job` shows all but the last; alarms, safety sets and loops are read from the status that its owner gets too. Every
number comes from what `--json` tells as well.
"""
