"""Where passages are kept and found: Milvus, embedded or as a server."""
