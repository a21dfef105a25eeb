"""What `bench/recovery.py` measures and how: text, cells, jobs run through the product's phases, figures, pictures."""
