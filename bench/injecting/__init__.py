"""What `bench/injections.py` is made of: texts that talk to a judge, judges that listen, and how often they win."""
