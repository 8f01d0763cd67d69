"""Recipes. A module is a recipe: its docstring says what it takes and gives, `CONFIG` is all of it.

They import by full names, so that a copy of one is a recipe anywhere: `samjax train my_recipe.py`.
"""
