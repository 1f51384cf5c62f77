"""What a comparison shows: tables, curves, pictures and pages of what `fewtokens.measure` measured."""
