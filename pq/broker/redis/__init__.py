"""The broker of Redis and Valkey, standalone, behind Sentinels or as a cluster. The only package that imports redis-py."""
