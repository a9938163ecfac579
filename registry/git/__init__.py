"""Git formats and protocol: packs, refs, upload-pack, receive-pack."""
