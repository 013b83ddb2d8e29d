"""The only folder that knows an API server's HTTP; everything above it sends requests and reads bytes."""
