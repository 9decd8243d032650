"""A queue in a folder that many computers share: a log, one head that writes it, and letters to that head."""
