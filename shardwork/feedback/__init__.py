"""The mathematics of feedback: what votes of people and judges say, how sure it is, and whose votes count.

    votes        one judgement of two answers, and its row in a file
    quality      how a person stands in a stage, and what they are asked next
    ratings      Bradley-Terry strengths and win rates of models, with intervals
    annotators   who is right how often, and what each item's answer is (Dawid and Skene)
    agreement    Krippendorff's alpha
    bias         of position and of length
    consensus    votes -> a verdict on each pair -> preferences
    blending     people's and a judge's verdicts made one, and compared
    intervals    of shares
    pooling      votes of several stages, made to be about the same answers
    report       every figure of some votes, as one object
    samples      a row of answers or preferences as what is shown of it
    paging       the rows of a file that a page shows, and where the next one begins

Pure Python: the base install has no numpy. Figures are functions of the votes alone, whatever order they come in;
chance comes from a seed. Used by the coordinator, the executor, the client and tests.
"""
