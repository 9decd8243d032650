"""This computer: container engine, state folders of apps, loopback, disk and memory, garbage collector."""
