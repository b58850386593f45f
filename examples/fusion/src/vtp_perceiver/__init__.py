"""A perceiver as a fusion encoder of vtp."""
