"""The plugin host: discovery, names, plans, opening, exports. For `registry`, `cli`, lensmount-testing and -bench."""
