"""A job's rounds as scalars in an experiment tracker: trackio, TensorBoard, MLflow, Weights & Biases; local by default.

    points      what is told of a round
    record      which rounds each tracker has, so that a job that is watched again doubles nothing
    trackers    the trackers that there are, and the error where one's package is missing
    follow      new rounds of a job that is being watched, to its trackers

Each tracker is a file of its own, and its package is imported when it is used and not before.
"""
