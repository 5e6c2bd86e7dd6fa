"""What several test modules use: none of them imports another."""
