"""What `bench/alignment.py` measures with: a task whose success is computable, and whole stages in one process."""
