"""Tune a model folder of yours on chat rows, follow the rounds, fetch the adapter and say what it cost.

python examples/tune.py MODEL_FOLDER ROWS.jsonl OUT
"""

from __future__ import annotations

import sys

import shardwork


def main() -> None:
    model, rows, out = sys.argv[1:4]
    job = {
        "name": "tutor",
        "recipe": "sft",
        "base_model": model,
        "data": rows,
        "eval_fraction": 0.2,
        "params": {"method": "lora", "rank": 4, "max_length": 64, "batch_size": 4},
        "plan": {"rounds": 2, "shards_per_round": 2, "inner_steps": 3},
        "trust": {"class": "public"},
        "budget": {"max_sats": 500},
    }
    with shardwork.Client() as client:
        report = client.check_data(rows, base_model=model, max_length=64)
        print(f"{report.rows} rows of {report.format}, {report.tokens} tokens, verdict {report.verdict}")
        try:
            running = client.submit(job)
            for change in running.watch():
                for event in change.events:
                    print(event.kind, event.sentence)
            status = running.wait()
        except shardwork.ShardworkError as error:
            sys.exit(f"{error.why.sentence} {error.why.next_step}")
        losses = [each.eval_loss for stage in status.stages for each in stage.rounds if each.eval_loss is not None]
        print("held-out loss by round:", ", ".join(f"{loss:.3f}" for loss in losses))
        for download in running.download(out):
            print(f"{download.output.name} lies in {download.folder}")
        for worker in running.report().workers:
            print(f"{worker.name or worker.worker_id}: {worker.accepted} shards, {worker.paid_msat} msat")


if __name__ == "__main__":
    main()
