"""Files that hold rows otherwise than one a line: a JSON list, a table with a header, Parquet.

    jsonarray   [{…}, {…}]     delimited   CSV, TSV     parquet   columns, through pyarrow

Each yields the same lines as `source` does. Only a client reads these; what it uploads is JSONL (`staged`).
"""
