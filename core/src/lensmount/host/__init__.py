"""The plugin host: discovery, names, plans, opening, exporting and the diagnosis of a machine.

Imported by `registry` and `cli`, and by `lensmount-testing` and `lensmount-bench`; by nothing else.
"""
