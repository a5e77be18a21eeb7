"""What the program can tell of itself: its files field by field, for people and for editors; its topics."""
