"""Base models without torch: what a folder holds (`folder`), which architectures may run, and the named sizes."""
