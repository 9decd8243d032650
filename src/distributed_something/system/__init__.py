"""This computer: its container engine, the state folders of apps, loopback, the garbage collector."""
