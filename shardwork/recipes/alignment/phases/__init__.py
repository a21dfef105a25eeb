"""Phases of alignment that the operator's executor runs, without torch: rows become what workers read, and back.

pairs       judged answers, for reward and dpo        prompts   questions, for generate, ppo and grpo
sides       which of them are held out                rows      what generate drew, as rows of words
grading     verifiable rewards                        judging   pairs as a judge model reads them
verdicts    what it said, as votes and preferences    fence     strangers' text inside somebody's prompt
"""
