"""Phases of alignment that the operator's executor runs, without torch: rows become what workers read, and back.

    pairs       judged answers, for reward and dpo        prompts    questions, for generate, ppo and grpo
    sides       which of them are held out                rows       what generate drew, as rows of words
    grading     verifiable rewards                        judging    pairs for a judge model
    asking      what it is asked about each, as tokens    question   and as words
    fence       strangers' text inside a prompt           items      what votes are about, beside them
    verdicts    what it said, as votes and preferences    length_control   less what length explains
    preference  a row of them                             golds      items for people whose answer is known
    drawing     which answers are compared                agreeing   votes of several stages made preferences
    judgements  people's votes as rows, and what they say together

Recipes import these where they compute, and nowhere else: a client plans without numpy.
"""
