"""The worker's torch side: building models, the inner loop, and the four phases of a learning job.

`trainer` implements `shardwork.recipes.base.Trainer`; only the training child imports it. `context` needs no torch.
"""
