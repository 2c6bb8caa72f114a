"""Device threads and the scope that owns them; knows nothing of graphs."""
