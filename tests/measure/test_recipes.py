import pytest

from fewtokens import BipartiteMerge, GradualUpdate, Hourglass, SharedUpdate
from fewtokens.measure.costs import Sites
from fewtokens.measure.recipes import METHODS, Method, Recipe, first_recipes, next_place, shrink

ViT = Sites(((8, 12),) * 10, (10,) * 10, False, 1, 100.0, ((1.0, 0.0),) * 10)
WINDOWS = Sites(((7, 7),) * 10, (2, 2, 4, 4, 8, 8, 8, 8, 10, 10), True, 0, 100.0, ((1.0, 0.0),) * 10)
SHARED = Method(SharedUpdate, places=3, options=dict(size_bias=(True, False), window=(5, 3)))


@pytest.mark.parametrize('grid', [(7, 7), (8, 12), (2, 9), (18, 24)])
def test_grids_shrink_in_about_the_same_proportions(grid):
    smaller = shrink(grid)
    counts = [rows * columns for rows, columns in smaller]
    assert counts == sorted(set(counts), reverse=True) and counts[-1] == 1 and tuple(grid) not in smaller
    assert all(1 <= rows <= grid[0] and 1 <= columns <= grid[1] for rows, columns in smaller)
    ratio = grid[1] / grid[0]
    assert all(abs(columns - rows * ratio) <= 1.5 or abs(rows - columns / ratio) <= 1 for rows, columns in smaller)


def test_few_tokens_lie_between_two_grids():
    counts = [432, *(rows * columns for rows, columns in shrink((18, 24)))]
    assert max(many / few for many, few in zip(counts, counts[1:]) if few > 200) < 1.08


def test_a_ladder_leads_from_fine_to_coarse():
    ladder = Recipe(SHARED, (3,), (), (('window', 3),)).ladder(ViT)
    assert ladder[0] == SharedUpdate(3, (8, 11), window=3) and ladder[-1] == SharedUpdate(3, (1, 1), window=3)
    merging = next(method for method in METHODS if method.reducer is BipartiteMerge)
    counts = Recipe(merging, (2, 4)).ladder(ViT)
    assert counts[0] == BipartiteMerge((2, 3, 4), 1) and counts[-1] == BipartiteMerge((2, 3, 4), 24)
    growing = next(method for method in METHODS if method.reducer is GradualUpdate)
    shares = Recipe(growing, (1, 8)).ladder(ViT)
    assert shares[0] == GradualUpdate((1, 3, 5, 7), 0.95) and shares[-1] == GradualUpdate((1, 3, 5, 7), 0.03)


def test_every_stage_of_a_ladder_acts():
    """A later stage is coarser, or begins anew where tokens are whole again."""
    for reducer in Recipe(SHARED, (1, 4, 6), (0.75, 0.85)).ladder(ViT):
        first, second, third = (rows * columns for rows, columns in reducer.grid)
        assert 96 > first > second > third
    for reducer in Recipe(SHARED, (1, 2, 3), (0.75, 0.75)).ladder(WINDOWS):
        first, second, third = reducer.grid
        assert first == second and third[0] * third[1] < second[0] * second[1]


def test_the_next_place_is_in_the_region_or_begins_the_next():
    assert [next_place(ViT, place) for place in (1, 5, 8, 9)] == [4, 6, None, None]
    assert [next_place(WINDOWS, place) for place in (0, 1, 4, 6, 8, 9)] == [2, 2, 5, 8, None, None]


def test_the_search_begins_with_every_method_that_fits():
    on_grids = {SharedUpdate, Hourglass}
    for sites, methods in ((ViT, {*on_grids, GradualUpdate, BipartiteMerge}), (WINDOWS, on_grids)):
        recipes = first_recipes(sites)
        assert {recipe.method.reducer for recipe in recipes} == methods and len(set(recipes)) == len(recipes)
        assert {recipe.places[0] for recipe in recipes if recipe.method.reducer.keeps_grid} == set(range(1, 8))
        grown = [recipe.places[0] for recipe in recipes if recipe.method.reducer is GradualUpdate]
        assert grown == ([0, 2, 4] if methods > on_grids else [])
        assert any(len(recipe.places) == 3 for recipe in recipes)
        assert all(recipe.ladder(sites) for recipe in recipes)


def test_neighbours_differ_in_one_thing():
    recipe = Recipe(SHARED, (1, 4), (0.75,))
    near = list(recipe.neighbours(ViT))
    places = {other.places for other in near if other.options == () and len(other.places) == 2}
    assert places == {(2, 4), (1, 3), (1, 5), (1, 4)}  # the last with another step
    assert {other.places for other in near if len(other.places) == 1} == {(1,), (4,)}
    assert {other.places for other in near if len(other.places) == 3} == {(1, 4, 6)}
    assert {other.steps for other in near if other.places == (1, 4)} == {(0.75,), (0.85,), (0.6,)}
    assert {other.options for other in near if other.options} == {(('size_bias', False),), (('window', 3),)}
    back = Recipe(SHARED, (1, 4), (0.75,), (('window', 3),)).neighbours(ViT)
    assert recipe in list(back)
