"""Every op again, short and literal: the oracle of the tests and the baseline of the benchmarks.

These take memory and time in proportion to tokens times centers. Use the ops of `fewtokens.ops` instead.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .grid import Grid


def home_cells(size: int, cells: int) -> Tensor:
    """The cell of each of `size` positions under nearest-neighbour upsampling of `cells` cells, [size]."""
    return torch.arange(size) * cells // size


def allowed_centers(grid: Grid, clusters: Grid, window: int) -> Tensor:
    """Which centers a token may join: those within window // 2 rows and columns of its home, [H*W, gh*gw] bool."""
    near = []
    for size, cells in zip(grid, clusters):
        near.append((home_cells(size, cells)[:, None] - torch.arange(cells)).abs() <= window // 2)
    return (near[0][:, None, :, None] & near[1][None, :, None, :]).reshape(grid[0] * grid[1], -1)


def pool_tokens(x: Tensor, grid: Grid, clusters: Grid) -> Tensor:
    """Adaptive average pooling of the token grid: [B, H*W, C] -> [B, gh*gw, C]."""
    image = x.transpose(1, 2).unflatten(2, grid)
    return F.adaptive_avg_pool2d(image, clusters).flatten(2).transpose(1, 2)


def squared_distances(x: Tensor, centers: Tensor) -> Tensor:
    """[B, N, M]: the squared Euclidean distance from each token to each center."""
    return (x[:, :, None] - centers[:, None]).square().sum(-1)


def cluster_tokens(
    x: Tensor, grid: Grid, clusters: Grid, iters: int = 5, window: int = 5, temperature: float | Tensor = 50.0
) -> tuple[Tensor, Tensor]:
    allowed = allowed_centers(grid, clusters, window).to(x.device)
    centers = pool_tokens(x, grid, clusters)
    for _ in range(iters):
        logits = -squared_distances(x, centers).detach() / temperature
        weights = logits.masked_fill(~allowed, -torch.inf).softmax(dim=2)
        totals = weights.sum(dim=1)[:, :, None]
        centers = torch.where(totals > 0, (weights.transpose(1, 2) @ x) / totals.clamp_min(1e-30), centers.detach())
    labels = squared_distances(x, centers).masked_fill(~allowed, torch.inf).argmin(dim=2)
    return centers, labels


def reconstruct_tokens(
    z: Tensor, before: Tensor, centers: Tensor, k: int = 20, temperature: float = 50.0, normalize: str = 'sum'
) -> Tensor:
    distances, nearest = squared_distances(before, centers).detach().topk(min(k, centers.shape[1]), largest=False)
    if normalize == 'sum':
        weights = (-distances / temperature).softmax(dim=2)
    else:
        weights = F.normalize((-distances / temperature).exp(), dim=2)
    scattered = torch.zeros(before.shape[0], before.shape[1], centers.shape[1], dtype=z.dtype, device=z.device)
    return scattered.scatter(2, nearest, weights.to(z.dtype)) @ z


def merge_tokens(
    x: Tensor, grid: Grid, clusters: Grid, iters: int = 5, window: int = 3, sizes: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    allowed = allowed_centers(grid, clusters, window).to(x.device)
    sizes = x.new_ones(x.shape[:2]) if sizes is None else sizes
    nearest = squared_distances(x, pool_tokens(x, grid, clusters)).masked_fill(~allowed, torch.inf).amin(dim=2)
    temperature = nearest.median(dim=1).values[:, None, None].clamp_min(1e-30) / 2
    centers, labels = cluster_tokens(x, grid, clusters, iters, window, temperature)
    member = F.one_hot(labels, centers.shape[1]).to(x.dtype) * sizes[:, :, None]
    merged = member.sum(dim=1)
    means = (member.transpose(1, 2) @ x) / merged[:, :, None].clamp_min(1e-30)
    return torch.where(merged[:, :, None] > 0, means, centers.detach()), labels, merged


def lengthen_means(
    x: Tensor, labels: Tensor, means: Tensor, merged: Tensor, sizes: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    sizes = x.new_ones(x.shape[:2]) if sizes is None else sizes
    factors, spreads = torch.ones_like(merged)[..., None], torch.zeros_like(merged)
    for b, m in (merged > 0).nonzero().tolist():
        members, weights = x[b, labels[b] == m], sizes[b, labels[b] == m] / merged[b, m]
        if means[b, m].any():
            factors[b, m] = ((members.norm(dim=1) * weights).sum() / means[b, m].norm()).sqrt()
        spreads[b, m] = ((members - means[b, m]).square().mean(1) * weights).sum()
    return factors, spreads


def k_medoids(
    x: Tensor,
    k: int,
    metric: str = 'euclidean',
    p: float = 2.0,
    normalize: bool = False,
    max_iters: int = 100,
    tol: float = 1e-6,
    exact: bool = False,
) -> tuple[Tensor, Tensor]:
    chosen = []
    for sample in x:
        norms = sample.norm(dim=1)
        points = sample / (norms[:, None] + 1e-6) if normalize or metric == 'cosine' else sample
        chosen.append(_choose_medoids(_distances(points, metric, p, exact), norms, k, max_iters, tol))
    medoids, labels = zip(*chosen)
    return torch.stack(medoids), torch.stack(labels)


def _distances(x: Tensor, metric: str, p: float, exact: bool) -> Tensor:
    if metric == 'euclidean' and p == 2 and not exact:
        return torch.cdist(x, x)
    x = x.double()
    apart = torch.cdist(x, x, p, 'donot_use_mm_for_euclid_dist')
    return (apart if metric == 'euclidean' else torch.where(apart == 0, 0, 1 - x @ x.T)).float()


def _choose_medoids(distances: Tensor, norms: Tensor, k: int, max_iters: int = 100, tol: float = 1e-6):
    chosen = [int(norms.argmax())]
    while len(chosen) < k:
        far = distances[:, chosen].amin(dim=1)
        far[chosen] = -1
        chosen.append(int(far.argmax()))
    medoids = torch.tensor(chosen)
    for _ in range(max_iters):
        labels = distances[:, medoids].argmin(dim=1)
        labels[medoids] = torch.arange(k)
        moved = medoids.clone()
        for cluster in range(k):
            members = (labels == cluster).nonzero()[:, 0]
            moved[cluster] = members[distances[members][:, members].double().sum(dim=1).argmin()]
        if ((moved == medoids) | (distances[moved, medoids] <= tol)).all():
            break
        medoids = moved
    medoids = medoids.sort().values
    labels = distances[:, medoids].argmin(dim=1)
    labels[medoids] = torch.arange(k)
    return medoids, labels


def spectral_medoids(
    x: Tensor,
    k: int,
    graph: str = 'heat',
    sigma: float = 2.0,
    knn: int | None = None,
    normalize: bool = False,
    positions: Tensor | None = None,
    window: float | tuple[float, ...] | None = None,
) -> tuple[Tensor, Tensor]:
    chosen = []
    for sample in x:
        points = (sample / (sample.norm(dim=1, keepdim=True) + 1e-6) if normalize else sample).double()
        weights = _graph(points, graph, sigma, knn, positions, window)
        degrees = weights.sum(dim=1)
        roots = torch.where(degrees > 0, degrees, 1).sqrt()
        laplacian = torch.diag((degrees > 0).double()) - weights / roots[:, None] / roots[None, :]
        rows = F.normalize(torch.linalg.eigh(laplacian).eigenvectors[:, :k], dim=1)
        distances = (squared_distances(rows[None], rows[None])[0] * 2**20).round() / 2**20
        chosen.append(_choose_medoids(distances.sqrt().float(), sample.norm(dim=1), k))
    medoids, labels = zip(*chosen)
    return torch.stack(medoids), torch.stack(labels)


def _graph(points: Tensor, graph: str, sigma: float, knn: int | None, positions: Tensor | None, window) -> Tensor:
    looped = graph in ('looped_heat', 'heat_knn')
    squared = squared_distances(points[None], points[None])[0].fill_diagonal_(0 if looped else torch.inf)
    linked = torch.zeros_like(squared)
    if graph == 'heat_knn':  # chosen before the window
        for i, row in enumerate(squared):
            linked[i] = row <= row.sort().values[min(knn or 10, len(row)) - 1]
        squared = squared.masked_fill(linked + linked.T == 0, torch.inf)
    if window is not None:
        assert positions is not None
        apart = (positions[:, None] - positions[None]).abs() > torch.as_tensor(window)
        squared = squared.masked_fill(apart.any(dim=2), torch.inf)
    if graph != 'knn':
        return (-squared / (2 * sigma**2)).exp()
    for i, row in enumerate(squared):
        for j in row.argsort(stable=True)[: knn or 10]:
            linked[i, j] = row[j] < torch.inf
    return (linked + linked.T) / 2


def k_medoids_at_once(x: Tensor, k: int, max_iters: int = 100, tol: float = 1e-6) -> tuple[Tensor, Tensor]:
    """The published batched form, with a tensor [B, K, N, N]: what the benchmark of `k_medoids` compares with."""
    distances = torch.stack([torch.cdist(sample, sample) for sample in x])
    rows = torch.arange(len(x))[:, None]
    medoids = x.norm(dim=2).argmax(dim=1, keepdim=True)
    while medoids.shape[1] < k:
        far = distances[rows, medoids].amin(dim=1).scatter(1, medoids, -1)
        medoids = torch.cat((medoids, far.argmax(dim=1, keepdim=True)), dim=1)
    for _ in range(max_iters):
        labels = distances[rows, medoids].argmin(dim=1).scatter(1, medoids, torch.arange(k).expand_as(medoids))
        member = F.one_hot(labels, k).transpose(1, 2).bool()
        sums = (distances[:, None] * (member[:, :, :, None] & member[:, :, None, :])).sum(dim=3)
        moved = sums.masked_fill(~member, torch.inf).argmin(dim=2)
        still = (moved == medoids) | (distances[rows, moved].gather(2, medoids[:, :, None])[:, :, 0] <= tol)
        if still.all():
            break
        medoids = moved
    medoids = medoids.sort(dim=1).values
    return medoids, distances[rows, medoids].argmin(dim=1).scatter(1, medoids, torch.arange(k).expand_as(medoids))


def merge_pairs(
    x: Tensor, r: int, num_prefix_tokens: int = 0, sizes: Tensor | None = None, metric: Tensor | None = None
):
    sizes = x.new_ones(x.shape[:2]) if sizes is None else sizes
    metric = x if metric is None else metric
    merged = [_merge_pairs_one(a, r, num_prefix_tokens, s, m) for a, s, m in zip(x, sizes, metric)]
    return tuple(torch.stack(part) for part in zip(*merged))


def _merge_pairs_one(x: Tensor, r: int, num_prefix_tokens: int, sizes: Tensor, metric: Tensor):
    sources, targets = range(0, len(x), 2), range(1, len(x), 2)
    free_targets = [j for j in targets if j >= num_prefix_tokens]
    unit = F.normalize(metric.detach(), dim=1)
    best = []
    for i in sources:
        if i >= num_prefix_tokens and free_targets:
            similarity = unit[free_targets] @ unit[i]
            best.append((float(similarity.max()), i, free_targets[int(similarity.argmax())]))
    joins = {i: j for _, i, j in sorted(best, key=lambda row: -row[0])[:r]}
    kept = [i for i in sources if i not in joins] + list(targets)
    labels = torch.tensor([kept.index(joins.get(i, i)) for i in range(len(x))])
    member = F.one_hot(labels, len(kept)).to(x.dtype) * sizes[:, None]
    return (member.T @ x) / member.sum(dim=0)[:, None], labels, member.sum(dim=0)


def merge_nearest(x: Tensor, n_groups: int, sizes: Tensor | None = None, part: int = 8):
    sizes = x.new_ones(x.shape[:2]) if sizes is None else sizes
    return tuple(
        torch.stack(each) for each in zip(*(_merge_nearest_one(*one, n_groups, part) for one in zip(x, sizes)))
    )


def _merge_nearest_one(x: Tensor, sizes: Tensor, n_groups: int, part: int):
    groups = [[n] for n in range(len(x))]

    def weight(group: list[int]) -> Tensor:
        return sizes[group].sum()

    def mean(group: list[int]) -> Tensor:
        return (x[group] * sizes[group, None]).sum(0) / weight(group)

    def cost(one: list[int], other: list[int]) -> float:
        """How much their merge adds to the squares of members around means."""
        apart = (mean(one) - mean(other)).square().sum()
        return float(apart * weight(one) * weight(other) / (weight(one) + weight(other)))

    while len(groups) > n_groups:
        offers = []
        for i in range(0, len(groups), 2):
            offers.append((*min((cost(groups[i], groups[j]), j) for j in range(1, len(groups), 2)), i))
        away = min(len(groups) - n_groups, -(-len(groups) // part))
        joins = {i: j for _, j, i in sorted(offers)[:away]}
        merged = [
            group + [n for i, j in joins.items() if j == index for n in groups[i]] for index, group in enumerate(groups)
        ]
        kept = [i for i in range(0, len(groups), 2) if i not in joins] + list(range(1, len(groups), 2))
        groups = [merged[i] for i in kept]
    labels = torch.empty(len(x), dtype=torch.long)
    for number, group in enumerate(groups):
        labels[group] = number
    return torch.stack([mean(group) for group in groups]), labels, torch.stack([weight(group) for group in groups])


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float | None = None) -> Tensor:
    logits = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scale is None else scale)
    return (logits + bias[:, None, None]).softmax(dim=3) @ value
