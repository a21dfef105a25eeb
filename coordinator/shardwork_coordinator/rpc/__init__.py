"""The gRPC services, a file each: thin servicers over functions of (request, store); `auth` stands before them."""
