"""Writes captioned clips to disk in MSR-VTT's layout, which `fewtokens.video.datasets.MSRVTT` reads."""
