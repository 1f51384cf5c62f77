"""Search of your own videos by a text."""
