"""What this computer has: processors, GPUs and drivers, memory, installed distributions.

Imported by the rooms of the core, by `lensmount-testing` and by `lensmount-bench`; it imports `errors` of the core
alone.
"""
