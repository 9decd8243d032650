"""What stands for AWS: moto's server, corrected where a run meets the difference."""
