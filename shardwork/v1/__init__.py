"""Generated protobuf and gRPC stubs; `make proto` writes them from `proto/`, nobody edits them."""
