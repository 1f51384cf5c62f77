import pytest
from stub_index import embedding, summary, update

from fewtokens.search.indexing import find_videos


def names_in(folder):
    return [file.name for file in find_videos(folder)]


def test_links_to_folders_are_followed(index, folder, tmp_path):
    outside = tmp_path / 'outside'
    (outside / 'within').mkdir(parents=True)
    for name, content in {'f.mp4': 'f', 'within/g.mp4': 'g', 'within/.hidden.mp4': 'h'}.items():
        (outside / name).write_text(content)
    (folder / 'linked').symlink_to(outside)
    (folder / 'h.mp4').symlink_to(outside / 'f.mp4')
    own = ['a.mp4', 'b.MKV', 'd.webm', 'e.avi', 'h.mp4']
    linked = ['linked/f.mp4', 'linked/within/g.mp4']
    assert names_in(folder) == [*own, *linked, 'more/c.mp4']
    update(index, folder)
    assert index.find(embedding(ord('g')), 1)[0].path == folder / 'linked/within/g.mp4'
    assert summary(update(index, folder)) == (0, 0, 0, 8)
    (tmp_path / 'link').symlink_to(folder)
    assert names_in(tmp_path / 'link') == names_in(folder)
    (folder / '.linked').symlink_to(outside)
    (folder / 'linked').unlink()
    assert names_in(folder) == [*own, 'more/c.mp4']


def test_links_that_lead_back_end(folder, tmp_path):
    """Twenty that lead to each other: as many ways as there are orders of them."""
    own = names_in(folder)
    for number in range(20):
        (folder / f'{number}').mkdir()
        (folder / f'{number}/up').symlink_to(folder)
        for other in range(20):
            (folder / f'{number}/{other}').symlink_to(folder / f'{other}')
    (folder / 'itself').symlink_to('itself')
    (folder / 'a link').symlink_to('more')
    assert names_in(folder) == own, 'each under its own name'
    (tmp_path / 'outside').mkdir()
    (tmp_path / 'outside/back').symlink_to(tmp_path)
    (tmp_path / 'outside/f.mp4').write_text('f')
    (folder / 'out').symlink_to(tmp_path / 'outside')
    (folder / 'out again').symlink_to(tmp_path / 'outside')
    assert names_in(folder) == sorted([*own, 'out/f.mp4'])


def test_a_link_that_leads_nowhere_is_no_reason_to_forget_a_video(index, folder, tmp_path):
    (tmp_path / 'f.mp4').write_text('f')
    (folder / 'f.mp4').symlink_to(tmp_path / 'f.mp4')
    (folder / 'notes').symlink_to(tmp_path / 'gone')
    assert summary(update(index, folder)) == (6, 0, 0, 6)
    (tmp_path / 'f.mp4').unlink()
    with pytest.raises(ValueError, match='f.mp4.*; --skip-unreadable leaves such videos out'):
        update(index, folder)
    result = update(index, folder, skip_unreadable=True)
    assert summary(result) == (0, 0, 1, 5) and list(result.unreadable) == ['f.mp4']
