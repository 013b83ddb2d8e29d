"""Where bytes go: the spool that every capture passes, object keys, S3 and the collector, delivery with retry."""
