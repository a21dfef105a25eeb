"""Job files: what a requester may ask for (`spec`), and reading it from YAML with places for every mistake (`file`)."""
