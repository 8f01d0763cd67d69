"""The cheapest one-to-one assignment of objects to queries (the Hungarian method, by shortest augmenting paths).

Objects are added one after the other, and empty slots, which only pad, cost nothing. That is the reason for a form of
our own: `optax.assignment.hungarian_algorithm` assigns them too. Milliseconds for 100 queries, batches by `vmap`
(`benchmarks/instances.py`, two busy CPU cores):

    images                 1                        8                        20
    objects       1    20  20/100   100    1    20  20/100   100    1    20  20/100   100
    samjax     0.08  0.20    0.30   4.5  0.08  0.54    0.66    27  0.08   1.8     2.1    94
    optax      0.05  0.16     7.0   4.8  0.09  0.74      36    31  0.14   2.6     150   131
    callback   0.11  0.25    0.79   1.2  0.13  0.29     1.1   6.7  0.14   1.4     1.3    16

(20/100: 20 objects in 100 slots.) A callback to scipy on the host is faster for a hundred objects. But a program that
has one, which is the whole training step, is not kept in JAX's persistent cache and compiles again at every start, and
on an accelerator all wait for the host. No accelerator has been measured.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float32, Int32

WORST = 1e6  # what a cost that is no number, or beyond this, counts as


def assign(costs: Float32[Array, "Q O"], valid: Bool[Array, " O"]) -> Int32[Array, " O"]:
    """Assigns a query of its own to each object, so that the sum of costs is least.

    Args:
        costs: of each query for each object. NaN counts as `WORST`, larger ones are cut off there, either sign.
        valid: False for slots that hold no object, whose costs do not matter.

    Returns:
        The query of each object; -1 for slots without one and, if there are more objects than queries, for the objects
        left over.
    """
    queries, objects = costs.shape
    if not queries or not objects:
        return jnp.full(objects, -1, jnp.int32)
    costs = jnp.clip(jnp.where(jnp.isnan(costs), WORST, costs), -WORST, WORST)
    if objects <= queries:
        return _assign_rows(costs.T, valid)
    # Either side may be the smaller one, which only the device knows.
    few = valid.sum() <= queries

    # A row for which all columns are taken would search for ever: where one side's rows are too many, none is valid.
    by_object = _assign_rows(costs.T, valid & few)
    by_query = _assign_rows(jnp.where(valid[None], costs, jnp.inf), jnp.broadcast_to(~few, queries))
    return jnp.where(few, by_object, _inverse(by_query, objects))


def _assign_rows(costs: Float32[Array, "rows columns"], valid: Bool[Array, " rows"]) -> Int32[Array, " rows"]:
    """The column of each valid row, -1 of the others. Columns are no fewer than valid rows; infinite ones are not
    taken while others are free."""
    rows, columns = costs.shape
    start = columns  # a column beside the others, at which every search begins; -1 is no row
    costs = jnp.pad(costs, ((0, 0), (0, 1)))

    def add_row(state, row):
        of_rows, of_columns, owner = state  # prices, and the row that has each column
        owner = owner.at[start].set(jnp.where(valid[row], row, -1))  # without a row at the start there is no search

        def explore(search):
            """Goes from a taken column to its row, and from there to the nearest column not yet seen."""
            of_rows, of_columns, column, seen, distance, previous = search
            seen = seen.at[column].set(True)
            reduced = costs[owner[column]] - of_rows[owner[column]] - of_columns
            nearer = ~seen & (reduced < distance)
            distance, previous = jnp.where(nearer, reduced, distance), jnp.where(nearer, column, previous)
            open_columns = jnp.where(seen, jnp.inf, distance)
            nearest = lax.argmin(open_columns, 0, jnp.int32)
            step = open_columns[nearest]
            of_rows = of_rows.at[jnp.where(seen, owner, rows)].add(step, mode="drop")
            of_columns = jnp.where(seen, of_columns - step, of_columns)
            return of_rows, of_columns, nearest, seen, jnp.where(seen, distance, distance - step), previous

        search = (
            of_rows,
            of_columns,
            jnp.int32(start),
            jnp.zeros(columns + 1, bool),
            jnp.full(columns + 1, jnp.inf, jnp.float32),
            jnp.full(columns + 1, start, jnp.int32),
        )
        search = lax.while_loop(lambda search: owner[search[2]] >= 0, explore, search)
        of_rows, of_columns, column, _, _, previous = search

        def hand_over(path):
            owner, column = path
            return owner.at[column].set(owner[previous[column]]), previous[column]

        owner, _ = lax.while_loop(lambda path: path[1] != start, hand_over, (owner, column))
        return (of_rows, of_columns, owner.at[start].set(-1)), None

    prices = jnp.zeros(rows, jnp.float32), jnp.zeros(columns + 1, jnp.float32)
    state = (*prices, jnp.full(columns + 1, -1, jnp.int32))
    (_, _, owner), _ = lax.scan(add_row, state, jnp.arange(rows, dtype=jnp.int32))
    return _inverse(owner[:columns], rows)


def _inverse(owner: Int32[Array, " columns"], rows: int) -> Int32[Array, " rows"]:
    """The column of each row, from the row of each column; -1 is none."""
    columns = jnp.arange(len(owner), dtype=jnp.int32)
    return jnp.full(rows, -1, jnp.int32).at[jnp.where(owner < 0, rows, owner)].set(columns, mode="drop")
