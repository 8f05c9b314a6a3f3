"""C kernels for what torch does in many passes over memory; compiled on the machine that uses them.

`library` compiles and loads them, `ops` calls them from torch. Each has an equivalent formula in
torch, which is used without a compiler, on a GPU, and while a program is traced.
"""
