"""What a memory gives back, in numbers."""
