"""A cache for lensmount on a Redis server."""
