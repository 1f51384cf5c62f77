from fewtokens.report.table import format_gmacs


def test_gmacs_of_small_and_large_models():
    assert [format_gmacs(macs) for macs in (660_123_000_000, 1_000_000_000, 4_201_000, 0)] == [
        '660.12',
        '1.00',
        '0.0042',
        '0',
    ]
