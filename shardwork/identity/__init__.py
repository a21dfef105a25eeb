"""Who is who: Ed25519 keys and where they are kept, signed envelopes, the pinned authority, the roles of parties."""
