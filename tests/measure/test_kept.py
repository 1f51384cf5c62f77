from fewtokens.measure.kept import Kept


def test_figures_are_found_again_by_what_they_are_of(tmp_path):
    path = tmp_path / 'new/figures.jsonl'
    first = Kept(path, 'model', 1)
    assert first.get('cosine', 'a') is None
    first.put(0.5, 'cosine', 'a')
    first.put([[1.0, 2.0]], 'seconds', 'a')
    first.put([[1.0, 2.0], [3.0, 4.0]], 'seconds', 'a')
    assert first.get('cosine', 'a') == 0.5 and first.found == 0
    again = Kept(path, 'model', 1)
    assert again.get('cosine', 'a') == 0.5 and again.get('seconds', 'a') == [[1.0, 2.0], [3.0, 4.0]]
    assert again.get('cosine', 'a') == 0.5 and again.found == 2
    assert again.get('cosine', 'b') is None and Kept(path, 'model', 2).get('cosine', 'a') is None


def test_a_line_that_was_cut_off_costs_its_figure_alone(tmp_path):
    path = tmp_path / 'figures.jsonl'
    kept = Kept(path)
    kept.put(1, 'a')
    kept.put(2, 'b')
    path.write_bytes(path.read_bytes()[:-3])
    again = Kept(path)
    assert (again.get('a'), again.get('b')) == (1, None)
    again.put(3, 'b')
    last = Kept(path)
    assert (last.get('a'), last.get('b')) == (1, 3)


def test_without_a_file_they_are_kept_in_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = Kept(None)
    kept.put(1, 'a')
    assert kept.get('a') == 1 and list(tmp_path.iterdir()) == []
