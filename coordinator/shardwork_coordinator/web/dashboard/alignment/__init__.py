"""What only jobs of alignment have on their pages: people who judge, loops, and answers to read.

    panel       a stage that asks people: how far, who, how well, for how much
    iterations  a loop, time by time
    samples     answers and preferences side by side, a page of their own

`job` shows the first two; every number comes from what `--json` tells as well.
"""
