"""Whether a downloaded model or adapter loads, answers and can be served; `check.serve_check` is the way in."""
