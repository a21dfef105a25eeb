"""What people see of it: figures as text, and progress as bars, lines or HTML."""
