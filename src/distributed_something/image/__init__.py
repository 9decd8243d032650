"""Images: the worker in one of its own, or in the user's."""
