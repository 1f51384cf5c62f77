"""Published checkpoints: their key names, and those of the models here."""
