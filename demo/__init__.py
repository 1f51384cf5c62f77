"""The demo: procedural scenes and clips to train and judge small models on. Not part of the installed package."""
