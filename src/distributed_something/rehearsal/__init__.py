"""Implements the engine `rehearsal`: the aws engine's own code against an emulator on this machine."""
