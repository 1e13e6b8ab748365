"""The executor: requests to the workers, their answers back."""
