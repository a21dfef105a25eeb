"""Feedback from the requester's side: votes of jobs and files, other programs' files, and an outside judge.

    sources      votes with what they are about, of a file, a folder or a job
    exchanging   to and from Argilla, Label Studio and preference rows
    endpoint     one question to an OpenAI-compatible server
    journal      which calls were paid for, on disk before they are made
    judging      all questions, within a cap

Called by `shardwork feedback` and by programs.
"""
