"""Kernels in C for what torch does in many passes over memory; compiled where they are used.

`library` compiles and loads them, `ops` calls them from torch. Everything they do has a formula in
torch beside it, which is used without a compiler, on a GPU, and while a program is traced.
"""
