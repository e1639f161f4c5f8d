"""Parquet files beside a shard's database: all events of old, and now and then all rows as they stood."""
