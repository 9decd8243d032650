"""The steps as Python objects, for programs and notebooks. `distributed_something` exports them."""
