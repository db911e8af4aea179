"""What this computer has: processors, GPUs and drivers, memory, installed distributions.

Rooms of the core, lensmount-testing and lensmount-bench import it; it imports `errors` alone.
"""
